"""Read the samples of an indexed record again: from the data the index was built of, or from the generator's seed."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgclep.errors import DataError
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
    """Reads records of one index; a data set is opened at the first need.

    Args:
        manifest: of the index; says where the data is.
    """

    def __init__(self, manifest: IndexManifest) -> None:
        self._manifest = manifest
        self._opened: dict[int, Dataset] = {}

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
        return self._dataset_of(row["key"]).read(info)

    def _dataset_of(self, key: int) -> "Dataset":
        """Return the data set that a record was read from: an index may have grown from several."""
        from indexer.sources import open_source

        place = bisect_right(self._manifest.sources, key, key=lambda source: source[0]) - 1
        if place not in self._opened:
            self._opened[place] = open_source(self._manifest.sources[place][1], self._manifest.name)
        return self._opened[place]


def _regenerate(info: RecordInfo, fs_hz: float) -> EcgRecord:
    """Make a synthetic record again from its id, `synthetic:<seed>-<number>`."""
    from fgclep.datasets.synthetic import generate_one

    seed, _, number = info.record_id.removeprefix("synthetic:").rpartition("-")
    if not (seed.isdigit() and number.isdigit()):
        raise DataError(f"{info.record_id} is not of the form synthetic:<seed>-<number>, so it cannot be regenerated.")
    return replace(generate_one(int(seed), int(number), fs_hz=int(fs_hz)).record, info=info)
