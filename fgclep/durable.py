"""Files that are absent, old or whole after a crash, never half written."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy import generic
    from numpy.typing import NDArray


def write_durably(path: Path, content: "bytes | NDArray[generic]") -> None:
    """Write a file in one step: whatever happens meanwhile, it is as it was before or whole.

    Args:
        path: of the file; several processes may write it at once, and the last one wins.
        content: its bytes, or an array to write as `.npy`.

    Raises:
        OSError: if it cannot be written; nothing is left of the attempt.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            if isinstance(content, bytes):
                stream.write(content)
            else:
                from numpy import save  # here: listing indexes needs this module too, and should take no time

                save(stream, content, allow_pickle=False)
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
