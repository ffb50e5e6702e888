"""One pass over an index's vectors, which gives both the hits of a query and their place in the whole corpus."""

import numpy as np
from numpy.typing import NDArray

from indexer.backends.base import Mask, Rows, Similarities, Vectors, check_arguments, rounding_margin
from indexer.backends.int8_codes import Codes
from indexer.backends.scan import Ranker, Scan, lower_edge

_FEW = 64  # similarities of which each is compared with the whole corpus in less time than sorting it takes


class Ranking:
    """The rows of an index ranked for one query.

    Args:
        vectors: float32 or float16, shape (N, D), unit rows.
        query: float32, shape (D,), finite.
        allowed: bool, shape (N,): rows that may be hits; percentiles refer to all rows.
        codes: the same rows rounded to bytes; if given the pass is over them. Hits and similarities stay exact;
            percentiles are then counted with the rounded rows.

    Raises:
        UsageError: if shapes do not fit or the query is not finite.
    """

    def __init__(self, vectors: Vectors, query: NDArray[np.float32], allowed: Mask, codes: Codes | None = None) -> None:
        check_arguments(query[None], 1, allowed, vectors.shape)
        self._query = query
        self._ranker = Ranker(vectors, codes)
        scan = Scan(vectors if codes is None else codes)
        prepared = scan.prepare(query[None])
        self._error = float(prepared.errors[0])
        # Equal rows count as equal; the bound of codes is far wider than what they usually are off by.
        self._slack = self._error if codes is None else rounding_margin(query)
        self._corpus = scan.all_products(prepared)
        self._allowed = None if allowed.all() else np.flatnonzero(allowed)
        self._products = self._corpus if self._allowed is None else self._corpus[self._allowed]

    def top(self, k: int) -> tuple[Similarities, Rows]:
        """Return the best `k` allowed rows, exactly as `Backend.search` does: ties go by row."""
        width = min(k, len(self._products))
        if width == 0:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        near = np.flatnonzero(self._products >= lower_edge(self._products[:, None], width)[0] - 2 * self._error)
        rows = near if self._allowed is None else self._allowed[near]
        return self._ranker.best(self._query, rows, self._products[near], width, self._error)

    def percentiles(self, similarities: Similarities) -> NDArray[np.float64]:
        """Return the share of the whole corpus, 0 to 100, that is less similar than each of these."""
        limits = similarities - np.float32(self._slack)
        if len(limits) <= _FEW:
            below = np.array([np.count_nonzero(self._corpus < limit) for limit in limits], np.float64)
        else:
            below = np.searchsorted(np.sort(self._corpus), limits, side="left").astype(np.float64)
        return 100.0 * below / max(1, len(self._corpus))
