"""The score of a search hit: a probability under a stated prevalence (Platt 1999), fitted and checked.

A cosine says nothing by itself, and the chance that a hit is right depends on how common the finding is among the
ECGs searched, which no model knows. Fitted to all pairs of records and findings as they come, a curve mostly learns
that common findings have higher cosines, and rare ones never score. So every finding counts the same here, and the
records with and without it are weighted as if its prevalence were `REFERENCE_PREVALENCE`:

    score = sigmoid(slope * cosine + offset)
          = share of ECGs at this cosine that have the finding, if 5 % of all ECGs searched have it.

For another prevalence p multiply the odds score / (1 - score) by (p / (1 - p)) / (0.05 / 0.95). 5 % is about the mean
prevalence of a PTB-XL statement that occurs at all often.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import DataError
from fgclep.pretrained import Calibration

REFERENCE_PREVALENCE = 0.05
FOLDS = 5
BINS = 10
TOP = 10
"""Hits per query that `Assessment.top_ece` looks at: what a user sees of a search."""

Labels = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """Pairs of record and text whose scores lie in [low, high).

    Attributes:
        pairs: how many.
        weight: their share of all weight.
        score: their mean score, by weight.
        observed: the share of them, by weight, whose record has the finding.
    """

    low: float
    high: float
    pairs: int
    weight: float
    score: float
    observed: float


@dataclass(frozen=True)
class Assessment:
    """How good scores are as probabilities at the reference prevalence; every text counts the same.

    Attributes:
        ece: expected calibration error over `bins`: mean |score - observed|, by weight.
        ece_by_text: the same for each text alone, mean over texts; rare findings make it noisy, never zero.
        log_loss: mean over texts; a score that is the prevalence everywhere has 0.199 at 5 %.
        top_ece: the error among the first 10 records of each text as they are, at whatever prevalence they have.
        bins: those that are not empty.
        top_bins: the same for the first 10 records of each text.
    """

    ece: float
    ece_by_text: float
    log_loss: float
    top_ece: float
    bins: tuple[Bin, ...]
    top_bins: tuple[Bin, ...]


def reference_weights(labels: Labels, prevalence: float = REFERENCE_PREVALENCE) -> Floats:
    """Weight pairs as if every finding had the reference prevalence.

    Args:
        labels: bool, shape (n, texts), both outcomes in every column.

    Returns:
        float64, shape (n, texts); every column sums to 1, its positives to `prevalence`.
    """
    positives = labels.sum(axis=0)
    weights: Floats = np.where(labels, prevalence / positives, (1 - prevalence) / (len(labels) - positives))
    return weights


def fit_platt(similarity: NDArray[np.float32], labels: Labels, prevalence: float = REFERENCE_PREVALENCE) -> Calibration:
    """Fit the curve by maximum likelihood, with Platt's smoothed targets: a finding with one positive is not certain.

    Args:
        similarity: cosines, shape (n, texts).
        labels: bool, shape (n, texts); columns without both outcomes are left out.
        prevalence: that scores are probabilities for.

    Returns:
        A curve that never falls; flat at the prevalence if higher cosines do not mean likelier findings.

    Raises:
        DataError: if no column has both outcomes.
    """
    from sklearn.linear_model import LogisticRegression

    columns = _defined(labels)
    if not len(columns):
        raise DataError(
            f"no finding is both present and absent among {len(labels)} records; expected at least one to fit scores.",
            "Fit on more records.",
        )
    labels, similarity = labels[:, columns], similarity[:, columns]
    positives = labels.sum(axis=0)
    target = np.where(labels, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2)).ravel()
    weights = reference_weights(labels, prevalence).ravel()
    cosine = similarity.reshape(-1, 1).astype(np.float64)
    fit = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(
        np.concatenate([cosine, cosine]),
        np.repeat([True, False], len(cosine)),
        sample_weight=np.concatenate([weights * target, weights * (1 - target)]) * len(cosine) / weights.sum(),
    )
    slope, offset = float(fit.coef_[0, 0]), float(fit.intercept_[0])
    if slope <= 0:
        slope, offset = 0.0, float(np.log(prevalence / (1 - prevalence)))
    return Calibration(slope=slope, offset=offset, prevalence=prevalence)


def cross_validated_scores(
    similarity: NDArray[np.float32], labels: Labels, subject_ids: Sequence[str], *, seed: int = 0
) -> Floats:
    """Score every pair by a curve fitted without the record's subject and without the text.

    Args:
        similarity: cosines, shape (n, texts).
        labels: bool, shape (n, texts), both outcomes in every column.
        subject_ids: of the n records.
        seed: of the folds, 5 of subjects times 5 of texts (as many as there are, if fewer).

    Returns:
        float64, shape (n, texts).

    Raises:
        DataError: if subjects or texts cannot be split, or a part holds no finding with both outcomes.
    """
    rng = np.random.default_rng(seed)
    subjects, subject_of_row = np.unique(np.array(subject_ids, dtype=np.str_), return_inverse=True)
    if min(len(subjects), similarity.shape[1]) < 2:
        raise DataError(
            f"{len(subjects)} subjects and {similarity.shape[1]} findings cannot be cross-validated; "
            "expected at least two of both.",
            "Fit on more records.",
        )
    row_fold = _folds(rng, len(subjects))[subject_of_row]
    text_fold = _folds(rng, similarity.shape[1])
    scores = np.empty(similarity.shape)
    for r in np.unique(row_fold):
        for t in np.unique(text_fold):
            inside = np.ix_(row_fold != r, text_fold != t)
            outside = np.ix_(row_fold == r, text_fold == t)
            scores[outside] = fit_platt(similarity[inside], labels[inside]).score(similarity[outside])
    return scores


def assess(scores: NDArray[np.floating], labels: Labels, prevalence: float = REFERENCE_PREVALENCE) -> Assessment:
    """Compare scores with what is true.

    Args:
        scores: shape (n, texts), 0 to 1.
        labels: bool, shape (n, texts), both outcomes in every column.
        prevalence: that scores are probabilities for.
    """
    weights = reference_weights(labels, prevalence)
    bins = reliability_bins(scores, labels, weights)
    by_text = [
        calibration_error(reliability_bins(scores[:, c], labels[:, c], weights[:, c])) for c in range(labels.shape[1])
    ]
    safe = np.clip(scores, 1e-12, 1 - 1e-12).astype(np.float64)
    loss = -(weights * np.where(labels, np.log(safe), np.log1p(-safe))).sum() / labels.shape[1]
    top_bins = reliability_bins(scores, labels, _top_weights(scores))
    return Assessment(
        ece=calibration_error(bins),
        ece_by_text=float(np.mean(by_text)),
        log_loss=float(loss),
        top_ece=calibration_error(top_bins),
        bins=bins,
        top_bins=top_bins,
    )


def reliability_bins(scores: NDArray[np.floating], labels: Labels, weights: Floats) -> tuple[Bin, ...]:
    """Return ten bins of equal width over the scores, without the empty ones; all arrays have one shape.

    Pairs without weight take no part.
    """
    scores, labels, weights = scores[weights > 0], labels[weights > 0], weights[weights > 0]
    number = np.minimum((scores * BINS).astype(np.intp), BINS - 1)
    weight = np.bincount(number, weights, BINS)
    score = np.bincount(number, weights * scores, BINS)
    observed = np.bincount(number, weights * labels, BINS)
    pairs = np.bincount(number, minlength=BINS)
    return tuple(
        Bin(
            low=k / BINS,
            high=(k + 1) / BINS,
            pairs=int(pairs[k]),
            weight=float(weight[k] / weight.sum()),
            score=float(score[k] / weight[k]),
            observed=float(observed[k] / weight[k]),
        )
        for k in range(BINS)
        if pairs[k]
    )


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error: the mean gap between score and observed share, by weight."""
    return float(sum(b.weight * abs(b.score - b.observed) for b in bins))


def _top_weights(scores: NDArray[np.floating]) -> Floats:
    """Weight the first 10 records of each text with 1, and those tied for the last places with their chance of one."""
    places = min(TOP, len(scores))
    last = np.sort(scores, axis=0)[-places]
    above, tied = scores > last, scores == last
    weights: Floats = np.where(tied, (places - above.sum(axis=0)) / tied.sum(axis=0), above)
    return weights


def _defined(labels: Labels) -> NDArray[np.intp]:
    return np.flatnonzero(labels.any(axis=0) & ~labels.all(axis=0))


def _folds(rng: np.random.Generator, count: int) -> NDArray[np.intp]:
    """Deal `count` items into up to five parts of equal size, give or take one."""
    return rng.permutation(count) % min(FOLDS, count)
