"""Read the samples of an indexed record again: from the data the index was built of, or from the generator's seed."""

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgclep.errors import DataError, NotSetUpError
from fgclep.record import EcgRecord, Measurements, RecordInfo
from indexer.manifest import IndexManifest

if TYPE_CHECKING:
    from fgclep.datasets import Dataset


def record_info(row: Mapping[str, Any]) -> RecordInfo:
    """Turn a row of the store (see `indexer.store.Store.records`) back into the record's description."""
    return RecordInfo(
        record_id=row["record_id"],
        dataset=row["dataset"],
        subject_id=row["subject_id"],
        study_id=row["study_id"],
        path=row["path"],
        ecg_time=row["ecg_time"],
        age_years=row["age_years"],
        sex=row["sex"],
        report_lines=tuple(row["report"].splitlines()),
        tags=tuple(row["tags"]),
        fold=row["fold"],
        measurements=Measurements(**{field.name: row[field.name] for field in fields(Measurements)}),
    )


def read_file(path: Path) -> EcgRecord:
    """Read a WFDB record that is in no index.

    Args:
        path: without extension.

    Raises:
        RecordReject: if it cannot be used.
    """
    from fgclep.signal import clean
    from fgclep.wfdb_io import read_wfdb

    record_id = f"wfdb:{path.name}"
    raw = read_wfdb(path, record_id)
    info = RecordInfo(record_id, "wfdb", record_id, path.name, str(path), report_lines=raw.comments)
    return clean(raw, info)


class WaveformReader:
    """Reads records of one index; the data set is opened at the first need.

    Args:
        manifest: of the index; says where the data was.
    """

    def __init__(self, manifest: IndexManifest) -> None:
        self._manifest = manifest

    def read(self, row: Mapping[str, Any]) -> EcgRecord:
        """Read one record.

        Args:
            row: its row of the store.

        Raises:
            NotSetUpError: if the data is no longer where the index was built from.
            RecordReject: if its file has gone or changed.
        """
        info = record_info(row)
        if info.generated:
            return _regenerate(info, row["fs_hz"])
        return self._dataset.read(info)

    @cached_property
    def _dataset(self) -> "Dataset":
        from fgclep.datasets import open_dataset

        root = Path(self._manifest.dataset.root)
        if not root.is_dir():
            raise NotSetUpError(
                f"The waveforms of index {self._manifest.name} were in {root}, which does not exist; "
                "searching works without them, pictures and exports do not.",
                f"Put the data back there, or: fgclep index build --data PATH --name {self._manifest.name}",
            )
        return open_dataset(root, fs_hz=self._manifest.dataset.fs_hz)


def _regenerate(info: RecordInfo, fs_hz: float) -> EcgRecord:
    """Make a synthetic record again from its id, `synthetic:<seed>-<number>`."""
    from fgclep.datasets.synthetic import generate_one

    seed, _, number = info.record_id.removeprefix("synthetic:").rpartition("-")
    if not (seed.isdigit() and number.isdigit()):
        raise DataError(f"{info.record_id} is not of the form synthetic:<seed>-<number>, so it cannot be regenerated.")
    return replace(generate_one(int(seed), int(number), fs_hz=int(fs_hz)).record, info=info)
