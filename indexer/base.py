"""The published version that `add`, `rebuild` and `relocate` start from: found, claimed for reading, and checked."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import FgclepError, NotSetUpError
from indexer.backends.base import Vectors
from indexer.home import CURRENT, VERSIONS, current_version, index_dir, indexes_dir, list_indexes
from indexer.lease import Lease, take_lease
from indexer.manifest import IndexManifest, read_manifest
from indexer.open import KEYS, STORE, VECTORS, check_files
from indexer.staging import Staging
from indexer.store import Store, open_store

_BLOCK_ROWS = 65_536


@dataclass(frozen=True)
class Base:
    """A version to start from; held for as long as this object lives."""

    path: Path
    manifest: IndexManifest
    lease: Lease

    @property
    def store_path(self) -> Path:
        """The store's file."""
        return self.path / STORE

    def open_store(self) -> Store:
        """Open the store read-only."""
        return open_store(self.store_path)

    @contextmanager
    def released_on_error(self) -> Iterator[None]:
        """Let the version go at once if a plan is refused; its traceback would hold on to it."""
        try:
            yield
        except BaseException:
            self.lease.close()
            raise

    def check(self, *names: str) -> None:
        """Compare checksums before files are reused: damage must not be copied under a new, valid checksum.

        Raises:
            CorruptionError: naming the damaged file.
        """
        check_files(self.path, self.manifest, checksums=True, names=names)

    def check_current(self) -> None:
        """Refuse to go on from a version that is no longer the current one: what came since would be lost.

        Raises:
            FgclepError: if another run was quicker.
        """
        current = current_version(self.path.parents[1])
        if current != self.path:
            raise FgclepError(
                f"Index {self.manifest.name} went from version {self.path.name} to {current.name} meanwhile.",
                "Repeat the command.",
            )

    def keys(self) -> NDArray[np.int64]:
        """Return the key of every vector, int64 (N,), memory-mapped."""
        keys: NDArray[np.int64] = np.load(self.path / KEYS, mmap_mode="r", allow_pickle=False)
        return keys

    def iter_vectors(self) -> Iterator[Vectors]:
        """Yield the vectors in blocks (n, D), in order."""
        vectors: Vectors = np.load(self.path / VECTORS, mmap_mode="r", allow_pickle=False)
        for start in range(0, len(vectors), _BLOCK_ROWS):
            yield vectors[start : start + _BLOCK_ROWS]


def open_base(home: Path, name: str, *, resume: bool = False) -> Base:
    """Open the version of an index to start from: the current one.

    Args:
        home: the directory of settings and indexes.
        name: of the index.
        resume: an unfinished run that published its version and was killed before it could clean up is to be
            finished; its base is then the version that it started from, not its own result.

    Raises:
        NotSetUpError: if there is no such index.
        CorruptionError: if its manifest or pointer is damaged.
    """
    directory = index_dir(home, name)
    if not (directory / CURRENT).is_file():
        names = ", ".join(entry.name for entry in list_indexes(home)) or "none"
        raise NotSetUpError(
            f"There is no index {name!r} in {indexes_dir(home)} (there: {names}).",
            f"fgclep index build --data PATH --name {name}",
        )
    path = current_version(directory)
    staging = Staging(directory / "staging")
    if resume and path.name == staging.planned("version") and (before := staging.planned("base")):
        started_from = directory / VERSIONS / before
        path = started_from if started_from.is_dir() else path  # `index gc` may have removed it
    return Base(path, read_manifest(path), take_lease(path))
