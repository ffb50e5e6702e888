"""A small index on disk whose vectors are known, and a model that needs no training."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgclep.record import EcgRecord, Measurements, RecordInfo
from indexer.manifest import Counts, DatasetRef, IndexManifest, ModelRef, describe_files, manifest_json
from indexer.rows import record_row
from indexer.store import write_store

DIM = 4
SIZE = 80


class FakeEncoder:
    """Texts are vectors written out, such as `1 0 0 0`; scores rise with similarity."""

    def encode_text(self, text: str) -> NDArray[np.float32]:
        vector = np.array([float(part) for part in text.split()], np.float32)
        unit: NDArray[np.float32] = vector / np.linalg.norm(vector)
        return unit

    def encode_record(self, record: EcgRecord) -> NDArray[np.float32]:
        assert record.waveform.shape[0] == 12
        return np.array([0.0, 0.0, 0.0, 1.0], np.float32)

    def score(self, similarities: NDArray[np.float32]) -> NDArray[np.float32]:
        return (1.0 / (1.0 + np.exp(-8.0 * (similarities - 0.5)))).astype(np.float32)


def write_index(path: Path) -> None:
    """Write a version directory of synthetic ECGs of 25 patients, with gaps between keys and many equal vectors."""
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(SIZE, DIM))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    vectors[rng.choice(np.arange(10, SIZE), 40, replace=False)] = np.repeat(vectors[:10], 4, axis=0)
    keys = np.cumsum(rng.integers(1, 4, SIZE)).astype(np.int64)
    (path / "embeddings").mkdir(parents=True)
    np.save(path / "embeddings" / "vectors.npy", vectors)
    np.save(path / "embeddings" / "keys.npy", keys)
    rows = []
    for number, key in enumerate(keys):
        info = RecordInfo(
            record_id=f"synthetic:3-{number}",
            dataset="synthetic",
            subject_id=str(number * 7 % 25),
            study_id=str(1000 + number),
            path=f"files/{number}",
            age_years=None if number % 7 == 0 else float(rng.integers(20, 90)),
            sex="FM"[number % 2],
            report_lines=("Sinus rhythm", "Low voltage [limb]") if number % 3 else (),
            tags=("SR",) if number % 2 else (),
            measurements=Measurements(qrs_duration_ms=float(80 + number)),
        )
        rows.append(record_row(int(key), info, fs_hz=100.0, duration_s=10.0, flags=("nan-filled",)))
    write_store(path / "store.sqlite", rows, [], [])
    manifest = IndexManifest(
        name="toy",
        version=path.name,
        created="2026-01-01T00:00:00Z",
        fgclep_version="0",
        model=ModelRef("fake", "nowhere", "f" * 16, DIM),
        dataset=DatasetRef("wfdb", "toy data", str(path / "moved-away"), 100),
        counts=Counts(SIZE, 0, 0, SIZE, SIZE, 0, {}),
        dtype="float32",
        options={},
        calibration=None,
        self_test={},
        files=describe_files(path),
    )
    (path / "manifest.json").write_text(manifest_json(manifest), encoding="utf-8")
