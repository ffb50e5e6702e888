"""What is measured by retrieval: anything that scores the records of a set by a text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgclep.evaluation.bm25 import K1, B, Bm25
from fgclep.evaluation.encoders import Encoder
from fgclep.evaluation.search_set import SearchSet
from fgclep.reports import clean_report

TextScorer = Callable[[Sequence[str]], NDArray[np.float32]]
"""From m texts to the scores of n records, float32 (n, m), higher meaning more alike."""

_DECIMALS = 6  # of a cosine; what lies behind is the order in which a matrix product adds up
_BATCH = 256


@dataclass(frozen=True)
class Retriever:
    """Scores the records of one set.

    Attributes:
        name: for tables and file names.
        fingerprint: of the model; of a baseline its parameters.
        note: what must be known to read its numbers, or "".
        in_domain: whether it was trained on other records of the data set; None: unknown.
        score: the scorer.
        reads_reports: whether it sees the records' reports, and so finds a report by itself.
    """

    name: str
    fingerprint: str
    note: str
    in_domain: bool | None
    score: TextScorer
    reads_reports: bool = False


def dense_retriever(encoder: Encoder, vectors: NDArray[np.float32], in_domain: bool | None = None) -> Retriever:
    """Score by the cosine of text and ECG, rounded to six decimals so that rounding errors decide no order.

    Args:
        encoder: a model that knows texts.
        vectors: float32, shape (n, D), unit norm, of the records.
        in_domain: handed on.
    """

    def score(texts: Sequence[str]) -> NDArray[np.float32]:
        distinct = list(dict.fromkeys(texts))
        parts = [encoder.encode_text(distinct[start : start + _BATCH]) for start in range(0, len(distinct), _BATCH)]
        similar = np.round(vectors @ np.concatenate(parts).T, _DECIMALS).astype(np.float32)
        column = {text: number for number, text in enumerate(distinct)}
        return similar[:, [column[text] for text in texts]]

    return Retriever(encoder.name, encoder.fingerprint, "", in_domain, score)


def bm25_retriever(search_set: SearchSet) -> Retriever:
    """Score by the words of each record's own report, the text-only baseline.

    Raises:
        NotSetUpError: if bm25s is not installed.
    """
    reports = [clean_report(info.report_lines) for info in search_set.infos]
    told = sum(bool(report) for report in reports)
    note = f"It reads the reports of the records ({told:,} of {len(reports):,} have one), not the ECGs."
    if search_set.dataset.kind == "ptb-xl":
        note += " Most reports of PTB-XL are German, the queries are English."
    index = Bm25(reports)
    return Retriever("bm25", f"k1={K1:g},b={B:g}", note, False, index.scores, reads_reports=True)
