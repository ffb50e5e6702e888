"""One pass over an index's vectors, which gives both the hits of a query and their place in the whole corpus."""

import numpy as np
from numpy.typing import NDArray

from indexer.backends.base import Mask, Rows, Similarities, Vectors, check_arguments, exact_top, rounding_margin

_HALF_BLOCK = 1024  # rows widened at once, so that they stay in the processor's cache: 1 MB at 256 dimensions
_HALF_BITS = np.int32(-0x70000001)  # all bits but 28 to 30, into which widening copies the sign
_HALF_SCALE = np.float32(2.0**112)  # a half's exponent counts from -15, a single's from -127


class Ranking:
    """The rows of an index ranked for one query.

    Args:
        vectors: float32 or float16, shape (N, D), unit rows.
        query: float32, shape (D,), finite.
        allowed: bool, shape (N,): rows that may be hits; percentiles refer to all rows.

    Raises:
        UsageError: if shapes do not fit or the query is not finite.
    """

    def __init__(self, vectors: Vectors, query: NDArray[np.float32], allowed: Mask) -> None:
        check_arguments(query[None], 1, allowed, vectors.shape)
        self._vectors = vectors
        self._query = query
        self._margin = rounding_margin(query)
        self._corpus = similarities_to(vectors, query)
        self._allowed = None if allowed.all() else np.flatnonzero(allowed)
        self._products = self._corpus if self._allowed is None else self._corpus[self._allowed]

    def top(self, k: int) -> tuple[Similarities, Rows]:
        """Return the best `k` allowed rows, exactly as `Backend.search` does: ties go by row."""
        width = min(k, len(self._products))
        if width == 0:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        edge = np.partition(self._products, len(self._products) - width)[len(self._products) - width]
        candidates = np.flatnonzero(self._products >= edge - self._margin)
        if self._allowed is not None:
            candidates = self._allowed[candidates]
        return exact_top(self._vectors, self._query, candidates, width)

    def percentiles(self, similarities: Similarities) -> NDArray[np.float64]:
        """Return the share of the whole corpus, 0 to 100, that is less similar than each of these."""
        below = np.searchsorted(np.sort(self._corpus), similarities - self._margin, side="left")
        return 100.0 * below / len(self._corpus)


def similarities_to(vectors: Vectors, query: NDArray[np.float32]) -> Similarities:
    """Multiply every row with a query; float32, shape (N,), within `rounding_margin` of the exact products.

    Halves are widened by shifting their bits to where a single has them, and the exponent's offset is put into the
    query: numpy's own conversion takes several times longer than the product. Infinity and NaN, which no index
    holds, would come out as numbers.

    Args:
        vectors: float32 or float16, shape (N, D).
        query: float32, shape (D,).
    """
    if vectors.dtype != np.float16:
        return np.asarray(np.matmul(vectors, query), np.float32)
    products = np.empty(len(vectors), np.float32)
    scaled = query * _HALF_SCALE
    wide = np.empty((_HALF_BLOCK, vectors.shape[1]), np.int32)
    for start in range(0, len(vectors), _HALF_BLOCK):
        halves = np.asarray(vectors[start : start + _HALF_BLOCK]).view(np.int16)
        block = wide[: len(halves)]
        np.left_shift(halves, 13, out=block, dtype=np.int32)
        np.bitwise_and(block, _HALF_BITS, out=block)
        np.matmul(block.view(np.float32), scaled, out=products[start : start + len(halves)])
    return products
