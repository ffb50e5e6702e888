"""Intervals by bootstrap over subjects: everybody's ECGs are drawn together, because they are not independent.

The metrics of one class that are defined here come with a form for whole batches of draws, in which a draw is a weight
for every record (how often its subject was drawn); a thousand draws then take a second. Any other metric works too,
called once per class and draw.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import CompatibilityError
from fgclep.evaluation.results import Interval, Scored

Metric = Callable[[NDArray[np.bool_], NDArray[np.float32]], float]
"""From the labels (n,) and scores (n,) of one class to a value; it is only asked where both outcomes occur."""

_CHUNK = 50  # draws at a time: weights and their sums stay small enough for the processor's cache
_BOUNDS = (2.5, 97.5)  # per cent


def auc(labels: NDArray[np.bool_], scores: NDArray[np.float32]) -> float:
    """Return the area under the ROC curve, ties counted half; NaN unless both outcomes occur."""
    return float(_weighted_auc(labels, scores, np.ones((1, len(labels))))[0])


def average_precision(labels: NDArray[np.bool_], scores: NDArray[np.float32]) -> float:
    """Return the average precision, tied records taken as one step; NaN unless both outcomes occur."""
    return float(_weighted_average_precision(labels, scores, np.ones((1, len(labels))))[0])


def f1(labels: NDArray[np.bool_], flags: NDArray[np.float32]) -> float:
    """Return F1 of decisions (1 flagged, 0 not); 0 if nothing is flagged, NaN unless both outcomes occur."""
    return float(_weighted_f1(labels, flags, np.ones((1, len(labels))))[0])


def bootstrap_macro(scored: Scored, metric: Metric, draws: int, seed: int) -> tuple[Interval, dict[str, Interval]]:
    """Return a metric's mean over classes and its value per class, each with a 95 % interval.

    Classes without both outcomes are left out. A class that lacks an outcome in a draw is left out of that draw.

    Args:
        scored: what to measure.
        metric: of one class.
        draws: resamples of the subjects; with 0 the intervals are NaN.
        seed: of the resampling.
    """
    columns = defined_columns(scored.labels)
    values = np.array([metric(scored.labels[:, c], scored.scores[:, c]) for c in columns])
    drawn = _metric_of_draws([scored], columns, metric, draws, seed)[0]
    by_class = {
        scored.classes[c]: interval(float(value), drawn[:, k])
        for k, (c, value) in enumerate(zip(columns, values, strict=True))
    }
    return interval(_mean(values), _means(drawn)), by_class


def paired_bootstrap(a: Scored, b: Scored, metric: Metric, draws: int, seed: int) -> tuple[Interval, float]:
    """Compare two models on the records that both have.

    Both are measured on the same draws, so that what makes a draw easy or hard for both cancels out.

    Returns:
        The mean over classes of `a` minus that of `b` with its 95 % interval, and the two-sided p value of no
        difference: twice the share of draws on the rarer side of zero, never less than 2 / (draws + 1).

    Raises:
        CompatibilityError: if classes or labels differ, or no record is common.
    """
    a, b = _common(a, b)
    columns = defined_columns(a.labels)

    def macro(scored: Scored) -> float:
        return _mean(np.array([metric(scored.labels[:, c], scored.scores[:, c]) for c in columns]))

    drawn_a, drawn_b = (_means(drawn) for drawn in _metric_of_draws([a, b], columns, metric, draws, seed))
    differences = drawn_a - drawn_b
    differences = differences[~np.isnan(differences)]
    rarer = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    p_value = min(1.0, 2 * (rarer + 1) / (len(differences) + 1))
    return interval(macro(a) - macro(b), differences), p_value


def defined_columns(labels: NDArray[np.bool_]) -> list[int]:
    """Return the columns in which both outcomes occur."""
    return [int(c) for c in np.flatnonzero(labels.any(axis=0) & ~labels.all(axis=0))]


def subject_weights(subject_ids: tuple[str, ...], draws: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Draw subjects with replacement and yield how often each record is in each draw, some draws at a time.

    Yields:
        Whole numbers as float64, shape (up to 50, records).
    """
    subjects, subject_of_row = np.unique(np.array(subject_ids, dtype=np.str_), return_inverse=True)
    rng = np.random.default_rng(seed)
    for start in range(0, draws, _CHUNK):
        size = min(_CHUNK, draws - start)
        picked = rng.integers(len(subjects), size=(size, len(subjects))) + np.arange(size)[:, None] * len(subjects)
        counts = np.bincount(picked.ravel(), minlength=size * len(subjects)).reshape(size, len(subjects))
        yield counts[:, subject_of_row].astype(np.float64)


def _metric_of_draws(
    models: list[Scored], columns: list[int], metric: Metric, draws: int, seed: int
) -> list[NDArray[np.float64]]:
    """Return the metric of each model, shape (draws, len(columns)), with NaN where a draw lacks an outcome."""
    weighted = _WEIGHTED.get(metric) or _one_by_one(metric)
    drawn: list[list[NDArray[np.float64]]] = [[np.empty((0, len(columns)))] for _ in models]
    for weights in subject_weights(models[0].subject_ids, draws, seed):
        for rows, model in zip(drawn, models, strict=True):
            values = np.empty((len(weights), len(columns)))
            for k, c in enumerate(columns):
                values[:, k] = weighted(model.labels[:, c], model.scores[:, c], weights)
            rows.append(values)
    return [np.concatenate(rows) for rows in drawn]


_Weighted = Callable[[NDArray[np.bool_], NDArray[np.float32], NDArray[np.float64]], NDArray[np.float64]]


def _one_by_one(metric: Metric) -> _Weighted:
    def weighted(
        labels: NDArray[np.bool_], scores: NDArray[np.float32], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        values = np.full(len(weights), np.nan)
        for draw, weight in enumerate(weights):
            rows = np.repeat(np.arange(len(labels)), weight.astype(np.intp))
            if labels[rows].any() and not labels[rows].all():
                values[draw] = metric(labels[rows], scores[rows])
        return values

    return weighted


def _weighted_auc(
    labels: NDArray[np.bool_], scores: NDArray[np.float32], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Count, for each positive, the weight of the negatives below it and half of those level with it."""
    order = np.argsort(scores, kind="stable")
    scores, labels, weights = scores[order], labels[order], weights[:, order]
    positive = np.flatnonzero(labels)
    below = np.zeros((len(weights), len(labels) + 1))  # weight of the negatives among the first i records
    np.cumsum(weights * ~labels, axis=1, out=below[:, 1:])
    first = np.searchsorted(scores, scores[positive], side="left")
    last = np.searchsorted(scores, scores[positive], side="right")
    wins = (weights[:, positive] * (below[:, first] + below[:, last])).sum(axis=1) / 2
    return _divide(wins, weights[:, positive].sum(axis=1) * below[:, -1])


def _weighted_average_precision(
    labels: NDArray[np.bool_], scores: NDArray[np.float32], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum precision times the gain in recall over the score levels at which there are positives."""
    order = np.argsort(-scores, kind="stable")
    scores, labels, weights = scores[order], labels[order], weights[:, order]
    levels = np.unique(-scores[labels])
    ends = np.searchsorted(-scores, levels, side="right") - 1  # last record of each such level
    found = np.cumsum(weights * labels, axis=1)[:, ends]
    seen = np.cumsum(weights, axis=1)[:, ends]
    precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
    gained = np.diff(found, axis=1, prepend=0)
    total = weights[:, labels].sum(axis=1)
    both = (total > 0) & (weights.sum(axis=1) > total)
    return _divide((gained * precision).sum(axis=1), np.where(both, total, 0))


def _weighted_f1(
    labels: NDArray[np.bool_], flags: NDArray[np.float32], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    flagged = flags > 0.5
    positives = weights[:, labels].sum(axis=1)
    both = (positives > 0) & (weights.sum(axis=1) > positives)
    hits = weights[:, labels & flagged].sum(axis=1)
    return _divide(2 * hits, np.where(both, positives + weights[:, flagged].sum(axis=1), 0))


_WEIGHTED: dict[Metric, _Weighted] = {
    auc: _weighted_auc,
    average_precision: _weighted_average_precision,
    f1: _weighted_f1,
}


def _divide(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide, with NaN where the divisor is 0."""
    quotient = np.full(len(above), np.nan)
    np.divide(above, below, out=quotient, where=below > 0)
    return quotient


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _means(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each draw's mean over the classes defined in it, NaN where there is none."""
    defined = ~np.isnan(drawn)
    return _divide(np.where(defined, drawn, 0).sum(axis=1), defined.sum(axis=1).astype(np.float64))


def interval(value: float, drawn: NDArray[np.float64]) -> Interval:
    """Return a value with a 95 % interval: the percentiles of its draws, moved by their bias.

    A draw repeats records, and repeated positives lift average precision and its kin above what they are on distinct
    records: the mean of the draws lies above the value, by up to the width of the interval. That gap is the bootstrap's
    own estimate of bias (Efron and Tibshirani 1993, 10.2) and is taken off; the interval never leaves the range of the
    draws and the value. Draws that are NaN are left out.
    """
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return Interval(value)
    low, high = np.percentile(known, _BOUNDS) + (value - known.mean())
    return Interval(value, min(value, float(max(low, known.min()))), max(value, float(min(high, known.max()))))


def _common(a: Scored, b: Scored) -> tuple[Scored, Scored]:
    """Return the rows of the records that both have, in the order of `a`."""
    if a.classes != b.classes:
        raise CompatibilityError(
            f"the two results have different classes ({len(a.classes)} and {len(b.classes)}); "
            "only results on the same benchmark can be compared."
        )
    row_of = {record: row for row, record in enumerate(b.record_ids)}
    shared = [row for row, record in enumerate(a.record_ids) if record in row_of]
    if not shared:
        raise CompatibilityError("the two results have no record in common.", "compare results on the same split.")
    one, other = _take(a, shared), _take(b, [row_of[a.record_ids[row]] for row in shared])
    if (one.labels != other.labels).any():
        raise CompatibilityError("the two results take different labels for the same records.")
    return one, other


def _take(scored: Scored, rows: list[int]) -> Scored:
    return Scored(
        scored.labels[rows],
        scored.scores[rows],
        scored.classes,
        tuple(scored.record_ids[row] for row in rows),
        tuple(scored.subject_ids[row] for row in rows),
    )
