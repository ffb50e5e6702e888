"""How many processes: one a core, fewer where memory is short, never none."""

import pytest

from indexer import resources
from indexer.plan import SHARD_SIZE
from indexer.resources import choose_batch_size, choose_workers, free_memory, usable_cores


@pytest.mark.parametrize(
    ("device", "cores", "free", "workers"),
    [
        ("cpu", 2, 100e9, 2),
        ("cpu", 64, 100e9, 64),
        ("cpu", 64, 6.1e9, 6),
        ("cpu", 64, None, 64),
        ("cpu", 4, 1e8, 1),
        ("cuda", 16, 100e9, 15),
        ("cuda", 1, 100e9, 1),
    ],
)
def test_workers(device: str, cores: int, free: float | None, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "usable_cores", lambda: cores)
    monkeypatch.setattr(resources, "free_memory", lambda: free)
    assert choose_workers(device) == workers


def test_this_machine_is_understood() -> None:
    assert usable_cores() >= 1
    free = free_memory()
    assert free is None or 1e6 < free < 1e15


@pytest.mark.parametrize(
    ("device", "records", "workers", "size"),
    [("cpu", 10, 2, 64), ("cpu", 1000, 2, 64), ("cpu", 8000, 2, 512), ("cpu", 8000, 8, 128), ("cpu", 9, 0, 512)],
)
def test_batches_are_large_but_enough_for_every_worker(device: str, records: int, workers: int, size: int) -> None:
    assert choose_batch_size(device, records, workers) == size
    assert choose_batch_size("cuda", records, workers) == 512
    assert SHARD_SIZE % size == 0
