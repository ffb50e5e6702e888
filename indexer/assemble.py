"""Turn finished shards into a complete, tested version directory, not yet published."""

import errno
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.exc import DatabaseError, IntegrityError

from fgclep import __version__
from fgclep.durable import write_durably
from fgclep.errors import DataError
from indexer.backends import Backend, self_test
from indexer.backends.base import Vectors, brute_force
from indexer.backends.int8_codes import write_codes
from indexer.manifest import (
    MANIFEST,
    STORED,
    Addition,
    Counts,
    DatasetRef,
    IndexManifest,
    ModelRef,
    describe_files,
    manifest_json,
)
from indexer.open import CODES, FAISS, KEYS, SCALES, STORE, VECTORS, open_backend

_TEST_QUERIES = 20
_TEST_K = 10

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Content:
    """What a version holds.

    Attributes:
        vectors: unit rows (n, D) in blocks, in order of key.
        keys: int64 (n,) in blocks.
        write_store: writes the store to a path and returns the counts.
        dataset, additions, options: for the manifest.
    """

    vectors: Iterable[Vectors]
    keys: Iterable[NDArray[np.int64]]
    write_store: Callable[[Path], Counts]
    dataset: DatasetRef
    options: Mapping[str, Any]
    additions: tuple[Addition, ...] = ()


def assemble(
    directory: Path,
    content: Content,
    *,
    name: str,
    version: str,
    model: ModelRef,
    dtype: str,
    calibration: Mapping[str, Any],
) -> Path:
    """Write vectors, keys, store, search index and manifest.

    What an earlier attempt left is thrown away first.

    Args:
        directory: to make.
        content: what it holds.
        name, version: of the index.
        model, dtype, calibration: for the manifest.

    Returns:
        The directory; the manifest is durable, the other files need `publish`.

    Raises:
        OSError: if it cannot be written; a full disk is ENOSPC whichever library met it.
        DataError: if the data set gives two records the same id.
    """
    shutil.rmtree(directory, ignore_errors=True)
    (directory / VECTORS).parent.mkdir(parents=True)
    counts = _write_store(directory / STORE, content.write_store)
    _concatenate(directory / VECTORS, content.vectors, (counts.indexed, model.dim), STORED[dtype])
    _concatenate(directory / KEYS, content.keys, (counts.indexed,), "int64")
    stored: Vectors = np.load(directory / VECTORS, mmap_mode="r", allow_pickle=False)
    if dtype == "int8":
        write_codes(stored, directory / CODES, directory / SCALES)
    _write_faiss(directory / FAISS, stored)
    manifest = IndexManifest(
        name=name,
        version=version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        fgclep_version=__version__,
        model=model,
        dataset=content.dataset,
        counts=counts,
        dtype=dtype,
        options=content.options,
        calibration=calibration,
        self_test=measure(open_backend(directory, stored, "numpy"), stored),
        files=describe_files(directory),
        additions=content.additions,
    )
    write_durably(directory / MANIFEST, manifest_json(manifest).encode())
    return directory


def measure(backend: Backend, vectors: Vectors) -> dict[str, Any]:
    """Measure recall against brute force and the latency of one query, with the index's own rows as queries.

    Raises:
        CorruptionError: if the backend fails its self-test.
    """
    self_test(backend, vectors)
    rng = np.random.default_rng(0)
    queries = np.asarray(vectors[rng.choice(len(vectors), min(_TEST_QUERIES, len(vectors)), replace=False)], np.float32)
    expected = brute_force(vectors, queries, _TEST_K)[1]
    seconds, found = [], []
    for query in queries:
        start = time.perf_counter()
        found.append(backend.search(query[None], _TEST_K)[1][0])
        seconds.append(time.perf_counter() - start)
    hits = [len(np.intersect1d(*pair)) for pair in zip(found, expected, strict=True)]
    return {
        "backend": backend.name,
        "queries": len(queries),
        f"recall_at_{_TEST_K}": sum(hits) / expected.size,
        "latency_ms_p50": round(1000 * float(np.median(seconds)), 3),
    }


def _concatenate(path: Path, parts: Iterable[NDArray[Any]], shape: tuple[int, ...], dtype: str) -> None:
    """Join arrays into one `.npy` file, one part in memory at a time.

    Written as a plain file: a memory map on a full disk would kill the process instead of raising.
    """
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        rows = 0
        for part in parts:
            stream.write(np.ascontiguousarray(part, dtype).tobytes())
            rows += len(part)
    assert rows == shape[0], f"{path}: {rows} rows of {shape[0]}"


def _write_store(path: Path, write: Callable[[Path], Counts]) -> Counts:
    try:
        return write(path)
    except IntegrityError as error:
        raise DataError(
            f"The data set gives two records the same id: {error.orig}.", "Remove the duplicate from the data set."
        ) from error
    except DatabaseError as error:
        full = "full" in str(error.orig)
        raise OSError(errno.ENOSPC if full else errno.EIO, f"SQLite could not write {path}: {error.orig}") from error


def _write_faiss(path: Path, vectors: Vectors) -> None:
    try:
        from indexer.backends.faiss_flat import FaissFlat, write_faiss_index
    except ImportError:
        logger.info("faiss is not installed: the index is built without %s and searched by numpy.", path.name)
        return
    write_faiss_index(vectors, path)
    self_test(FaissFlat(path, vectors), vectors)
