"""What a search backend promises, and the test that it keeps the promise.

Float32 products of the same two vectors differ in the last bits between libraries, block sizes and batch sizes.
So a backend only proposes candidates, with a margin above its rounding error; `exact_top` then computes the
similarities the same way for all of them. Equal vectors therefore tie exactly, and ties go by row.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import CorruptionError, UsageError

Vectors = NDArray[np.float32] | NDArray[np.float16]
Similarities = NDArray[np.float32]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

NORM_BOUND = 1.01
"""Of a row's length: rows are unit vectors; float16 storage may lengthen them a little."""
SPARE = 16
"""Candidates asked for beyond k, so that ties at the edge are seen at once."""
_ORACLE_PRODUCTS = 1 << 25  # in memory at once: 268 MB of float64


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
    return float(2 * len(query) * np.finfo(np.float32).eps * np.linalg.norm(query) * NORM_BOUND)


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


def settled(ask: Callable[[int], tuple[Similarities, Rows]], width: int, most: int, margin: float) -> Rows:
    """Ask for more and more rows until the last one is safely below the edge, so that no tie is cut off.

    Args:
        ask: gives the best rows by product, as many as it is told (at most `most`): products descending, and rows.
        width: how many are wanted, at least 1.
        most: how many there are.
        margin: twice the error of a product.

    Returns:
        rows among which are the best `width` by exact similarity.
    """
    asked = min(most, width + SPARE)
    while True:
        products, rows = ask(asked)
        edge = products[width - 1] - margin
        if asked == most or products[-1] < edge:
            near: Rows = rows[products >= edge]
            return near
        asked = min(most, 4 * asked)


def brute_force(
    vectors: Vectors, queries: NDArray[np.float32], k: int, mask: Mask | None = None
) -> tuple[Similarities, Rows]:
    """Answer a search by the float64 products with every allowed row: the oracle that backends are compared with."""
    allowed = np.arange(len(vectors)) if mask is None else np.flatnonzero(mask)
    width = min(k, len(allowed))
    similarities = np.empty((len(queries), width), np.float32)
    rows = np.empty((len(queries), width), np.int64)
    if width == 0:
        return similarities, rows
    at_once = max(1, _ORACLE_PRODUCTS // len(allowed))
    for first in range(0, len(queries), at_once):
        chunk = queries[first : first + at_once].astype(np.float64)
        products = np.empty((len(chunk), len(allowed)))
        for start in range(0, len(allowed), 16384):
            block = slice(start, start + 16384)
            products[:, block] = chunk @ vectors[allowed[block]].astype(np.float64).T
        for place, found in enumerate(products, first):
            edge = np.partition(found, len(found) - width)[len(found) - width]
            # Similarities are float32: rows a little below the edge may tie with it, and ties go by row.
            near = allowed[found >= edge - rounding_margin(queries[place])]
            similarities[place], rows[place] = exact_top(vectors, queries[place], near, width)
    return similarities, rows


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
    alone = backend.search(queries[:1], 10, mask)  # goes other ways than several
    for (similarities, rows), asked in ((found, slice(3)), (alone, slice(1))):
        if np.array_equal(rows, expected[1][asked]) and np.array_equal(similarities, expected[0][asked]):
            continue
        raise CorruptionError(
            f"The search backend {backend.name} disagrees with brute force on this index's own vectors.",
            "Run `fgclep index verify --full`; if it passes, reinstall the backend's package, else build again.",
        )
