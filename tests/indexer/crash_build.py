"""Changes an index and kills itself without warning at one call of one function; started as a process of its own."""

import importlib
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

from indexer.build import run_build
from indexer.plan import Plan
from tests.indexer.fakes import FakeDataset, fake_add, fake_plan, fake_rebuild, reads_fakes

GROWN = 150  # records of the tree that is added


def run_job(job: str, home: Path, workers: int = 0) -> Path:
    """Carry out one of the three ways to a new version: `build`, `add` or `rebuild`, the new model's seed being 1."""
    with reads_fakes():
        return run_build(plan_job(job, home, workers))


def plan_job(job: str, home: Path, workers: int = 0) -> Plan:
    if job == "build":
        return fake_plan(home, seed=1, workers=workers)
    if job == "add":
        return fake_add(home, FakeDataset(home, GROWN, mended=True), only_new=True, workers=workers)
    return fake_rebuild(home, seed=1, activate=True, workers=workers)


def run_and_die(job: str, home: Path, target: str, call: int, when: str, workers: int, report: Path) -> None:
    """Run a job until the fatal call; before it dies, write the ids of the worker processes to `report`.

    Args:
        job: see `run_job`.
        target: `module:function` or `module:Class.method`.
        call: which call of it is the last.
        when: `before` or `after` the function did its work.
    """
    module, _, path = target.partition(":")
    *parents, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for parent in parents:
        owner = getattr(owner, parent)
    original, calls = getattr(owner, name), []

    def deadly(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == call and when == "before":
            die()
        result = original(*arguments, **options)
        if len(calls) == call:
            die()
        return result

    def die() -> None:
        report.write_text(" ".join(str(process.pid) for process in multiprocessing.active_children()))
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, deadly)
    run_job(job, home, workers)
