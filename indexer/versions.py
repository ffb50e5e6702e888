"""The versions of one index: list them, choose the current one, go back, and remove the old ones."""

import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fgclep.durable import sync_directory
from fgclep.errors import NotSetUpError, UsageError
from indexer.home import CURRENT, VERSIONS, current_version
from indexer.lease import claim_for_removal
from indexer.manifest import read_manifest
from indexer.publish import INCOMING, RELOCATING, build_lock, point_back, point_to, versions_before
from indexer.staging import Staging

_REMOVED = ".removed-"


@dataclass(frozen=True)
class Removal:
    """What `remove_old` did or would do.

    Attributes:
        removed: versions.
        in_use: old versions that are kept because somebody reads them.
        leftovers: folders of imports, relocations and removals that were killed.
        freed_bytes: of all that was removed.
    """

    removed: tuple[str, ...]
    in_use: tuple[str, ...]
    leftovers: tuple[str, ...]
    freed_bytes: int


def list_versions(directory: Path) -> list[Path]:
    """List the published versions of an index, oldest first."""
    return sorted(path for path in (directory / VERSIONS).glob("[!.]*") if path.is_dir())


def activate(directory: Path, version: str) -> Path:
    """Make a version the current one, after a look at its manifest.

    Args:
        directory: of the index.
        version: its name.

    Raises:
        NotSetUpError: if there is no such version.
        CorruptionError: if its manifest is damaged.
        FgclepError: if another process is building this index.
    """
    path = directory / VERSIONS / version
    versions = list_versions(directory)
    if path not in versions:
        names = ", ".join(path.name for path in versions) or "none"
        raise NotSetUpError(
            f"Index {directory.name} has no version {version!r}; there are {names}.",
            f"fgclep index info {directory.name}",
        )
    with build_lock(directory):
        read_manifest(path)  # under the lock: `remove_old` may have been quicker
        point_to(directory, version)
    return path


def roll_back(directory: Path) -> Path:
    """Make the version that was current before the current one again; errors as of `activate`.

    Raises:
        UsageError: if there is none.
    """
    with build_lock(directory):
        before = versions_before(directory)
        if not before:
            raise UsageError(
                f"Index {directory.name} has no earlier version to go back to.", f"fgclep index info {directory.name}"
            )
        read_manifest(path := directory / VERSIONS / before[-1])
        point_back(directory, path.name)
    return path


def remove_old(directory: Path, keep: int, *, dry_run: bool = False) -> Removal:
    """Remove all but the newest versions; never the current one, nor one that a process has open.

    A version leaves in one rename, so that a crash leaves no half of one; what a crash left is removed next time.

    Args:
        directory: of the index, which may be one that was never published if a killed import left something in it.
        keep: how many versions to keep, at least 1.
        dry_run: only tell.

    Raises:
        NotSetUpError: if the index was never published.
        FgclepError: if another process is building this index.
    """
    if keep < 1:
        raise UsageError(f"{keep} versions cannot be kept; at least the current one stays.", "fgclep index gc --keep 1")
    with build_lock(directory):
        left = leftovers(directory)
        files = [file for path in left for file in _files(path)]
        removed, in_use = [], []
        for path in _old_versions(directory, keep, published=not left or (directory / CURRENT).exists()):
            lease = claim_for_removal(path)
            if lease is None:
                in_use.append(path.name)
                continue
            files += _files(path)
            removed.append(path.name)
            if not dry_run:
                path.rename(path.with_name(_REMOVED + path.name))
                sync_directory(path.parent)
            lease.close()
        if not dry_run:
            for leftover in leftovers(directory):
                shutil.rmtree(leftover)
            if not (staging := Staging(directory / "staging")).unfinished:
                staging.discard()
    return Removal(tuple(removed), tuple(in_use), tuple(path.name for path in left), _freed_bytes(files))


def leftovers(directory: Path) -> list[Path]:
    """List what killed imports, relocations and removals left in the directory of an index; ask under its lock."""
    removed = sorted((directory / VERSIONS).glob(f"{_REMOVED}*"))
    return [path for path in (directory / INCOMING, directory / RELOCATING, *removed) if path.is_dir()]


def _old_versions(directory: Path, keep: int, *, published: bool) -> list[Path]:
    if not published:
        return []
    current = current_version(directory)
    return [path for path in list_versions(directory)[:-keep] if path != current]


def _files(directory: Path) -> list[os.stat_result]:
    return [path.stat() for path in directory.rglob("*") if path.is_file()]


def _freed_bytes(files: list[os.stat_result]) -> int:
    """Add up sizes; versions share files, and one that has a name elsewhere too is not freed."""
    names = Counter((file.st_dev, file.st_ino) for file in files)
    sizes = {
        (file.st_dev, file.st_ino): file.st_size for file in files if names[file.st_dev, file.st_ino] == file.st_nlink
    }
    return sum(sizes.values())
