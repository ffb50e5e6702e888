"""The pool gives what a loop gives, in order, and leaves nothing behind."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from fgclep.errors import FgclepError
from fgclep.pool import map_in_order

PATIENCE_S = 300


def square(number: int) -> int:
    return number * number


def die_of_seven(number: int) -> int:
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_order(workers: int) -> None:
    assert list(map_in_order(square, range(50), workers)) == [(n, n * n) for n in range(50)]


def test_items_are_not_taken_far_ahead() -> None:
    taken: list[int] = []
    results = map_in_order(square, (taken.append(n) or n for n in range(1000)), 1)  # type: ignore[func-returns-value]
    next(results)
    assert len(taken) <= 4
    results.close()
    assert len(taken) <= 4


def test_a_worker_that_dies_is_told() -> None:
    with pytest.raises(FgclepError, match="process that reads records died"):
        list(map_in_order(die_of_seven, range(20), 1))


def work_until_killed(report: str) -> None:
    for number, _ in map_in_order(square, range(10_000), 2):
        if number == 3:
            pids = " ".join(str(process.pid) for process in multiprocessing.active_children())
            Path(report).write_text(pids)
            os.kill(os.getpid(), signal.SIGKILL)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc to look at processes")
    process = multiprocessing.get_context("spawn").Process(target=work_until_killed, args=(str(tmp_path / "pids"),))
    process.start()
    process.join(PATIENCE_S)
    assert process.exitcode == -signal.SIGKILL
    workers = [int(word) for word in (tmp_path / "pids").read_text().split()]
    assert len(workers) == 2
    deadline = time.monotonic() + PATIENCE_S
    while any(map(running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(running, workers))
