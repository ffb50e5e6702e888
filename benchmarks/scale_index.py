"""The content of an index of any size: records and vectors that look like the built-in demo's."""

from pathlib import Path

import numpy as np

from fgclep.demo import demo_index_path
from fgclep.record import RecordInfo
from indexer.assemble import Content, assemble
from indexer.manifest import STORED, Counts, DatasetRef, read_manifest
from indexer.open import open_index
from indexer.publish import new_version_id
from indexer.rows import record_row
from indexer.staging import ShardContent, Staging, as_lines
from indexer.store import write_store
from retrieval.waveforms import record_info

FIRST_STUDY = 50_000_000
SHARD = 2048
REPORTS = 5000


def stage(staging: Staging, records: int, dtype: str) -> int:
    """Write the records as shards of a build, and return the number of shards."""
    sample, shards = Sample(), -(-records // SHARD)
    fingerprint = read_manifest(demo_index_path()).model.fingerprint
    staging.prepare({"synthetic": records}, new_version_id(fingerprint), resume=False)
    for number in range(shards):
        staging.commit(number, sample.shard(number, min(SHARD, records - number * SHARD), STORED[dtype]))
    return shards


def put_together(staging: Staging, shards: int, records: int, dtype: str, listed: Path, name: str) -> Path:
    """Make a version of the shards; `listed` is the folder that lists its records."""
    reference = read_manifest(demo_index_path())
    counts = Counts(records, 0, 0, records, records, 0, {})

    def write(path: Path) -> Counts:
        write_store(path, staging.iter_rows(shards, "record"), (), ())
        return counts

    content = Content(
        vectors=map(staging.vectors, range(shards)),
        keys=map(staging.keys, range(shards)),
        write_store=write,
        dataset=DatasetRef("mimic-iv-ecg", "a list of synthetic records", str(listed), 500),
        options={"synthetic": True},
    )
    return assemble(
        staging.version_dir,
        content,
        name=name,
        version=str(staging.planned("version")),
        model=reference.model,
        dtype=dtype,
        calibration=reference.calibration,
    )


class Sample:
    """Draws records and vectors that look like the demo's."""

    def __init__(self) -> None:
        with_rows = open_index(demo_index_path(), backend="numpy")
        self._rng = np.random.default_rng(0)
        self._vectors = np.asarray(with_rows.vectors, np.float32)
        infos = [record_info(row) for row in with_rows.store.records(with_rows.keys.tolist()).values()]
        self._measurements = [info.measurements for info in infos]
        lines = sorted({line for info in infos for line in info.report_lines})
        self._reports = [
            tuple(self._rng.choice(lines, self._rng.integers(1, 6), replace=False).tolist()) for _ in range(REPORTS)
        ]
        often = 1 / np.arange(1, REPORTS + 1)
        self._often = often / often.sum()
        with_rows.close()

    def shard(self, number: int, count: int, dtype: str) -> ShardContent:
        """Draw the records of one shard."""
        first, rng = number * SHARD, self._rng
        keys = np.arange(first, first + count)
        near = self._vectors[rng.integers(0, len(self._vectors), count)]
        vectors = near + 0.03 * rng.standard_normal(near.shape, np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        chosen = zip(
            keys.tolist(),
            rng.choice(REPORTS, count, p=self._often).tolist(),
            rng.integers(0, len(self._measurements), count).tolist(),
            np.clip(rng.normal(63, 18, count), 18, 101).round().tolist(),
            rng.integers(0, 2, count).tolist(),
            rng.integers(0, 86_400 * 365 * 10, count).tolist(),
            strict=True,
        )
        rows = [
            record_row(key, self._info(key, *drawn), fs_hz=500.0, duration_s=10.0, flags=()) for key, *drawn in chosen
        ]
        return ShardContent("synthetic", vectors.astype(dtype), keys.astype(np.int64), as_lines("record", rows), ())

    def _info(self, key: int, report: int, measured: int, age: float, sex: int, second: int) -> RecordInfo:
        study, subject = FIRST_STUDY + key, str(20_000_000 + key // 5)
        return RecordInfo(
            record_id=f"mimic-iv-ecg:{study}",
            dataset="mimic-iv-ecg",
            subject_id=subject,
            study_id=str(study),
            path=path_of(study, subject),
            ecg_time=str(np.datetime64("2150-01-01T00:00:00") + second),
            age_years=age,
            sex="FM"[sex],
            report_lines=self._reports[report],
            measurements=self._measurements[measured],
        )


def path_of(study: int, subject: str) -> str:
    """Return where MIMIC-IV-ECG keeps a record."""
    return f"files/p{subject[:4]}/p{subject}/s{study}/{study}"


def write_list(root: Path, example: Path, records: int) -> None:
    """Write a folder that lists the records of the index; of the files there is one header, which tells the rate."""
    root.mkdir(exist_ok=True)
    header = next(example.rglob("*.hea"))
    with (root / "record_list.csv").open("w") as stream:
        stream.write("subject_id,study_id,file_name,ecg_time,path\n")
        for key in range(records):
            study, subject = FIRST_STUDY + key, str(20_000_000 + key // 5)
            stream.write(f"{subject},{study},{study},2150-01-01 00:00:00,{path_of(study, subject)}\n")
    measurements = (example / "machine_measurements.csv").read_text(encoding="utf-8")
    (root / "machine_measurements.csv").write_text(measurements.partition("\n")[0] + "\n", encoding="utf-8")
    first = root / f"{path_of(FIRST_STUDY, str(20_000_000))}.hea"
    first.parent.mkdir(parents=True, exist_ok=True)
    first.write_bytes(header.read_bytes())
