"""Metrics and intervals against scikit-learn and against the plain way to draw."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from fgclep.errors import CompatibilityError
from fgclep.evaluation.bootstrap import (
    auc,
    average_precision,
    bootstrap_macro,
    f1,
    interval,
    paired_bootstrap,
    subject_weights,
)
from fgclep.evaluation.results import Scored


def scored(labels: np.ndarray, scores: np.ndarray, subjects: list[str] | None = None) -> Scored:
    n, classes = labels.shape
    return Scored(
        labels.astype(bool),
        scores.astype(np.float32),
        tuple("abcdefgh"[:classes]),
        tuple(f"r{row}" for row in range(n)),
        tuple(subjects or [f"s{row}" for row in range(n)]),
    )


def random_scored(seed: int, n: int = 60, classes: int = 3, signal: float = 1.0) -> Scored:
    """Records of fewer subjects than records, scores with ties, a rare class among the others."""
    rng = np.random.default_rng(seed)
    labels = rng.random((n, classes)) < np.linspace(0.05, 0.5, classes)
    labels[:2, 0] = True, False
    scores = np.round(labels * signal + rng.normal(size=(n, classes)), 1)
    return scored(labels, scores, [f"s{value}" for value in rng.integers(0, n // 2, n)])


SKLEARN = {
    auc: lambda labels, scores: float(roc_auc_score(labels, scores)),
    average_precision: lambda labels, scores: float(average_precision_score(labels, scores)),
    f1: lambda labels, flags: float(f1_score(labels, flags > 0.5)),
}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=30))
def test_metrics_equal_scikit_learn(pairs: list[tuple[bool, int]]) -> None:
    labels = np.array([label for label, _ in pairs])
    scores = np.array([score for _, score in pairs], np.float32)
    for metric, oracle in SKLEARN.items():
        given_scores = (scores > 0).astype(np.float32) if metric is f1 else scores
        if labels.all() or not labels.any():
            assert np.isnan(metric(labels, given_scores))
        else:
            assert metric(labels, given_scores) == pytest.approx(oracle(labels, given_scores), abs=1e-12)


@pytest.mark.parametrize("metric", SKLEARN, ids=lambda metric: metric.__name__)
def test_fast_draws_equal_plain_draws(metric) -> None:
    """The plain way repeats the rows of the drawn subjects and asks scikit-learn."""
    data = random_scored(1)
    if metric is f1:
        data = scored(data.labels, data.scores > 0.5, list(data.subject_ids))
    fast, plain = (bootstrap_macro(data, one, 60, seed=5) for one in (metric, SKLEARN[metric]))
    for one, other in zip([fast[0], *fast[1].values()], [plain[0], *plain[1].values()], strict=True):
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), abs=1e-9)


def test_a_draw_takes_all_records_of_a_subject_and_as_many_subjects_as_there_are() -> None:
    subjects = ("x", "y", "x", "z", "z", "z")
    weights = np.concatenate(list(subject_weights(subjects, 130, seed=2)))
    assert weights.shape == (130, 6)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 3] == weights[:, 4]).all() and (weights[:, 4] == weights[:, 5]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert weights[:, [0, 1, 3]].mean(axis=0) == pytest.approx([1, 1, 1], abs=0.3)


def test_repeating_every_ecg_of_a_subject_narrows_nothing() -> None:
    """Resampling records would take the copies for news and shrink the interval by the root of two."""
    data = random_scored(3)
    names = list(data.subject_ids)
    twice = scored(np.tile(data.labels, (2, 1)), np.tile(data.scores, (2, 1)), names * 2)
    for metric in (auc, average_precision):
        once_macro, again_macro = (bootstrap_macro(one, metric, 150, seed=1)[0] for one in (data, twice))
        assert (again_macro.low, again_macro.high) == pytest.approx((once_macro.low, once_macro.high))


def test_undefined_classes_are_left_out_and_no_draws_give_no_interval() -> None:
    data = random_scored(4)
    labels = np.column_stack([data.labels, np.zeros(60, bool), np.ones(60, bool)])
    wider = scored(labels, np.column_stack([data.scores, data.scores[:, :2]]), list(data.subject_ids))
    macro, by_class = bootstrap_macro(wider, auc, 0, seed=0)
    assert list(by_class) == ["a", "b", "c"]
    assert macro.value == pytest.approx(np.mean([interval.value for interval in by_class.values()]))
    assert np.isnan([macro.low, macro.high]).all()
    nothing = scored(np.zeros((4, 1)), np.zeros((4, 1)))
    macro, by_class = bootstrap_macro(nothing, auc, 10, seed=0)
    assert by_class == {} and np.isnan([macro.value, macro.low, macro.high]).all()


def test_intervals_follow_the_seed_and_bracket_the_value() -> None:
    data = random_scored(6, n=300)
    one, same, other = (bootstrap_macro(data, auc, 200, seed)[0] for seed in (1, 1, 2))
    assert one == same != other
    assert one.low < one.value < one.high


def test_the_bias_of_the_draws_is_taken_off_within_what_was_drawn() -> None:
    drawn = np.random.default_rng(0).normal(0.06, 0.01, 5000)  # repeated positives: every draw tends too high
    found = interval(0.05, np.append(drawn, np.nan))
    spread = 1.96 * 0.01
    assert (found.low, found.high) == pytest.approx((0.05 - spread, 0.05 + spread), abs=0.001)
    assert found.low < found.value < found.high, "plain percentiles nearly leave the value out"
    certain = interval(1.0, np.array([0.98, 0.99, 1.0, 1.0]))
    assert certain.high == 1.0 and certain.low < 1.0
    assert np.isnan(interval(0.5, np.array([np.nan])).low)


def test_paired_comparison_sees_a_better_model_and_not_a_difference_that_is_not_there() -> None:
    good, bad = random_scored(7, n=300, signal=2.0), random_scored(7, n=300, signal=0.3)
    assert (good.labels == bad.labels).all()
    difference, p_value = paired_bootstrap(good, bad, auc, 300, seed=0)
    assert difference.low > 0 and p_value == pytest.approx(2 / 301)
    back, p_back = paired_bootstrap(bad, good, auc, 300, seed=0)
    assert (back.value, back.low, back.high) == pytest.approx((-difference.value, -difference.high, -difference.low))
    assert p_back == p_value
    same, p_same = paired_bootstrap(good, good, auc, 300, seed=0)
    assert (same.value, same.low, same.high, p_same) == (0, 0, 0, 1)


def test_paired_comparison_is_tighter_than_the_two_intervals() -> None:
    """The models are alike, so that one draw is easy or hard for both."""
    rng = np.random.default_rng(8)
    one = random_scored(8, n=300)
    two = scored(one.labels, one.scores + 0.1 * rng.normal(size=one.scores.shape), list(one.subject_ids))
    difference, _ = paired_bootstrap(one, two, auc, 300, seed=0)
    alone = bootstrap_macro(one, auc, 300, seed=0)[0]
    assert difference.high - difference.low < 0.5 * (alone.high - alone.low)


def test_paired_comparison_aligns_rows_and_takes_common_records() -> None:
    one, two = random_scored(9, signal=2.0), random_scored(9, signal=1.0)
    order = np.random.default_rng(0).permutation(60)[:50]
    kept = np.sort(order)

    def rows(data: Scored, chosen: np.ndarray) -> Scored:
        names = (tuple(np.array(names)[chosen].tolist()) for names in (data.record_ids, data.subject_ids))
        return Scored(data.labels[chosen], data.scores[chosen], data.classes, *names)

    expected = paired_bootstrap(rows(one, kept), rows(two, kept), auc, 50, seed=3)
    assert paired_bootstrap(rows(one, kept), rows(two, order), auc, 50, seed=3) == expected
    assert paired_bootstrap(one, rows(two, order), auc, 50, seed=3) == expected


def test_results_that_do_not_belong_together_are_refused() -> None:
    data = random_scored(10)
    flipped = Scored(~data.labels, data.scores, data.classes, data.record_ids, data.subject_ids)
    renamed = Scored(data.labels, data.scores, ("x", "y", "z"), data.record_ids, data.subject_ids)
    apart = Scored(data.labels, data.scores, data.classes, tuple("q" + r for r in data.record_ids), data.subject_ids)
    for other, complaint in ((flipped, "different labels"), (renamed, "different classes"), (apart, "no record")):
        with pytest.raises(CompatibilityError, match=complaint):
            paired_bootstrap(data, other, auc, 10, seed=0)
