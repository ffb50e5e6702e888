"""Ranking metrics whose value does not depend on the order in which records happen to be stored.

Records with the same score are in no order. Counts among the first k are therefore *expected values* over all orders of
the tied records (McSherry and Najork, ECIR 2008), and average precision takes tied records as one step, as scikit-learn
does. Permuting the rows changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgclep.evaluation.bootstrap import interval, subject_weights
from fgclep.evaluation.results import Interval

CUTOFFS = (1, 5, 10)

Values = dict[str, NDArray[np.float64]]

_BLOCK = 256


def rank_metrics(
    labels: NDArray[np.bool_], scores: NDArray[np.float32], weights: NDArray[np.float64] | None = None
) -> Values:
    """Measure the ranking of one query.

    Args:
        labels: bool, shape (n,), which records are relevant.
        scores: shape (n,), higher comes first.
        weights: whole numbers, shape (draws, n): how often each record is in each draw of a bootstrap; the copies of a
            record are tied. One draw with every record once unless given.

    Returns:
        `average_precision`, `r_precision` (precision among as many as there are relevant ones) and `precision_at_1`,
        `_5`, `_10`, each of shape (draws,), NaN in draws without both outcomes. A cut-off beyond the number of records
        counts those there are.
    """
    weights = np.ones((1, len(labels))) if weights is None else weights
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # last record of each score level
    seen = np.cumsum(weights[:, order], axis=1)[:, ends]
    found = np.cumsum(weights[:, order] * labels[order], axis=1)[:, ends]
    total, relevant = seen[:, -1], found[:, -1]
    undefined = (relevant == 0) | (relevant == total)
    precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
    gained = np.diff(found, axis=1, prepend=0)
    values = {
        "average_precision": (gained * precision).sum(axis=1) / np.maximum(relevant, 1),
        "r_precision": _precision_at(found, seen, relevant),
    }
    for k in CUTOFFS:
        values[f"precision_at_{k}"] = _precision_at(found, seen, np.minimum(k, total))
    return {name: np.where(undefined, np.nan, value) for name, value in values.items()}


def _precision_at(found: NDArray[np.float64], seen: NDArray[np.float64], k: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the expected precision among the first `k` (draws,), from cumulative counts by score level."""
    level = np.argmax(seen >= k[:, None], axis=1)  # the level in which the k-th place lies
    rows = np.arange(len(seen))
    above = np.where(level > 0, seen[rows, level - 1], 0.0)
    found_above = np.where(level > 0, found[rows, level - 1], 0.0)
    size = np.maximum(seen[rows, level] - above, 1)
    share = (found[rows, level] - found_above) / size
    expected: NDArray[np.float64] = (found_above + (k - above) * share) / np.maximum(k, 1)
    return expected


def best_precision_at(positives: int, k: int) -> float:
    """Return the precision among the first `k` that a perfect ranking has."""
    return min(1.0, positives / k)


def bootstrap_rank_metrics(
    labels: NDArray[np.bool_],
    scores: NDArray[np.float32],
    subject_ids: tuple[str, ...],
    draws: int,
    seed: int,
) -> tuple[dict[str, Interval], list[dict[str, Interval]]]:
    """Measure several queries, with 95 % intervals from a bootstrap over subjects.

    Args:
        labels: bool, shape (n, queries), both outcomes in every column.
        scores: shape (n, queries).
        subject_ids: of the n records.
        draws: resamples; with 0 the intervals are NaN.
        seed: of the resampling.

    Returns:
        The mean over queries of each metric of `rank_metrics`, and the metrics of each query. A query that lacks an
        outcome in a draw is left out of that draw.
    """
    queries = range(labels.shape[1])
    values = [rank_metrics(labels[:, c], scores[:, c]) for c in queries]
    names = list(values[0]) if values else []
    chunks: dict[str, list[NDArray[np.float64]]] = {name: [np.empty((0, len(queries)))] for name in names}
    for weights in subject_weights(subject_ids, draws, seed):
        drawn = [rank_metrics(labels[:, c], scores[:, c], weights) for c in queries]
        for name in names:
            chunks[name].append(np.stack([query[name] for query in drawn], axis=1))
    by_draw = {name: np.concatenate(parts) for name, parts in chunks.items()}
    macro = {
        name: interval(float(np.mean([query[name][0] for query in values])), mean_of_defined(by_draw[name]))
        for name in names
    }
    rows = [
        {name: interval(float(query[name][0]), by_draw[name][:, c]) for name in names} for c, query in enumerate(values)
    ]
    return macro, rows


def mean_of_defined(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of each row (draw) over its entries that are not NaN; NaN where there is none."""
    defined = ~np.isnan(drawn)
    count = defined.sum(axis=1)
    total = np.where(defined, drawn, 0.0).sum(axis=1)
    means: NDArray[np.float64] = np.divide(total, count, out=np.full(len(drawn), np.nan), where=count > 0)
    return means


@dataclass(frozen=True)
class FirstRelevant:
    """Where the first relevant item of each query stands; all arrays have shape (queries,).

    Attributes:
        above: items that score higher than the best relevant one.
        tied: items that score the same as it, itself included.
        relevant: relevant ones among the tied.
    """

    above: NDArray[np.int64]
    tied: NDArray[np.int64]
    relevant: NDArray[np.int64]

    def hit_at(self, k: int) -> NDArray[np.float64]:
        """Return the chance that a relevant item is among the first `k`, over all orders of the tied ones."""
        return self._each(lambda above, tied, relevant: _hit(k - above, tied, relevant))

    def reciprocal_rank(self) -> NDArray[np.float64]:
        """Return the expected reciprocal rank of the first relevant item."""
        return self._each(_reciprocal_rank)

    def _each(self, value: Callable[[int, int, int], float]) -> NDArray[np.float64]:
        triples = np.stack([self.above, self.tied, self.relevant], axis=1)
        distinct, where = np.unique(triples, axis=0, return_inverse=True)
        values = np.array([value(*map(int, triple)) for triple in distinct], np.float64)
        return values[where.reshape(-1)]


def _hit(places: int, tied: int, relevant: int) -> float:
    """Chance that `places` drawn of `tied` items hold one of `relevant`."""
    if places <= 0:
        return 0.0
    drawn = np.arange(min(places, tied))
    return 1.0 - float(np.prod(np.maximum(tied - relevant - drawn, 0) / (tied - drawn)))


def _reciprocal_rank(above: int, tied: int, relevant: int) -> float:
    place = np.arange(1, tied - relevant + 2)  # of the first relevant among the tied
    none_before = np.cumprod(np.append(1.0, (tied - relevant - place[:-1] + 1) / (tied - place[:-1] + 1)))
    return float((none_before * relevant / (tied - place + 1) / (above + place)).sum())


def first_relevant(
    similarity: Callable[[NDArray[np.intp]], NDArray[np.float32]],
    wanted: NDArray[np.integer[Any]],
    groups: NDArray[np.integer[Any]],
) -> FirstRelevant:
    """Find the first relevant item of each query without holding all similarities at once.

    Args:
        similarity: from the numbers of some queries to their scores, shape (queries asked, items).
        wanted: the group of each query, whose items are relevant; it has at least one item.
        groups: of each item.
    """
    above, tied, relevant = [], [], []
    for start in range(0, len(wanted), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(wanted)))
        scores = similarity(rows)
        matches = groups[None, :] == wanted[rows, None]
        best = np.where(matches, scores, -np.inf).max(axis=1, keepdims=True)
        level = scores == best
        above.append((scores > best).sum(axis=1))
        tied.append(level.sum(axis=1))
        relevant.append((level & matches).sum(axis=1))
    return FirstRelevant(*(np.concatenate(parts).astype(np.int64) for parts in (above, tied, relevant)))
