"""Readers' claims on a version: as long as one is held, `index gc` leaves the version alone.

A claim is a shared `flock` on the version's directory. It needs no write permission, leaves nothing behind, and the
operating system drops it when the process ends, however it ends. Where a file system has no such locks (some network
mounts), readers go on without one and `gc` keeps what it cannot ask about.
"""

import fcntl
import logging
import os
import weakref
from pathlib import Path

from fgclep.errors import NotSetUpError

logger = logging.getLogger(__name__)


class Lease:
    """A claim on a version; given back by `close`, when it is garbage, or when the process ends."""

    def __init__(self, descriptor: int) -> None:
        self._close = weakref.finalize(self, os.close, descriptor)

    def close(self) -> None:
        """Give the claim back."""
        self._close()


def take_lease(version_dir: Path) -> Lease:
    """Claim a version for reading.

    Raises:
        NotSetUpError: if it is not there, or is being removed.
    """
    gone = NotSetUpError(
        f"{version_dir} is not there any more.",
        "Was it removed by `fgclep index gc` just now? Repeat the command. Else: fgclep index list",
    )
    try:
        descriptor = os.open(version_dir, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        raise gone from None
    lease = Lease(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise gone from None
    except OSError as error:
        logger.debug("no lock on %s: %s", version_dir, error)
        return lease
    if not _is_still(version_dir, descriptor):
        raise gone
    return lease


def claim_for_removal(version_dir: Path) -> Lease | None:
    """Claim a version for removal; None if somebody reads it, or if that cannot be told."""
    lease = Lease(descriptor := os.open(version_dir, os.O_RDONLY | os.O_DIRECTORY))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        logger.debug("%s is kept: %s", version_dir, error)
        lease.close()
        return None
    return lease


def _is_still(path: Path, descriptor: int) -> bool:
    """Tell whether a path still names the directory that was opened."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
