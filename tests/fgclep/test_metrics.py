"""Metrics against brute force, and their rules for undefined classes and ties."""

import numpy as np
import pytest

from fgclep.evaluation.metrics import macro_auc, macro_average_precision, macro_precision_at


def _data(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random((40, 3)) < 0.3, np.round(rng.random((40, 3)), 1).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_auc_equals_pair_counting(seed: int) -> None:
    labels, scores = _data(seed)
    result = macro_auc(labels, scores, "abc")
    for column, name in enumerate("abc"):
        positive, negative = scores[labels[:, column], column], scores[~labels[:, column], column]
        wins = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
        assert result.by_class[name] == pytest.approx(np.mean(wins))
    assert result.mean == pytest.approx(np.mean(list(result.by_class.values())))


def test_average_precision_equals_slow_sum() -> None:
    labels = np.array([[1, 0, 1, 0, 1]], bool).T
    scores = np.array([[0.9, 0.8, 0.7, 0.6, 0.5]], np.float32).T
    assert macro_average_precision(labels, scores, "x").mean == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3)


def test_classes_without_both_outcomes_are_named_and_left_out() -> None:
    labels = np.array([[1, 1, 0], [1, 0, 0]], bool)
    scores = np.array([[0.2, 0.9, 0.1], [0.1, 0.2, 0.3]], np.float32)
    result = macro_auc(labels, scores, ["all", "some", "none"])
    assert result.skipped == ("all", "none")
    assert result.mean == 1.0


def test_precision_breaks_ties_by_row() -> None:
    labels = np.array([[1], [0], [1], [0]], bool)
    tied = np.zeros((4, 1), np.float32)
    assert macro_precision_at(labels, tied, "x", 1).mean == 1.0
    assert macro_precision_at(labels[::-1], tied, "x", 1).mean == 0.0
    assert macro_precision_at(labels, tied, "x", 3).mean == pytest.approx(2 / 3)
