"""Search by blocked matrix product in numpy: needs nothing else, and is the fallback of every other backend."""

import numpy as np
from numpy.typing import NDArray

from indexer.backends.base import Mask, Rows, Similarities, Vectors, check_arguments, exact_top, rounding_margin

_BLOCK_ROWS = 65_536
_GATHER_SHARE = 4  # above a quarter of the rows, copying them takes longer than multiplying all
_QUERIES_AT_ONCE = 16  # bounds the (queries, rows) product: 50 MB at 773,268 rows


class NumpyMatmul:
    """Exact search over a memory-mapped or in-memory matrix.

    Args:
        vectors: float32 or float16, shape (N, D), unit rows.
    """

    name = "numpy"

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors

    def search(self, queries: NDArray[np.float32], k: int, mask: Mask | None = None) -> tuple[Similarities, Rows]:
        """Find the `k` most similar rows of every query; see `Backend.search`."""
        check_arguments(queries, k, mask, self._vectors.shape)
        allowed = None if mask is None else np.flatnonzero(mask)
        width = min(k, len(self._vectors) if allowed is None else len(allowed))
        similarities = np.empty((len(queries), width), np.float32)
        rows = np.empty((len(queries), width), np.int64)
        if width == 0:
            return similarities, rows
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            chunk = queries[start : start + _QUERIES_AT_ONCE]
            for offset, products in enumerate(self._products(chunk, allowed)):
                threshold = np.partition(products, len(products) - width)[len(products) - width]
                candidates = np.flatnonzero(products >= threshold - rounding_margin(chunk[offset]))
                if allowed is not None:
                    candidates = allowed[candidates]
                top = exact_top(self._vectors, chunk[offset], candidates, width)
                similarities[start + offset], rows[start + offset] = top
        return similarities, rows

    def _products(self, queries: NDArray[np.float32], allowed: Rows | None) -> NDArray[np.float32]:
        """Multiply queries with the allowed rows, block by block; float32, shape (Q, allowed)."""
        if allowed is not None and len(allowed) * _GATHER_SHARE > len(self._vectors):
            return self._products(queries, None)[:, allowed]
        total = len(self._vectors) if allowed is None else len(allowed)
        products = np.empty((len(queries), total), np.float32)
        for start in range(0, total, _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            rows = self._vectors[block] if allowed is None else self._vectors[allowed[block]]
            np.matmul(queries, np.asarray(rows, np.float32).T, out=products[:, block])
        return products
