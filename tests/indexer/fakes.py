"""A data set and a model small enough that builds take milliseconds, importable by worker processes."""

import signal
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from fgclep.datasets import Dataset
from fgclep.preprocessing import EcgProcessor
from fgclep.record import EcgRecord, Measurements, RecordInfo, RecordReject
from indexer import rebuild, sources
from indexer.add import AddPlan, plan_add
from indexer.build import BuildPlan, plan_build
from indexer.embed import Embedder
from indexer.manifest import ModelRef
from indexer.rebuild import RebuildPlan, plan_rebuild

DIM = 8
PROCESSOR = EcgProcessor(fs_hz=100, n_samples=100, lowpass_hz=None, center="none")


class FakeDataset(Dataset):
    """`size` random ECGs from number `first` on, subjects of two records each.

    Record i is rejected as flat where i % 10 == 3, unless `mended`; records below `absent` have no files; record `odd`
    raises an error that no reader foresaw; record `twice` is listed twice.
    """

    kind = "fake"
    name = "Fake"

    def __init__(
        self,
        root: Path,
        size: int = 100,
        absent: int = 0,
        odd: int = -1,
        *,
        first: int = 0,
        mended: bool = False,
        twice: int | None = None,
    ) -> None:
        super().__init__(root, (100, 500), 100)
        self.size, self.absent, self.odd, self.mended = size, absent, odd, mended
        self.numbers = [*range(first, first + size), *(() if twice is None else (twice,))]

    def iter_listed(self) -> Iterator[tuple[str, str]]:
        return ((f"fake:{i}", f"records/{i}") for i in self.numbers)

    def _has_files(self, path: str) -> bool:
        return int(path.rpartition("/")[2]) >= self.absent

    def iter_infos(self) -> Iterator[RecordInfo]:
        for i in (number for number in self.numbers if number >= self.absent):
            yield RecordInfo(
                record_id=f"fake:{i}",
                dataset="fake",
                subject_id=f"s{i // 2}",
                study_id=str(i),
                path=f"records/{i}",
                age_years=float(20 + i % 60),
                sex="FM"[i // 2 % 2],
                report_lines=("Sinus rhythm.", f"Rückstrom number{i % 500}"),
                tags=("SR", "SR", "EVEN" if i % 2 == 0 else "ODD"),
                measurements=Measurements(heart_rate_bpm=60.0 + i, qrs_duration_ms=None),
                extra={"device": "CS-12"},
            )

    def read(self, info: RecordInfo) -> EcgRecord:
        number = int(info.study_id)
        if number % 10 == 3 and not self.mended:
            raise RecordReject(info.record_id, "flat", "lead V1 is flat")
        if number == self.odd:
            raise ZeroDivisionError("nobody foresaw this")
        rng = np.random.default_rng(number)
        return EcgRecord(info, rng.standard_normal((12, 100)).astype(np.float32), 100, ("nan-filled",))


class InterruptedDataset(FakeDataset):
    """Presses Ctrl-C in every process it is sent to, as soon as it arrives."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        signal.raise_signal(signal.SIGINT)


@dataclass(frozen=True)
class FakeModel:
    """Projects the samples with a fixed random matrix."""

    seed: int = 0

    def encode_ecg(self, prepared: np.ndarray) -> np.ndarray:
        flat = prepared.reshape(len(prepared), -1)
        weights = np.random.default_rng(self.seed).standard_normal((flat.shape[1], DIM))
        vectors = flat @ weights
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def fake_embedder(seed: int = 0) -> Embedder:
    fingerprint = f"{zlib.crc32(str(seed).encode()):016x}"
    reference = ModelRef("fake", "/nowhere/fake", fingerprint, DIM)
    return Embedder(reference, PROCESSOR, FakeModel(seed).encode_ecg, {"slope": 10.0, "offset": -5.0})


def fake_plan(
    home: Path, dataset: FakeDataset | None = None, name: str = "demo", seed: int = 0, **options: Any
) -> BuildPlan:
    """Plan a build of small shards in this process; `options` as in `plan_build`."""
    settings = {"workers": 0, "batch_size": 8, "shard_size": 16, **options}
    return plan_build(dataset or FakeDataset(home), fake_embedder(seed), name, home=home, **settings)


def fake_add(home: Path, dataset: FakeDataset, name: str = "demo", seed: int = 0, **options: Any) -> AddPlan:
    """Plan an addition; `options` as in `plan_add`."""
    settings = {"workers": 0, "batch_size": 8, "shard_size": 16, **options}
    return plan_add(dataset, fake_embedder(seed), name, home=home, **settings)


def fake_rebuild(home: Path, name: str = "demo", seed: int = 1, **options: Any) -> RebuildPlan:
    """Plan a rebuild; `options` as in `plan_rebuild`. Needs `reads_fakes`."""
    settings = {"workers": 0, "batch_size": 8, "shard_size": 16, **options}
    return plan_rebuild(fake_embedder(seed), name, home=home, **settings)


def forbid_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test fail that looks for a GPU to search an index, however small."""
    monkeypatch.setattr("indexer.open._GPU_FROM_ROWS", 1)
    monkeypatch.setattr("indexer.open.gpu_backends", lambda: pytest.fail("a GPU was looked for"))


@contextmanager
def reads_fakes(**settings: Any) -> Iterator[None]:
    """Let folders be opened as fake data sets for a while; `settings` as in `FakeDataset`."""

    def open_fake(root: Path, fs_hz: float | None = None) -> FakeDataset:
        return FakeDataset(Path(root), **settings)

    with patch.object(sources, "open_dataset", open_fake), patch.object(rebuild, "open_for_rate", open_fake):
        yield
