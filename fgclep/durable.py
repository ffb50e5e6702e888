"""Files that are absent, old or whole after a crash, never half written."""

import os
from pathlib import Path


def write_durably(path: Path, content: bytes) -> None:
    """Write a file in one step: whatever happens meanwhile, it is as it was before or whole.

    Raises:
        OSError: if it cannot be written; nothing is left of the attempt.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make renames inside a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
