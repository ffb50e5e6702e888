"""What a search backend promises, and the test that it keeps the promise.

Float32 products of the same two vectors differ in the last bits between libraries, block sizes and batch sizes.
So a backend only proposes candidates, with a margin above its rounding error; `exact_top` then computes the
similarities the same way for all of them. Equal vectors therefore tie exactly, and ties go by row.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import CorruptionError, UsageError

Vectors = NDArray[np.float32] | NDArray[np.float16]
Similarities = NDArray[np.float32]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

_NORM_BOUND = 1.01  # rows are unit vectors; float16 storage may lengthen them a little


class Backend(Protocol):
    """Exact inner-product search over the rows of one index."""

    name: str

    def search(self, queries: NDArray[np.float32], k: int, mask: Mask | None = None) -> tuple[Similarities, Rows]:
        """Find the `k` most similar rows of every query.

        Args:
            queries: float32, shape (Q, D), finite.
            k: hits wanted per query; more than there are rows is fine.
            mask: bool, shape (N,): rows that may be returned; None means all.

        Returns:
            similarities float32 and rows int64, both shape (Q, min(k, allowed rows)), similarity descending,
            equal similarities in order of row.

        Raises:
            UsageError: if shapes do not fit, `k` is below 1 or a query is not finite.
        """
        ...


def check_arguments(queries: NDArray[np.float32], k: int, mask: Mask | None, shape: tuple[int, ...]) -> None:
    """Refuse queries, `k` or a mask that do not fit vectors of `shape` (N, D)."""
    rows, dim = shape
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise UsageError(f"Queries have shape {queries.shape}; this index needs (number of queries, {dim}).")
    if not np.isfinite(queries).all():
        raise UsageError("A query vector holds NaN or infinity; queries must be finite.")
    if k < 1:
        raise UsageError(f"{k} hits were asked for; at least 1 is needed.")
    if mask is not None and (mask.shape != (rows,) or mask.dtype != np.bool_):
        raise UsageError(f"The filter mask is {mask.dtype} {mask.shape}; this index needs bool ({rows},).")


def rounding_margin(query: NDArray[np.float32]) -> float:
    """Bound twice the float32 rounding error of a product of `query` (D,) with a unit row."""
    return float(2 * len(query) * np.finfo(np.float32).eps * np.linalg.norm(query) * _NORM_BOUND)


def exact_top(vectors: Vectors, query: NDArray[np.float32], candidates: Rows, k: int) -> tuple[Similarities, Rows]:
    """Rank candidate rows by similarities that do not depend on who proposed them.

    Args:
        vectors: (N, D).
        query: float32, shape (D,).
        candidates: rows to rank, shape (C,), any order.
        k: how many to keep.

    Returns:
        similarities float32 and rows int64, shape (min(k, C),), best first, ties by row.
    """
    similarities = np.empty(len(candidates), np.float32)
    for start in range(0, len(candidates), 16384):
        block = slice(start, start + 16384)
        products = vectors[candidates[block]].astype(np.float64) * query.astype(np.float64)  # (C, D)
        similarities[block] = products.sum(axis=1)
    order = np.lexsort((candidates, -similarities))[:k]
    return similarities[order], candidates[order].astype(np.int64)


def brute_force(
    vectors: Vectors, queries: NDArray[np.float32], k: int, mask: Mask | None = None
) -> tuple[Similarities, Rows]:
    """Answer a search by ranking every allowed row: the oracle that backends are compared with."""
    allowed = np.arange(len(vectors)) if mask is None else np.flatnonzero(mask)
    answers = [exact_top(vectors, query, allowed, k) for query in queries]
    width = min(k, len(allowed))
    similarities = np.array([answer[0] for answer in answers], np.float32).reshape(len(queries), width)
    return similarities, np.array([answer[1] for answer in answers], np.int64).reshape(len(queries), width)


def self_test(backend: Backend, vectors: Vectors, *, sample: int = 2000, seed: int = 0) -> None:
    """Compare a backend with brute force on some of its rows, through a mask.

    The mask keeps the test quick on a large index, and catches backends that ignore masks silently.

    Args:
        backend: the backend to test.
        vectors: (N, D), the rows it searches.
        sample: rows that the mask lets through, at most.
        seed: draws the rows and queries.

    Raises:
        CorruptionError: if any hit or similarity differs, or a row is not finite.
    """
    rng = np.random.default_rng(seed)
    mask = np.zeros(len(vectors), np.bool_)
    mask[rng.choice(len(vectors), min(sample, len(vectors)), replace=False)] = True
    queries = np.asarray(vectors[rng.choice(len(vectors), 3)], np.float32)
    if not np.isfinite(vectors[mask]).all():
        raise CorruptionError("The index's vectors hold NaN or infinity.", "Build the index again.")
    expected = brute_force(vectors, queries, 10, mask)
    found = backend.search(queries, 10, mask)
    if not (np.array_equal(found[1], expected[1]) and np.array_equal(found[0], expected[0])):
        raise CorruptionError(
            f"The search backend {backend.name} disagrees with brute force on this index's own vectors.",
            "Run `fgclep index verify --full`; if it passes, reinstall the backend's package, else build again.",
        )
