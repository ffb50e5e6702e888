"""Publish a finished version: readers see the old index or the new one, whatever instant the machine stops."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from fgclep.durable import sync_directory
from fgclep.errors import FgclepError
from indexer.home import CURRENT, DEFAULT, VERSIONS, default_index, indexes_dir, replace_line

LOCK = "LOCK"
HISTORY = "HISTORY"
INCOMING, RELOCATING = "incoming", "relocating"  # where an import and a relocation make their version
_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def build_lock(directory: Path) -> Iterator[None]:
    """Hold the right to build one index.

    The operating system frees the lock when its process ends, however it ends, so a dead builder never blocks.

    Args:
        directory: of the index; made if needed.

    Raises:
        FgclepError: if another process is building this index.
    """
    _make_durably(directory)
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = _owner(descriptor)
            raise FgclepError(
                f"Process {owner} is building the index {directory.name} right now.",
                "Wait for it or stop it, or build under another --name.",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _make_durably(directory: Path) -> None:
    """Make a directory and those above it, and their entries durable: a pointer in it is worth nothing without them."""
    new = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for path in new:
        sync_directory(path.parent)


def _owner(descriptor: int) -> str:
    """Return the process number in a lock file, waiting for a builder that has the lock and is about to write it."""
    for _ in range(100):
        owner = os.pread(descriptor, 100, 0).decode(errors="replace").strip()
        if owner:
            return owner
        time.sleep(0.02)
    return "unknown"


@contextmanager
def clear_write_errors(directory: Path, when_full: str, when_forbidden: str | None = None) -> Iterator[None]:
    """Tell a full disk and a folder that may not be written as such, whatever call met them.

    Args:
        directory: of the index, or what else is written.
        when_full: the hint for a full disk.
        when_forbidden: the hint for a folder that may not be written; None for one of an index.

    Raises:
        FgclepError: instead of the OSError of either.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise FgclepError(
                f"The disk is full: {directory} could not be written ({error}). The index was not changed.", when_full
            ) from error
        if error.errno in _FORBIDDEN and _concerns(error, directory):
            raise FgclepError(
                f"{directory} may not be written ({error}). The index was not changed.",
                when_forbidden
                or f"Change the permissions of {directory.parent}, or choose another folder: FGCLEP_HOME=PATH",
            ) from error
        raise


def _concerns(error: OSError, directory: Path) -> bool:
    """Tell whether an error is about a path on the way to an index or in it, not about the data it is read from."""
    path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else directory
    return path.is_relative_to(directory) or directory.is_relative_to(path)


def new_version_id(fingerprint: str) -> str:
    """Name a version after now and its model; names sort by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}-{fingerprint[:8]}"


def publish(version_dir: Path, directory: Path, version: str, *, activate: bool = True) -> Path:
    """Move a complete version into place and make it the current one.

    Args:
        version_dir: complete and tested, on the same file system.
        directory: of the index.
        version: its name.
        activate: False leaves the current version as it is.

    Returns:
        The published version's directory.
    """
    target = directory / VERSIONS / version
    sync_tree(version_dir)
    target.parent.mkdir(exist_ok=True)
    version_dir.rename(target)
    sync_directory(target.parent)
    if activate:
        point_to(directory, version)
    return target


def point_to(directory: Path, version: str) -> None:
    """Make a published version the current one, in one atomic step."""
    before = versions_before(directory)
    current = _read_line(directory / CURRENT)
    if current is not None and current != version:
        before = [*(name for name in before if name != version), current]
    # Killed in between, the history names the version that is still current; `versions_before` leaves that out.
    _remember(directory, before)
    replace_line(directory / CURRENT, version)


def point_back(directory: Path, version: str) -> None:
    """Make one of `versions_before` the current one; what came after it is no longer a way back."""
    before = versions_before(directory)
    # The other way round than in `point_to`: killed in between, the history still names the version gone back to.
    replace_line(directory / CURRENT, version)
    _remember(directory, before[: before.index(version)])


def versions_before(directory: Path) -> list[str]:
    """Return the versions that were current before the one that is, and still exist; the last one is the latest."""
    try:
        lines = (directory / HISTORY).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    current = _read_line(directory / CURRENT)
    return [line for line in lines if line not in ("", current) and (directory / VERSIONS / line).is_dir()]


def is_current(directory: Path, version: str) -> bool:
    """Tell whether a version is the current one."""
    return _read_line(directory / CURRENT) == version


def _remember(directory: Path, before: list[str]) -> None:
    replace_line(directory / HISTORY, "\n".join(before))


def _read_line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None


def become_default(home: Path, name: str) -> None:
    """Make an index the default if there is none yet."""
    if default_index(home) is None:
        replace_line(indexes_dir(home) / DEFAULT, name)


def sync_tree(directory: Path) -> None:
    """Make every file below a directory durable, then the directories."""
    for path in directory.rglob("*"):
        if path.is_file():
            sync_file(path)
    for path in (*(path for path in directory.rglob("*") if path.is_dir()), directory):
        sync_directory(path)


def sync_file(path: Path) -> None:
    """Make the content of a file that was written durable."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
