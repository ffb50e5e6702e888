"""Search by blocked products in numpy: needs nothing else, and is the fallback of every other backend."""

from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
from numpy.typing import NDArray

from indexer.backends.base import Mask, Rows, Similarities, Vectors, check_arguments
from indexer.backends.int8_codes import Codes
from indexer.backends.scan import Prepared, Ranker, Scan, in_threads, lower_edge, one_thread_each

_GATHER_SHARE = 4  # above a quarter of the rows, copying them takes longer than multiplying all
_QUERIES_AT_ONCE = 64  # share one pass over the rows; at most 256, see `_by_query`
_HITS_AT_ONCE = 4_000_000  # bounds the memory for candidates: 12 bytes each
_SELECTED_AT_ONCE = 1 << 18  # products looked at together: 1 MB, which stays in the cache of a processor's core
_LOWEST = np.finfo(np.float32).min  # above the products of rows that are not allowed, which are minus infinity

Near = tuple[NDArray[np.intp], Rows, Similarities]
"""Numbers of queries, rows and their products."""


class NumpyMatmul:
    """Exact search over a memory-mapped or in-memory matrix.

    Args:
        vectors: float32 or float16, shape (N, D), unit rows.
        codes: the same rows rounded to bytes; if given they are read first, and of `vectors` only what may be a hit.
    """

    name = "numpy"

    def __init__(self, vectors: Vectors, codes: Codes | None = None) -> None:
        self._vectors = vectors
        self._scan = Scan(vectors if codes is None else codes)
        self._ranker = Ranker(vectors, codes)

    def search(self, queries: NDArray[np.float32], k: int, mask: Mask | None = None) -> tuple[Similarities, Rows]:
        """Find the `k` most similar rows of every query; see `Backend.search`."""
        check_arguments(queries, k, mask, self._vectors.shape)
        allowed = None if mask is None else np.flatnonzero(mask)
        width = min(k, len(self._vectors) if allowed is None else len(allowed))
        similarities = np.empty((len(queries), width), np.float32)
        rows = np.empty((len(queries), width), np.int64)
        if width == 0:
            return similarities, rows
        if allowed is not None and len(allowed) * _GATHER_SHARE > len(self._vectors):
            allowed = None  # all rows are multiplied, and the mask is applied to the products
        elif allowed is not None:
            mask = None
        at_once = max(1, min(_QUERIES_AT_ONCE, _HITS_AT_ONCE // width))
        for start in range(0, len(queries), at_once):
            prepared = self._scan.prepare(queries[start : start + at_once])
            for number, (near, products) in enumerate(self._proposed(prepared, width, allowed, mask), start):
                error = float(prepared.errors[number - start])
                best = self._ranker.best(queries[number], near, products, width, error)
                similarities[number], rows[number] = best
        return similarities, rows

    def _proposed(
        self, prepared: Prepared, width: int, allowed: Rows | None, mask: Mask | None
    ) -> Iterator[tuple[Rows, Similarities]]:
        """Give, for each query, rows that hold all of its best `width`, and their products.

        Args:
            prepared: the queries.
            width: not more than there are rows to be found.
            allowed: the only rows to look at; None means all.
            mask: bool (N,), rows that may be found; None means all that are looked at.
        """
        total = len(self._vectors) if allowed is None else len(allowed)

        def work(start: int, stop: int) -> list[Near]:
            return list(self._near(prepared, width, start, stop, allowed, mask))

        with one_thread_each() if prepared.blas else nullcontext():
            stretches = in_threads(work, total)
        whose, rows, products = zip(*(part for stretch in stretches for part in stretch), strict=True)
        joined = np.concatenate(whose), np.concatenate(rows), np.concatenate(products)
        return _by_query(*joined, len(prepared.errors))

    def _near(
        self, prepared: Prepared, width: int, start: int, stop: int, allowed: Rows | None, mask: Mask | None
    ) -> Iterator[Near]:
        """Look through a stretch of the rows; give what is near the best `width` of each query so far."""
        queries = len(prepared.errors)
        edges = np.full(queries, -np.inf, np.float32)  # each query's `width`-th best product is no lower
        step = max(_SELECTED_AT_ONCE // queries, 4 * width)
        buffer = np.empty((min(step, stop - start), queries), np.float32)
        for first in range(start, stop, step):
            last = min(first + step, stop)
            products = buffer[: last - first]
            self._scan.multiply(prepared, first, last, products, among=allowed)
            if mask is not None:
                products[~mask[first:last]] = -np.inf
            edges = np.maximum(edges, lower_edge(products, width))
            near = products >= np.maximum(edges - 2 * prepared.errors, _LOWEST)
            places, whose = np.divmod(np.flatnonzero(near), queries)  # `nonzero` of two axes takes far longer
            rows = places + first
            yield whose, rows if allowed is None else allowed[rows], products[places, whose]


def _by_query(
    whose: NDArray[np.intp], rows: Rows, products: Similarities, queries: int
) -> Iterator[tuple[Rows, Similarities]]:
    """Sort what is near by query, and give it query by query."""
    order = np.argsort(whose.astype(np.uint8), kind="stable")  # bytes are sorted in one pass
    ends = np.cumsum(np.bincount(whose, minlength=queries))
    for own in np.split(order, ends[:-1]):
        yield rows[own], products[own]
