"""Publish a finished version: readers see the old index or the new one, whatever instant the machine stops."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fgclep.errors import FgclepError
from indexer.home import CURRENT, DEFAULT, VERSIONS, default_index, indexes_dir, replace_line, sync_directory

LOCK = "LOCK"


@contextmanager
def build_lock(directory: Path) -> Iterator[None]:
    """Hold the right to build one index.

    The operating system frees the lock when its process ends, however it ends, so a dead builder never blocks.

    Args:
        directory: of the index; made if needed.

    Raises:
        FgclepError: if another process is building this index.
    """
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(descriptor, 100).decode(errors="replace").strip() or "unknown"
            raise FgclepError(
                f"Process {owner} is building the index {directory.name} right now.",
                "Wait for it or stop it, or build under another --name.",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def publish(version_dir: Path, directory: Path, version: str) -> Path:
    """Move a complete version into place and make it the current one.

    Args:
        version_dir: complete and tested, on the same file system.
        directory: of the index.
        version: its name.

    Returns:
        The published version's directory.
    """
    target = directory / VERSIONS / version
    sync_tree(version_dir)
    target.parent.mkdir(exist_ok=True)
    version_dir.rename(target)
    sync_directory(target.parent)
    point_to(directory, version)
    return target


def point_to(directory: Path, version: str) -> None:
    """Make a published version the current one, in one atomic step."""
    replace_line(directory / CURRENT, version)


def become_default(home: Path, name: str) -> None:
    """Make an index the default if there is none yet."""
    if default_index(home) is None:
        replace_line(indexes_dir(home) / DEFAULT, name)


def sync_tree(directory: Path) -> None:
    """Make every file below a directory durable, then the directories."""
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    for path in (*(path for path in directory.rglob("*") if path.is_dir()), directory):
        sync_directory(path)
