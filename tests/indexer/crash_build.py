"""Builds an index and kills itself without warning at one call of one function; started as a process of its own."""

import importlib
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

from indexer.build import run_build
from tests.indexer.fakes import fake_plan


def build_and_die(home: Path, target: str, call: int, when: str, seed: int, workers: int, report: Path) -> None:
    """Build until the fatal call; before it dies, write the ids of the worker processes to `report`.

    Args:
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
    run_build(fake_plan(home, seed=seed, workers=workers))
