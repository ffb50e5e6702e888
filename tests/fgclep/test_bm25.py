"""BM25 against the formula written out, and its edges."""

import math
import sys
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from fgclep.errors import NotSetUpError
from fgclep.evaluation.bm25 import K1, B, Bm25, words

REPORTS = (
    "Sinus rhythm. Left bundle branch block.",
    "atrial fibrillation with left bundle branch block, left axis",
    "",
    "sinusrhythmus, linksschenkelblock, pathologischer lagetyp",
    "Sinus rhythm. Normal ECG.",
    "normal ecg, sinus rhythm",
)


def written_out(query: str, reports: tuple[str, ...]) -> list[float]:
    """Lucene's BM25: idf = log(1 + (N - df + 0.5) / (df + 0.5)), tf / (tf + k1 (1 - b + b length / mean length))."""
    documents = [Counter(words(report)) for report in reports]
    mean_length = sum(sum(document.values()) for document in documents) / len(documents)
    scores = []
    for document in documents:
        total = 0.0
        for word in words(query):
            df = sum(word in other for other in documents)
            idf = math.log(1 + (len(documents) - df + 0.5) / (df + 0.5))
            tf = document[word]
            total += idf * tf / (tf + K1 * (1 - B + B * sum(document.values()) / mean_length))
        scores.append(total)
    return scores


@pytest.fixture(scope="module")
def index() -> Bm25:
    pytest.importorskip("bm25s")
    return Bm25(REPORTS)


@pytest.mark.parametrize("query", ["left bundle branch block", "sinus rhythm", "LEFT left axis", "Linksschenkelblock"])
def test_scores_are_those_of_the_formula(index: Bm25, query: str) -> None:
    np.testing.assert_allclose(index.scores([query])[:, 0], written_out(query, REPORTS), rtol=1e-5)


def test_many_queries_are_many_columns(index: Bm25) -> None:
    queries = ["sinus rhythm", "atrial fibrillation"]
    together = index.scores(queries)
    assert together.shape == (len(REPORTS), 2) and together.dtype == np.float32
    np.testing.assert_array_equal(together, np.concatenate([index.scores([query]) for query in queries], axis=1))
    assert index.scores([]).shape == (len(REPORTS), 0)


def test_unknown_and_empty_queries_score_nothing(index: Bm25) -> None:
    assert not index.scores(["purple", "", "..."]).any()


def test_the_same_words_in_another_order_are_the_same(index: Bm25) -> None:
    scores = index.scores(["rhythm sinus normal"])[:, 0]
    assert scores[4] == scores[5]


def test_no_report_at_all_scores_nothing() -> None:
    pytest.importorskip("bm25s")
    assert not Bm25(["", ""]).scores(["sinus"]).any()


def test_without_its_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(NotSetUpError, match="bm25s") as refused:
        Bm25(REPORTS)
    assert "evaluate" in refused.value.hint


def test_as_a_retriever_it_says_what_it_reads() -> None:
    pytest.importorskip("bm25s")
    from fgclep.evaluation.retrievers import bm25_retriever

    infos = tuple(SimpleNamespace(report_lines=(report,) if report else ()) for report in REPORTS)
    records = SimpleNamespace(infos=infos, dataset=SimpleNamespace(kind="ptb-xl"))
    retriever = bm25_retriever(cast(Any, records))
    assert retriever.reads_reports
    assert "5 of 6" in retriever.note and "German" in retriever.note
    assert int(np.argmax(retriever.score(["atrial fibrillation"])[:, 0])) == 1
