"""An estimate is made of measurements, spreads its sample over the whole listing, and writes nothing."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from fgclep.errors import InterruptedWork
from indexer import build as build_module
from indexer import estimate as estimate_module
from indexer.build import run_build
from indexer.embed import Tally
from indexer.estimate import estimate
from tests.indexer.fakes import FakeDataset, FakeModel, fake_add, fake_plan, fake_rebuild, reads_fakes

READ_S, ENCODE_S, STORE_S = 0.002, 0.001, 0.0005


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make every stage take a known time for each record, by a clock of its own; returns the records read."""
    read, encode, store = FakeDataset.read, FakeModel.encode_ecg, estimate_module.write_store
    now, numbers = [0.0], []

    def slow_read(self: FakeDataset, info: Any) -> Any:
        now[0] += READ_S
        numbers.append(int(info.study_id))
        return read(self, info)

    def slow_encode(self: FakeModel, prepared: np.ndarray) -> np.ndarray:
        now[0] += ENCODE_S * len(prepared)
        return encode(self, prepared)

    def slow_store(path: Path, records: list[Any], *others: Any) -> None:
        now[0] += STORE_S * len(records)
        store(path, records, *others)

    slow_encode.__name__ = "encode_ecg"  # a bound method pickles by name
    monkeypatch.setattr(FakeDataset, "read", slow_read)
    monkeypatch.setattr(FakeModel, "encode_ecg", slow_encode)
    monkeypatch.setattr(estimate_module, "write_store", slow_store)
    monkeypatch.setattr(estimate_module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    return numbers


def test_of_a_build(slow: list[int], tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, FakeDataset(tmp_path, 5000, mended=True))
    found = estimate(plan, cores=2)
    assert list(tmp_path.iterdir()) == []
    assert found.records == 5000 and 250 <= found.sampled <= 256 and found.rejected == 0
    assert min(slow) == 0 and max(slow) > 4800
    assert (found.read_ms, found.encode_ms, found.store_ms) == pytest.approx((2, 1, 0.5))
    assert found.seconds == pytest.approx(5000 * (READ_S + ENCODE_S + STORE_S))
    assert found.disk_bytes == plan.disk_bytes and found.free_bytes > 0 and found.memory_bytes > 20e6


def test_the_last_records_have_their_share_of_the_sample(slow: list[int], tmp_path: Path) -> None:
    estimate(fake_plan(tmp_path, FakeDataset(tmp_path, 511, mended=True)), cores=2)
    assert max(slow) > 500 and len(slow) <= 256


def test_with_another_device_the_slower_stage_decides(slow: list[int], tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, FakeDataset(tmp_path, 1000), workers=1, batch_size=64)
    found = estimate(replace(plan, embedder=replace(plan.embedder, device="cuda")), cores=16)
    assert found.seconds == pytest.approx(1000 * (max(READ_S, ENCODE_S) + STORE_S))


@pytest.mark.parametrize(("workers", "cores", "share"), [(2, 16, 2), (2, 1, 1)])
def test_processes_that_read_and_encode_share_the_work(
    workers: int, cores: int, share: int, slow: list[int], tmp_path: Path
) -> None:
    found = estimate(fake_plan(tmp_path, FakeDataset(tmp_path, 1000), workers=workers, batch_size=64), cores)
    assert found.seconds == pytest.approx(1000 * ((READ_S + ENCODE_S) / share + STORE_S))


def test_of_a_run_that_goes_on_only_what_is_left_counts(slow: list[int], tmp_path: Path) -> None:
    data = FakeDataset(tmp_path, 100, mended=True)

    def stop(tally: Tally) -> None:
        if tally.done > 48:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedWork):
        run_build(fake_plan(tmp_path, data), stop)
    slow.clear()
    found = estimate(fake_plan(tmp_path, data), cores=2)
    assert (found.records, found.sampled, min(slow)) == (52, 52, 48)
    assert found.seconds == pytest.approx(52 * (READ_S + ENCODE_S) + 100 * STORE_S)
    assert estimate(fake_plan(tmp_path, data, resume=False), cores=2).records == 100


def test_of_an_addition_and_a_rebuild_only_what_they_read_counts(tmp_path: Path) -> None:
    run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 200)))
    before = sorted(tmp_path.rglob("*"))
    assert estimate(fake_add(tmp_path, FakeDataset(tmp_path, 50, first=200)), cores=2).records == 50
    with reads_fakes(size=200):
        assert estimate(fake_rebuild(tmp_path), cores=2).records == 180
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("job", ["build", "add", "rebuild"])
def test_a_run_needs_no_more_disk_than_its_plan_says(job: str, tmp_path: Path) -> None:
    """The peak: finished shards and the complete version, just before it is published."""
    run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 2000)))
    with reads_fakes(size=2000):
        plan = {
            "build": lambda: fake_plan(tmp_path, FakeDataset(tmp_path, 2000)),
            "add": lambda: fake_add(tmp_path, FakeDataset(tmp_path, 2000, first=2000)),
            "rebuild": lambda: fake_rebuild(tmp_path),
        }[job]()
        promised, used = plan.disk_bytes, []
        publish = build_module.publish

        def measured(*arguments: Any, **options: Any) -> Path:
            used.append(plan.staging.size_bytes())
            return publish(*arguments, **options)

        with patch.object(build_module, "publish", measured):
            run_build(plan)
    assert promised / 6 < used[0] < promised
