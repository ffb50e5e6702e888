"""Report retrieval: which ECG belongs to this report, and which report to this ECG (METHOD G4.1).

Many reports are the same word for word, and no search can tell their ECGs apart by text. The main numbers count every
ECG with an equal report as found; the strict ones count the query's own partner only, beside the best that any
search can reach.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgclep.evaluation.bootstrap import interval, subject_weights
from fgclep.evaluation.ranking import CUTOFFS, FirstRelevant, first_relevant
from fgclep.evaluation.results import Interval
from fgclep.evaluation.retrievers import TextScorer
from fgclep.evaluation.search_set import SearchSet
from fgclep.reports import clean_report, normalise

Values = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Direction:
    """One direction of retrieval; the keys are `recall_at_1`, `_5`, `_10` and `mrr`.

    Attributes:
        equal: chance that an item with an equal report is among the first k; mean over queries.
        equal_chance: the same for a random order.
        own: the same counting only the query's own partner.
        own_best: the most that any order by text can reach, since equal reports cannot be told apart.
        own_chance: the strict numbers of a random order.
    """

    equal: dict[str, Interval]
    equal_chance: dict[str, float]
    own: dict[str, Interval]
    own_best: dict[str, float]
    own_chance: dict[str, float]


@dataclass(frozen=True)
class ReportRetrieval:
    """Both directions.

    Attributes:
        queries: records with a report; each is a query and an item of the gallery.
        without_report: records left out because they have none.
        distinct: different reports among them, in normalised form.
        largest: records that share the commonest report.
    """

    queries: int
    without_report: int
    distinct: int
    largest: int
    report_to_ecg: Direction
    ecg_to_report: Direction


def report_retrieval(search_set: SearchSet, score: TextScorer, *, draws: int, seed: int) -> ReportRetrieval | None:
    """Search with each report for its ECG, and with each ECG for its report.

    Args:
        search_set: records with reports.
        score: what is measured.
        draws: resamples of the queries' subjects for the intervals, the gallery staying as it is; 0 for none.
        seed: of the resampling.

    Returns:
        None if fewer than two different reports are there to search.
    """
    reports = [clean_report(info.report_lines) for info in search_set.infos]
    rows = np.array([row for row, report in enumerate(reports) if report], np.intp)
    texts, groups = _grouped([reports[row] for row in rows])
    if len(texts) < 2:
        return None
    similar = score(texts)[rows]  # (records, different reports)
    sizes = np.bincount(groups)[groups].astype(np.int64)
    subjects = tuple(search_set.infos[row].subject_id for row in rows)

    def measure(search: Callable[[NDArray[np.intp]], NDArray[np.float32]]) -> Direction:
        own = np.arange(len(rows))
        return Direction(
            equal=_means(_values(first_relevant(search, groups, groups)), subjects, draws, seed),
            equal_chance=_chance(sizes, len(rows)),
            own=_means(_values(first_relevant(search, own, own)), subjects, draws, seed),
            own_best={name: float(value.mean()) for name, value in _values(_tied_on_top(sizes)).items()},
            own_chance=_chance(np.ones(len(rows), np.int64), len(rows)),
        )

    return ReportRetrieval(
        queries=len(rows),
        without_report=len(reports) - len(rows),
        distinct=len(texts),
        largest=int(sizes.max()),
        report_to_ecg=measure(lambda queries: similar[:, groups[queries]].T),
        ecg_to_report=measure(lambda queries: similar[queries][:, groups]),
    )


def _grouped(reports: list[str]) -> tuple[list[str], NDArray[np.intp]]:
    """Return one text of each different report, and which of them each report equals once normalised."""
    number_of: dict[str, int] = {}
    texts: list[str] = []
    groups = []
    for report in reports:
        form = normalise(report)
        if form not in number_of:
            number_of[form] = len(texts)
            texts.append(report)
        groups.append(number_of[form])
    return texts, np.array(groups, np.intp)


def _values(first: FirstRelevant) -> Values:
    return {f"recall_at_{k}": first.hit_at(k) for k in CUTOFFS} | {"mrr": first.reciprocal_rank()}


def _tied_on_top(sizes: NDArray[np.int64]) -> FirstRelevant:
    """Return the best that a search can do for its own partner: all equal reports on top, in no order."""
    return FirstRelevant(np.zeros_like(sizes), sizes, np.ones_like(sizes))


def _chance(relevant: NDArray[np.int64], items: int) -> dict[str, float]:
    """Return what a random order of `items` gives for queries with so many relevant ones: all are tied."""
    first = FirstRelevant(np.zeros_like(relevant), np.full_like(relevant, items), relevant)
    return {name: float(value.mean()) for name, value in _values(first).items()}


def _means(values: Values, subjects: tuple[str, ...], draws: int, seed: int) -> dict[str, Interval]:
    """Return means over queries with intervals from a bootstrap over the queries' subjects."""
    drawn: dict[str, list[NDArray[np.float64]]] = {name: [np.empty(0)] for name in values}
    for weights in subject_weights(subjects, draws, seed):
        total = weights.sum(axis=1)
        for name, value in values.items():
            drawn[name].append(weights @ value / total)
    return {name: interval(float(value.mean()), np.concatenate(drawn[name])) for name, value in values.items()}
