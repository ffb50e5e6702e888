"""Queries of two findings or with a negation; Boolean algebra on the labels says what is relevant (METHOD G4.3).

Dual encoders tend to read "A without B" as a mention of B. So each query is also held against its *near misses*, the
records that fail it by one word: 0.5 there means that the word was not understood, less that it was taken for its
opposite. Beside the text stand two other ways to ask: the first finding alone, and fuzzy algebra on the separate
findings' rankings, which is what a structured query can do with the same model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fgclep.evaluation.bootstrap import auc, average_precision
from fgclep.evaluation.retrievers import TextScorer
from fgclep.evaluation.search_set import SearchSet

Kind = Literal["and", "without", "no"]
TEMPLATES: dict[Kind, str] = {"and": "{a} and {b}", "without": "{a} without {b}", "no": "no {a}"}

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class WayToAsk:
    """One way to ask; AUC against all records that are not relevant, and against the near misses only."""

    average_precision: float
    auc: float
    auc_near_misses: float


@dataclass(frozen=True)
class CompoundQuery:
    """One query.

    Attributes:
        kind: `and`, `without` or `no`.
        first, second: classes; `second` is None for `no`.
        positives: relevant records.
        near_misses: for "A and B" those with one of the two, for "A without B" those with both, for "no A" those
            with A.
        prevalence: what chance gives for average precision.
        ways: `text`, `algebra` and, but for `no`, `first alone`.
    """

    kind: Kind
    first: str
    second: str | None
    text: str
    positives: int
    near_misses: int
    prevalence: float
    ways: dict[str, WayToAsk]


@dataclass(frozen=True)
class CompoundQueries:
    """All queries and, by kind, how many there are, their prevalence, and the mean of each way to ask."""

    queries: tuple[CompoundQuery, ...]
    count: dict[str, int]
    prevalence: dict[str, float]
    mean: dict[str, dict[str, WayToAsk]]


def compound_queries(search_set: SearchSet, score: TextScorer, *, min_positives: int = 10) -> CompoundQueries:
    """Ask for conjunctions and negations of the classes that are not stated lead by lead.

    Each class is joined with the partner that leaves the rarest of "both", "only the first" and "only the second"
    as common as can be, if that is at least `min_positives`; so no finding dominates, and none is joined with what
    it implies or excludes.
    """
    columns = search_set.columns(min_positives)
    labels = search_set.labels[:, columns]
    texts = [search_set.texts[c] for c in columns]
    names = [search_set.classes[c] for c in columns]
    partners = _partners(labels, min_positives)
    asked: list[tuple[Kind, int, int | None]] = [
        *(("and", a, b) for a, b in _unordered(partners)),
        *(("without", a, b) for a, b in partners.items()),
        *(("no", a, None) for a in range(len(columns)) if (~labels[:, a]).sum() >= min_positives),
    ]
    if not asked:
        return CompoundQueries((), {}, {}, {})
    phrases = [TEMPLATES[kind].format(a=texts[a], b=None if b is None else texts[b]) for kind, a, b in asked]
    scores = score([*texts, *phrases])
    alone, compound = scores[:, : len(texts)], scores[:, len(texts) :]
    places = _places(alone)
    queries = []
    for k, (kind, a, b) in enumerate(asked):
        relevant, near = _truth(kind, labels, a, b)
        ways = {"text": compound[:, k], "algebra": _algebra(kind, places, a, b)}
        if kind != "no":
            ways["first alone"] = alone[:, a]
        queries.append(
            CompoundQuery(
                kind=kind,
                first=names[a],
                second=None if b is None else names[b],
                text=phrases[k],
                positives=int(relevant.sum()),
                near_misses=int(near.sum()),
                prevalence=float(relevant.mean()),
                ways={way: _measure(relevant, near, values) for way, values in ways.items()},
            )
        )
    return _summary(queries)


def _partners(labels: Flags, least: int) -> dict[int, int]:
    """Return the partner of each class that has one: the earliest of the best."""
    counts = labels.sum(axis=0)
    both = labels.T.astype(np.int64) @ labels
    rarest = np.minimum(both, np.minimum(counts[:, None] - both, counts[None, :] - both))
    np.fill_diagonal(rarest, -1)
    return {a: int(row.argmax()) for a, row in enumerate(rarest) if len(row) and row.max() >= least}


def _unordered(partners: dict[int, int]) -> list[tuple[int, int]]:
    """Return each pair once: "A and B" is the same question as "B and A"."""
    return list({frozenset(pair): pair for pair in partners.items()}.values())


def _truth(kind: Kind, labels: Flags, a: int, b: int | None) -> tuple[Flags, Flags]:
    """Return the relevant records and the near misses."""
    first = labels[:, a]
    if b is None:
        return ~first, first
    second = labels[:, b]
    return (first & second, first ^ second) if kind == "and" else (first & ~second, first & second)


def _places(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the share of records that each score is above, ties counted half; so findings become comparable."""
    from scipy.stats import rankdata

    places: NDArray[np.float64] = (rankdata(scores, method="average", axis=0) - 0.5) / len(scores)
    return places


def _algebra(kind: Kind, places: NDArray[np.float64], a: int, b: int | None) -> NDArray[np.float32]:
    """Join places as fuzzy sets: "and" is the smaller of two, "not" what is left to 1."""
    first = places[:, a]
    if b is None:
        return (1 - first).astype(np.float32)
    second = places[:, b] if kind == "and" else 1 - places[:, b]
    return np.minimum(first, second).astype(np.float32)


def _measure(relevant: Flags, near: Flags, scores: NDArray[np.float32]) -> WayToAsk:
    among = relevant | near
    return WayToAsk(
        average_precision=average_precision(relevant, scores),
        auc=auc(relevant, scores),
        auc_near_misses=auc(relevant[among], scores[among]),
    )


def _summary(queries: list[CompoundQuery]) -> CompoundQueries:
    kinds = [kind for kind in TEMPLATES if any(query.kind == kind for query in queries)]
    mean: dict[str, dict[str, WayToAsk]] = {}
    for kind in kinds:
        of_kind = [query for query in queries if query.kind == kind]
        mean[kind] = {way: _mean([query.ways[way] for query in of_kind]) for way in of_kind[0].ways}
    return CompoundQueries(
        queries=tuple(queries),
        count={kind: sum(query.kind == kind for query in queries) for kind in kinds},
        prevalence={kind: float(np.mean([q.prevalence for q in queries if q.kind == kind])) for kind in kinds},
        mean=mean,
    )


def _mean(ways: Sequence[WayToAsk]) -> WayToAsk:
    return WayToAsk(
        average_precision=float(np.mean([w.average_precision for w in ways])),
        auc=float(np.mean([w.auc for w in ways])),
        auc_near_misses=float(np.mean([w.auc_near_misses for w in ways])),
    )
