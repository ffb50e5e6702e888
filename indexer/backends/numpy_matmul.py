"""Search by blocked products in numpy: needs nothing else, and is the fallback of every other backend."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from indexer.backends.base import Mask, Rows, Similarities, Vectors, check_arguments, exact_top
from indexer.backends.int8_codes import Codes
from indexer.backends.scan import Prepared, Scan, in_threads, lower_edge

_GATHER_SHARE = 4  # above a quarter of the rows, copying them takes longer than multiplying all
_QUERIES_AT_ONCE = 64  # share one pass over the rows
_HITS_AT_ONCE = 4_000_000  # bounds the memory for candidates: 12 bytes each
_SELECT_ROWS = 16_384  # products looked at together; those of 64 queries take 4 MB
_LOWEST = np.finfo(np.float32).min  # above the products of rows that are not allowed, which are minus infinity


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
            for number, (near, products) in enumerate(self._proposed(prepared, width, allowed, mask)):
                best = self._ranked(queries[start + number], near, products, width, float(prepared.errors[number]))
                similarities[start + number], rows[start + number] = best
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

        def work(start: int, stop: int) -> list[tuple[NDArray[np.intp], Rows, Similarities]]:
            return list(self._near(prepared, width, start, stop, allowed, mask))

        # Several queries share one matrix product, which takes all processors by itself.
        stretches = in_threads(work, total) if len(prepared.values) == 1 else [work(0, total)]
        whose, rows, products = (
            np.concatenate(parts) for parts in zip(*(part for stretch in stretches for part in stretch), strict=True)
        )
        for number in range(len(prepared.values)):
            own = whose == number
            yield rows[own], products[own]

    def _near(
        self,
        prepared: Prepared,
        width: int,
        start: int,
        stop: int,
        allowed: Rows | None,
        mask: Mask | None,
    ) -> Iterator[tuple[NDArray[np.intp], Rows, Similarities]]:
        """Look through a stretch of the rows; give the number of the query, the row and the product of what is near."""
        edges = np.full(len(prepared.values), -np.inf, np.float32)  # each query's `width`-th best product is no lower
        step, wide = prepared.block_rows, self._scan.workspace(prepared)
        buffer = np.empty((len(prepared.values), min(_SELECT_ROWS, stop - start)), np.float32)
        for first in range(start, stop, _SELECT_ROWS):
            last = min(first + _SELECT_ROWS, stop)
            products = buffer[:, : last - first]
            for low in range(first, last, step):
                block = slice(low, min(low + step, last))
                out = products[:, block.start - first : block.stop - first]
                self._scan.multiply(prepared, block if allowed is None else allowed[block], out, wide)
            if mask is not None:
                products[:, ~mask[first:last]] = -np.inf
            edges = np.maximum(edges, lower_edge(products, width))
            near = products >= np.maximum(edges - 2 * prepared.errors, _LOWEST)[:, None]
            whose, places = np.divmod(np.flatnonzero(near), last - first)  # `nonzero` of two axes takes far longer
            rows = places + first
            yield whose, rows if allowed is None else allowed[rows], products[whose, places]

    def _ranked(
        self, query: NDArray[np.float32], rows: Rows, products: Similarities, width: int, error: float
    ) -> tuple[Similarities, Rows]:
        """Rank proposed rows exactly; of many, only those that may still beat the exact `width`-th best."""
        edge = np.partition(products, len(products) - width)[len(products) - width]
        near = products >= edge - 2 * error
        if np.count_nonzero(near) > 2 * width:
            best, _ = exact_top(self._vectors, query, rows[products >= edge], width)
            near = products >= best[-1] - error
        return exact_top(self._vectors, query, rows[near], width)
