"""Packs a tree and kills itself without warning at one call of one function; started as a process of its own."""

import importlib
import os
import signal
from pathlib import Path
from typing import Any

from fgclep.datasets import open_dataset, pack_write
from fgclep.datasets.pack_write import plan_pack, write_pack

SHARD = 7
"""Records per shard, so that a small tree makes several."""


def run_pack(
    tree: Path, out: Path, *, workers: int = 0, fs_hz: int | None = None, restart: bool = False
) -> dict[str, Any]:
    """Pack a tree in small shards."""
    before = pack_write.SHARD_RECORDS
    pack_write.SHARD_RECORDS = SHARD
    try:
        plan = plan_pack(open_dataset(tree), out, fs_hz=fs_hz, restart=restart)
        return write_pack(plan, workers, lambda counts: None)
    finally:
        pack_write.SHARD_RECORDS = before


def run_and_die(tree: Path, out: Path, target: str, call: int, restart: bool) -> None:
    """Pack until the fatal call of `module:function` or `module:Class.method` returned."""
    module, _, path = target.partition(":")
    *parents, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for parent in parents:
        owner = getattr(owner, parent)
    original, calls = getattr(owner, name), []

    def deadly(*arguments: Any, **options: Any) -> Any:
        result = original(*arguments, **options)
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)
    run_pack(tree, out, restart=restart)
