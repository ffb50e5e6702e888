"""Turn finished shards into a complete, tested version directory, not yet published."""

import errno
import logging
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.exc import DatabaseError, IntegrityError

from fgclep import __version__
from fgclep.errors import DataError
from indexer.backends import Backend, self_test
from indexer.backends.base import Vectors, brute_force
from indexer.manifest import MANIFEST, Counts, DatasetRef, IndexManifest, ModelRef, describe_files, manifest_json
from indexer.open import FAISS, KEYS, STORE, VECTORS, open_backend
from indexer.staging import Staging, write_durably
from indexer.store import write_store

_TEST_QUERIES = 20
_TEST_K = 10

logger = logging.getLogger(__name__)


def assemble(
    staging: Staging,
    shards: int,
    *,
    name: str,
    version: str,
    model: ModelRef,
    dataset: DatasetRef,
    counts: Counts,
    dtype: str,
    missing: Sequence[str],
    options: Mapping[str, Any],
    calibration: Mapping[str, Any],
) -> Path:
    """Write vectors, keys, store, search index and manifest below the staging directory.

    What an earlier attempt left is thrown away first.

    Args:
        staging: holds the finished shards.
        shards: how many.
        name, version: of the index.
        model, dataset, counts, dtype, options, calibration: for the manifest.
        missing: record ids whose files are absent.

    Returns:
        The version directory inside staging; every file durable.

    Raises:
        OSError: if it cannot be written; a full disk is ENOSPC whichever library met it.
        DataError: if the data set gives two records the same id.
    """
    directory = staging.version_dir
    shutil.rmtree(directory, ignore_errors=True)
    (directory / VECTORS).parent.mkdir(parents=True)
    vectors = (staging.vectors(number) for number in range(shards))
    _concatenate(directory / VECTORS, vectors, (counts.indexed, model.dim), dtype)
    _concatenate(directory / KEYS, (staging.keys(number) for number in range(shards)), (counts.indexed,), "int64")
    _write_store(directory / STORE, staging, shards, missing)
    stored: Vectors = np.load(directory / VECTORS, mmap_mode="r", allow_pickle=False)
    _write_faiss(directory / FAISS, stored)
    manifest = IndexManifest(
        name=name,
        version=version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        fgclep_version=__version__,
        model=model,
        dataset=dataset,
        counts=counts,
        dtype=dtype,
        options=options,
        calibration=calibration,
        self_test=measure(open_backend(directory, stored), stored),
        files=describe_files(directory),
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
        for part in parts:
            stream.write(np.ascontiguousarray(part, dtype).tobytes())


def _write_store(path: Path, staging: Staging, shards: int, missing: Sequence[str]) -> None:
    try:
        write_store(path, staging.iter_rows(shards, "record"), staging.iter_rows(shards, "reject"), missing)
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
