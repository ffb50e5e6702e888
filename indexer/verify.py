"""Verify a published index: checksums, counts, keys, norms, the store, and that search finds what it should.

Every byte is read in any case. A full verification also looks at every vector instead of a sample, and compares the
index with the data that it was read from.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import CompatibilityError, CorruptionError, DataError, NotSetUpError
from indexer.assemble import measure
from indexer.backends.int8_codes import rounded
from indexer.ids import IdSet, repeated_ids
from indexer.lease import take_lease
from indexer.manifest import MANIFEST, IndexManifest, read_manifest
from indexer.open import CPU_BACKENDS, BackendName, OpenIndex, check_files, gpu_backends, open_backend, open_index
from indexer.sources import listed_ids, open_sources

_SAMPLE = 1000
_QUERIES, _FULL_QUERIES = 50, 500  # records that are to find themselves
_NORM_TOLERANCE = 2e-3  # float16 storage rounds each component
_BLOCK_ROWS = 65_536


@dataclass(frozen=True)
class Check:
    """One verified statement: `detail` says what was found."""

    name: str
    passed: bool
    detail: str


def verify_index(path: Path, *, full: bool = False, sample: int = _SAMPLE) -> list[Check]:
    """Verify an index version.

    Args:
        path: the version directory.
        full: look at every vector, search for more of them, and compare with the data; otherwise a sample.
        sample: vectors tested when not `full`.

    Returns:
        One Check per statement, failed ones included; the first that fails ends it where the others would mean nothing.
    """
    lease = take_lease(path)
    try:
        manifest = read_manifest(path)
    except (CorruptionError, CompatibilityError) as error:
        return [Check("manifest", False, error.message)]
    checks = [Check("manifest", True, f"{manifest.name} ({manifest.version}), schema {manifest.schema}")]
    checks.append(_checked("checksums", lambda: _checksums(path, manifest)))
    if not checks[-1].passed:  # nothing sensible can be said about the contents of damaged files
        return checks
    try:
        index = open_index(path, backend="numpy")
    except (CorruptionError, CompatibilityError) as error:
        return [*checks, Check("opens", False, error.message)]
    with closing(index), closing(lease):
        checks.append(Check("opens", True, f"{manifest.counts.indexed:,} records"))
        checks.append(_checked("counts", lambda: _counts(index)))
        checks.append(_checked("keys", lambda: _keys(index)))
        rows = np.arange(len(index.keys))
        if not full and sample < len(rows):
            rows = np.sort(np.random.default_rng(0).choice(rows, sample, replace=False))
        checks.append(_checked("norms", lambda: _norms(index, rows)))
        checks.append(_checked("codes", lambda: _codes(index, rows)))
        checks.append(_checked("duplicates", lambda: _duplicates(index, rows)))
        for backend in (*CPU_BACKENDS, *gpu_backends()):
            test = partial(_search, index, backend, _FULL_QUERIES if full else _QUERIES)
            checks.append(_checked(f"search by {backend}", test))
        checks.append(_checked("store", lambda: _store(index)))
        if full:
            checks.append(_checked("data", lambda: _data(index)))
    return checks


def _checked(name: str, test: Callable[[], str]) -> Check:
    try:
        return Check(name, True, test())
    except CorruptionError as error:
        return Check(name, False, error.message)


def _checksums(path: Path, manifest: IndexManifest) -> str:
    check_files(path, manifest, checksums=True)
    known = {MANIFEST, *manifest.files}
    found = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
    if strange := sorted(found - known):
        raise CorruptionError(f"{path / strange[0]} does not belong to the index")
    return f"{len(manifest.files)} files"


def _counts(index: OpenIndex) -> str:
    counts = index.manifest.counts
    found = {
        "records": (index.store.count("records"), counts.indexed),
        "rejects": (index.store.count("rejects"), counts.rejected),
        "missing": (index.store.count("missing"), counts.missing),
    }
    for table, (rows, expected) in found.items():
        if rows != expected:
            raise CorruptionError(f"the store has {rows:,} {table}, the manifest says {expected:,}")
    limit = f" + {counts.beyond_limit:,} beyond --limit" if counts.beyond_limit else ""
    return (
        f"{counts.listed:,} listed = {counts.missing:,} missing{limit} + "
        f"{counts.indexed:,} indexed + {counts.rejected:,} rejected"
    )


def _keys(index: OpenIndex) -> str:
    if len(index.keys) > 1 and not (np.diff(index.keys) > 0).all():
        raise CorruptionError("the keys beside the vectors are not unique and ascending")
    if not np.array_equal(index.store.keys(), index.keys):
        raise CorruptionError("the keys beside the vectors differ from the keys of the store")
    return "unique, the same in vectors and store"


def _norms(index: OpenIndex, rows: NDArray[np.int64]) -> str:
    worst = 0.0
    for start in range(0, len(rows), _BLOCK_ROWS):
        vectors = np.asarray(index.vectors[rows[start : start + _BLOCK_ROWS]], np.float32)
        deviation = float(np.abs(np.linalg.norm(vectors, axis=1) - 1).max())
        worst = max(worst, deviation if np.isfinite(deviation) else np.inf)
    if not worst < _NORM_TOLERANCE:
        raise CorruptionError(f"a vector's length differs from 1 by {worst:.2g}")
    return f"{len(rows):,} vectors, length 1 within {worst:.1g}"


def _codes(index: OpenIndex, rows: NDArray[np.int64]) -> str:
    """Check that the bytes beside the vectors are those vectors rounded: search relies on the bound of the error."""
    if (codes := index.codes) is None:
        return "none, the vectors themselves are searched"
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = rows[start : start + _BLOCK_ROWS]
        expected = rounded(index.vectors[block], codes.scales)
        if (wrong := (codes.values[block] != expected).any(axis=1)).any():
            raise CorruptionError(f"the bytes of row {block[wrong][0]:,} are not its vector rounded")
    return f"{len(rows):,} vectors, rounded as they should be"


def _duplicates(index: OpenIndex, rows: NDArray[np.int64]) -> str:
    """Check that no record is counted twice, and count the vectors that equal another's: copies of one ECG."""
    ids = index.store.record_ids
    if repeated := repeated_ids(lambda: chain(ids(), ids("rejects"), ids("missing"))):
        raise CorruptionError(f"{repeated[0]} is listed twice among the indexed, rejected and missing records")
    distinct = {blake2b(np.asarray(index.vectors[row]).tobytes(), digest_size=16).digest() for row in rows}
    return f"no record twice; {len(rows) - len(distinct):,} of {len(rows):,} vectors equal another's"


def _search(index: OpenIndex, backend_name: BackendName, count: int) -> str:
    """Check recall against brute force, and that a record's own vector finds the record, or its equal."""
    try:
        backend = open_backend(index.path, index.vectors, backend_name)
    except NotSetUpError as error:
        return f"skipped: {error.message}"
    except RuntimeError as error:  # of a GPU that has no room
        return f"skipped: {error}"
    result = measure(backend, index.vectors)
    if (recall := result["recall_at_10"]) < 1:
        raise CorruptionError(f"recall at 10 is {recall:.3f} against brute force")
    rows = np.random.default_rng(1).choice(len(index.keys), min(count, len(index.keys)), replace=False)
    queries = np.asarray(index.vectors[rows], np.float32)
    top = backend.search(queries, 1)[1][:, 0]
    if not np.allclose(np.asarray(index.vectors[top], np.float32), queries, atol=2e-3):
        raise CorruptionError("a record's own vector does not find the record")
    return f"recall at 10 is 1, {len(rows)} records find themselves, one query {result['latency_ms_p50']:.1f} ms"


def _store(index: OpenIndex) -> str:
    if problem := index.store.integrity_problem():
        raise CorruptionError(f"SQLite's integrity check says: {problem}")
    return "integrity check passed"


def _data(index: OpenIndex) -> str:
    """Compare the index with what its data lists now, by record id."""
    try:
        datasets = open_sources(index.manifest).datasets
    except NotSetUpError as error:
        return f"skipped: {error.message}"
    except (DataError, CompatibilityError) as error:
        raise CorruptionError(error.message) from error
    distinct = {dataset.root: dataset for dataset in datasets}.values()
    listed = IdSet(record_id for dataset in distinct for record_id in listed_ids(dataset))
    gone = [record_id for record_id in index.store.record_ids() if record_id not in listed]
    if gone:
        raise CorruptionError(f"{len(gone):,} indexed records are no longer in the data, such as {gone[0]}")
    others = chain(index.store.record_ids("rejects"), index.store.record_ids("missing"))
    new = len(listed) - len(index.keys) - sum(record_id in listed for record_id in others)
    return f"{len(listed):,} listed, every indexed record among them, {new:,} not read yet"
