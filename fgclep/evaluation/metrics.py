"""Ranking metrics with explicit rules for undefined classes and ties."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class MacroScore:
    """A mean over classes and what went into it.

    Attributes:
        mean: unweighted mean over the defined classes; NaN if there is none.
        by_class: class to value, defined classes only.
        skipped: classes without both outcomes.
    """

    mean: float
    by_class: dict[str, float]
    skipped: tuple[str, ...]


def macro_auc(labels: NDArray[np.bool_], scores: NDArray[np.float32], names: Sequence[str]) -> MacroScore:
    """Area under the ROC curve per class and its mean.

    Args:
        labels: bool, shape (records, classes).
        scores: shape (records, classes), higher means more likely.
        names: the classes.
    """
    from sklearn.metrics import roc_auc_score

    return _macro(labels, names, lambda c: float(roc_auc_score(labels[:, c], scores[:, c])))


def macro_average_precision(labels: NDArray[np.bool_], scores: NDArray[np.float32], names: Sequence[str]) -> MacroScore:
    """Average precision per class (label retrieval) and its mean (mAP)."""
    from sklearn.metrics import average_precision_score

    return _macro(labels, names, lambda c: float(average_precision_score(labels[:, c], scores[:, c])))


def macro_precision_at(
    labels: NDArray[np.bool_], scores: NDArray[np.float32], names: Sequence[str], k: int
) -> MacroScore:
    """Share of relevant records among the first k per class; ties are broken by row."""

    def precision(c: int) -> float:
        first = np.argsort(-scores[:, c], kind="stable")[:k]
        return float(labels[first, c].mean())

    return _macro(labels, names, precision)


def _macro(labels: NDArray[np.bool_], names: Sequence[str], value: Callable[[int], float]) -> MacroScore:
    by_class: dict[str, float] = {}
    skipped: list[str] = []
    for column, name in enumerate(names):
        if labels[:, column].all() or not labels[:, column].any():
            skipped.append(name)
        else:
            by_class[name] = value(column)
    mean = float(np.mean(list(by_class.values()))) if by_class else float("nan")
    return MacroScore(mean, by_class, tuple(skipped))
