"""BM25 over reports: how well the words of a query find the words of reports, without looking at any ECG.

The text-only baseline of retrieval. It sees what somebody wrote about each record, which a search by signal never does,
and it cannot find what was not written, or was written in another language.
"""

import logging
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import NotSetUpError

K1 = 1.5
B = 0.75
"""Saturation of term counts and weight of the report's length, the library's own defaults."""


class Bm25:
    """Scores reports by the words of a query (Robertson and Zaragoza 2009; idf as in Lucene, never negative).

    Args:
        reports: n texts; an empty one scores 0 for every query.

    Raises:
        NotSetUpError: if bm25s is not installed.
    """

    def __init__(self, reports: Sequence[str]) -> None:
        try:
            from bm25s import BM25
        except ImportError as error:
            raise NotSetUpError(
                "the BM25 baseline needs the package bm25s, which is not installed.", "pip install 'fgclep[evaluate]'"
            ) from error
        logging.getLogger("bm25s").setLevel(logging.WARNING)  # its import makes it tell every step
        self._count = len(reports)
        tokens = [words(report) for report in reports]
        self._index: BM25 | None = None
        if any(tokens):
            self._index = BM25(k1=K1, b=B, method="lucene")
            self._index.index(tokens, show_progress=False)

    def scores(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """Return the scores of n reports for m queries, float32 (n, m); a query of unknown words scores 0."""
        columns = [self._score(words(query)) for query in queries]
        return np.stack(columns, axis=1) if columns else np.zeros((self._count, 0), np.float32)

    def _score(self, query: list[str]) -> NDArray[np.float32]:
        if self._index is None or not query:
            return np.zeros(self._count, np.float32)
        return np.asarray(self._index.get_scores(query), np.float32)


def words(text: str) -> list[str]:
    """Return the words and numbers of a text in lower case; no word is dropped or cut to its stem."""
    return re.findall(r"\w+", text.casefold())
