"""From cosines of (record, feature) pairs to accepted features: the rules, and what they did."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import UsageError
from fgclep.pretrained import WEIGHTS_NAME, Calibration, load_calibration

PAPER_THRESHOLD = 0.95
_FEW, _MOST = 0.01, 0.9
_OFTEN = 20  # from here on, whole proposals come within 2.5 points of any share; of one proposal it is none or all

Floats = NDArray[np.float32]


class Score(StrEnum):
    """What a pair's cosine is turned into before the threshold.

    The paper speaks of similarity above 0.95; its authors' later code takes the cosine, its zero-shot part a
    probability (METHOD A3).
    """

    COSINE = "cosine"
    SIGMOID = "sigmoid"
    CALIBRATED = "calibrated"


@dataclass(frozen=True)
class Rule:
    """When a pair is accepted.

    Attributes:
        threshold: least score; not used with a quantile.
        quantile: share of each feature's pairs to keep, the highest scores first; features proposed fewer than 20 times
            share one such choice. None goes by the threshold.
    """

    score: Score = Score.COSINE
    threshold: float = PAPER_THRESHOLD
    quantile: float | None = None

    def __post_init__(self) -> None:
        if self.quantile is not None and not 0 < self.quantile <= 1:
            raise UsageError(
                f"quantile is {self.quantile}; expected the share to keep, above 0 and at most 1.", "--quantile 0.5"
            )
        if not -1 <= self.threshold <= 1:
            raise UsageError(
                f"threshold is {self.threshold}; expected a score, at most 1.", f"--threshold {PAPER_THRESHOLD}"
            )


def to_scores(cosines: Floats, rule: Rule, bundle: Path) -> Floats:
    """Turn cosines into scores: as they are, sigmoid(t * cos + b) of the loss, or the calibrated probability."""
    if rule.score is Score.COSINE:
        return cosines
    if rule.score is Score.CALIBRATED:
        return load_calibration(bundle).score(cosines)
    from safetensors import safe_open

    with safe_open(bundle / WEIGHTS_NAME, framework="np") as weights:
        scale, bias = float(weights.get_tensor("log_scale")), float(weights.get_tensor("bias"))
    return Calibration(slope=float(np.exp(scale)), offset=bias).score(cosines)


def accept(scores: Floats, columns: NDArray[np.intp], rule: Rule) -> NDArray[np.bool_]:
    """Apply a rule.

    Args:
        scores: float32, shape (p,).
        columns: the feature of each pair, intp, shape (p,).
        rule: a threshold, or a share to keep of each feature's own pairs (at least one; ties are kept). Features
            proposed fewer than `_OFTEN` times are judged together as if they were one.

    Returns:
        bool, shape (p,).
    """
    if rule.quantile is None:
        return np.asarray(scores >= rule.threshold)
    kept = np.zeros(len(scores), bool)
    pools = np.where(np.bincount(columns)[columns] < _OFTEN, -1, columns)
    order = np.argsort(pools, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(pools[order])) + 1):
        if len(group):
            wanted = max(1, round(rule.quantile * len(group)))
            kept[group] = scores[group] >= np.sort(scores[group])[-wanted]
    return kept


def acceptance_warning(rate: float, rule: Rule) -> str:
    """Return a warning where a rule lets almost nothing or almost everything through, else an empty text."""
    if _FEW <= rate <= _MOST:
        return ""
    found = "almost nothing" if rate < _FEW else "almost everything"
    said = f"{rule.score} {rule.threshold:g}" if rule.quantile is None else f"the best {rule.quantile:.0%} of each"
    return (
        f"{rate:.1%} of the proposed features are accepted, {found}: {said} does not suit "
        "this model. --quantile 0.5 keeps the better half of each feature; --score calibrated takes probabilities."
    )


@dataclass(frozen=True)
class TruthScore:
    """Features of known truth, before and after the rule.

    Attributes:
        judged: pairs whose truth is known.
        precision_all: share of them that is true: what accepting everything gives, at a recall of 1.
        accepted: judged pairs that the rule accepts.
        precision: share of those that is true; NaN if there is none.
        recall: share of the true ones that the rule accepts; NaN if there is none.
    """

    judged: int
    precision_all: float
    accepted: int
    precision: float
    recall: float


def score_truth(truth: NDArray[np.int8], accepted: NDArray[np.bool_]) -> TruthScore:
    """Compare a rule with the truth of p pairs (+1 true, -1 false, 0 unknown)."""
    true, judged = truth > 0, truth != 0
    return TruthScore(
        judged=int(judged.sum()),
        precision_all=_share(true[judged]),
        accepted=int((judged & accepted).sum()),
        precision=_share(true[judged & accepted]),
        recall=_share(accepted[true]),
    )


@dataclass(frozen=True)
class FeatureAcceptance:
    """One feature: to how many records it was proposed, how many accept it, and how often it is true."""

    feature: str
    proposed: int
    accepted: int
    mean_score: float
    truth: TruthScore | None


def acceptance_by_feature(
    features: Sequence[str],
    columns: NDArray[np.intp],
    scores: Floats,
    accepted: NDArray[np.bool_],
    truth: NDArray[np.int8] | None,
) -> list[FeatureAcceptance]:
    """Return one row per feature, the most often proposed first."""
    rows = []
    order = np.argsort(columns, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(columns[order])) + 1):
        if len(group):
            known = None if truth is None or not truth[group].any() else score_truth(truth[group], accepted[group])
            name = features[columns[group[0]]]
            rows.append(
                FeatureAcceptance(name, len(group), int(accepted[group].sum()), float(scores[group].mean()), known)
            )
    return sorted(rows, key=lambda row: (-row.proposed, row.feature))


def _share(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else float("nan")
