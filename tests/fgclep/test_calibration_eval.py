"""Scores as probabilities: the fit against an independent optimiser, the checks against slow rewrites."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fgclep.errors import DataError
from fgclep.evaluation.calibrate_bundle import write_calibration
from fgclep.evaluation.calibration import (
    REFERENCE_PREVALENCE,
    assess,
    calibration_error,
    cross_validated_scores,
    fit_platt,
    reference_weights,
    reliability_bins,
)
from fgclep.pretrained import Calibration, bundle_fingerprint, load_calibration

SHIFT, SPREAD = 0.3, 0.1  # of the cosines of positives, and of all


def make_pairs(
    n: int, prevalences: list[float], seed: int, shift: float = SHIFT
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Cosines for which the logistic curve is exact: two normal distributions of one width."""
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.random(n) < prevalence for prevalence in prevalences], axis=1)
    return (labels * shift + rng.normal(0, SPREAD, labels.shape)).astype(np.float32), labels


def exact(prevalence: float) -> tuple[float, float]:
    return SHIFT / SPREAD**2, -(SHIFT**2) / (2 * SPREAD**2) + np.log(prevalence / (1 - prevalence))


def test_weights_give_every_finding_the_same_prevalence() -> None:
    _, labels = make_pairs(500, [0.02, 0.3, 0.9], seed=0)
    weights = reference_weights(labels)
    np.testing.assert_allclose(weights.sum(axis=0), 1)
    np.testing.assert_allclose((weights * labels).sum(axis=0), REFERENCE_PREVALENCE)


@pytest.mark.parametrize("natural", [0.005, 0.05, 0.5])
def test_the_curve_is_the_exact_one_however_common_the_finding_was(natural: float) -> None:
    similarity, labels = make_pairs(40_000, [natural] * 3, seed=1)
    fitted = fit_platt(similarity, labels)
    slope, offset = exact(REFERENCE_PREVALENCE)
    assert fitted.slope == pytest.approx(slope, rel=0.15)
    assert fitted.offset == pytest.approx(offset, rel=0.15)
    assert fitted.prevalence == REFERENCE_PREVALENCE


def test_the_fit_is_the_minimum_that_an_independent_optimiser_finds() -> None:
    from scipy.optimize import minimize

    similarity, labels = make_pairs(300, [0.03, 0.2], seed=2)
    positives, negatives = labels.sum(axis=0), (~labels).sum(axis=0)

    def loss(parameters: NDArray[np.float64]) -> float:
        total = 0.0
        for c in range(2):
            for cosine, label in zip(similarity[:, c], labels[:, c], strict=True):
                logit = parameters[0] * float(cosine) + parameters[1]
                target = (positives[c] + 1) / (positives[c] + 2) if label else 1 / (negatives[c] + 2)
                weight = 0.05 / positives[c] if label else 0.95 / negatives[c]
                total += weight * (target * np.logaddexp(0, -logit) + (1 - target) * np.logaddexp(0, logit))
        return total

    found = minimize(loss, [10.0, -3.0], method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-10}).x
    fitted = fit_platt(similarity, labels)
    assert (fitted.slope, fitted.offset) == pytest.approx(tuple(found), rel=2e-3)


def test_a_rare_finding_reaches_a_score_that_the_plain_fit_denies_it() -> None:
    from sklearn.linear_model import LogisticRegression

    similarity, labels = make_pairs(4000, [0.002] * 5, seed=3, shift=SHIFT / 2)
    plain = LogisticRegression(C=np.inf).fit(similarity.reshape(-1, 1), labels.ravel())
    top = similarity.max(axis=0).reshape(-1, 1)
    assert plain.predict_proba(top)[:, 1].mean() < fit_platt(similarity, labels).score(top).mean() - 0.2


def test_a_model_that_is_wrong_gets_the_prevalence_everywhere() -> None:
    similarity, labels = make_pairs(500, [0.2], seed=4)
    fitted = fit_platt(-similarity, labels)
    np.testing.assert_allclose(fitted.score(np.linspace(-1, 1, 11)), REFERENCE_PREVALENCE, rtol=1e-5)


def test_columns_without_both_outcomes_are_left_out() -> None:
    similarity, labels = make_pairs(400, [0.2, 0.3], seed=5)
    extra = np.concatenate([labels, np.zeros((400, 1), bool), np.ones((400, 1), bool)], axis=1)
    wide = np.concatenate([similarity, similarity], axis=1)
    one, other = fit_platt(wide, extra), fit_platt(similarity, labels)
    assert (one.slope, one.offset) == pytest.approx((other.slope, other.offset))
    with pytest.raises(DataError, match="no finding"):
        fit_platt(similarity, np.zeros_like(labels))


def test_reliability_is_counted_pair_by_pair() -> None:
    rng = np.random.default_rng(6)
    scores, labels = rng.random((200, 3)), rng.random((200, 3)) < 0.3
    scores[0] = (0.0, 1.0, 0.3)
    weights = reference_weights(labels)
    found = reliability_bins(scores, labels, weights)
    gap = 0.0
    for b in found:
        inside = [
            (r, c)
            for r in range(200)
            for c in range(3)
            if b.low <= scores[r, c] < b.high or (b.high == 1 and scores[r, c] == 1)
        ]
        weight = sum(weights[pair] for pair in inside)
        assert b.pairs == len(inside)
        assert b.weight == pytest.approx(weight / weights.sum())
        assert b.observed == pytest.approx(sum(weights[pair] * labels[pair] for pair in inside) / weight)
        gap += abs(sum(weights[pair] * (scores[pair] - labels[pair]) for pair in inside)) / weights.sum()
    assert sum(b.pairs for b in found) == 600
    assert calibration_error(found) == pytest.approx(gap)
    assert assess(scores, labels).ece == pytest.approx(gap)


def test_true_probabilities_are_assessed_better_than_others() -> None:
    similarity, labels = make_pairs(5000, [0.05] * 8, seed=7)
    slope, offset = exact(0.05)
    good = assess(Calibration(slope, offset).score(similarity), labels)
    assert good.ece < 0.01 and good.top_ece < 0.06
    for wrong in (Calibration(slope, offset + 2), Calibration(slope / 4, offset / 2), Calibration(0, 0)):
        bad = assess(wrong.score(similarity), labels)
        assert bad.ece > 2 * good.ece
        assert bad.log_loss > good.log_loss
    flat = assess(np.full(labels.shape, 0.05), labels)
    assert flat.ece == pytest.approx(0, abs=1e-9)
    assert flat.log_loss == pytest.approx(-(0.05 * np.log(0.05) + 0.95 * np.log(0.95)))


def test_tied_first_hits_do_not_depend_on_the_order_of_the_rows() -> None:
    rng = np.random.default_rng(8)
    scores, labels = np.round(rng.random((60, 4)), 1), rng.random((60, 4)) < 0.4
    order = rng.permutation(60)
    one, other = assess(scores, labels), assess(scores[order], labels[order])
    assert one.top_ece == pytest.approx(other.top_ece)
    untied = rng.random((60, 4))
    top = np.argsort(-untied, axis=0)[:10]
    expected = reliability_bins(
        np.take_along_axis(untied, top, 0), np.take_along_axis(labels, top, 0), np.ones(top.shape)
    )
    assert [b.observed for b in assess(untied, labels).top_bins] == pytest.approx([b.observed for b in expected])
    assert sum(b.pairs for b in assess(untied, labels).top_bins) == 40


def test_a_crossed_score_never_saw_its_own_subject_or_text() -> None:
    similarity, labels = make_pairs(200, [0.3] * 6, seed=9)
    subjects = [str(row // 2) for row in range(200)]
    before = cross_validated_scores(similarity, labels, subjects)
    changed = labels.copy()
    changed[0:2] = ~changed[0:2]  # both records of one subject, all texts
    changed[:, 3] = ~changed[:, 3]  # one text, all records
    after = cross_validated_scores(similarity, changed, subjects)
    assert (before[0, 3], before[1, 3]) == (after[0, 3], after[1, 3])
    assert not np.allclose(before, after), "others saw the change"
    assert assess(before, labels).ece < 0.03


@pytest.mark.parametrize(("subjects", "texts"), [(1, 3), (9, 1)])
def test_too_little_to_cross_validate_is_refused(subjects: int, texts: int) -> None:
    similarity, labels = make_pairs(90, [0.4] * texts, seed=10)
    with pytest.raises(DataError, match="at least two"):
        cross_validated_scores(similarity, labels, [str(row % subjects) for row in range(90)])


class TestBundle:
    NEW = Calibration(slope=12.5, offset=-3.25, prevalence=0.05)

    @pytest.fixture
    def bundle(self, tiny_bundle: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))

    def test_a_written_curve_is_read_back_and_changes_no_fingerprint(self, bundle: Path) -> None:
        before = bundle_fingerprint(bundle)
        assert write_calibration(bundle, self.NEW) == bundle / "calibration.json"
        assert load_calibration(bundle) == self.NEW
        assert bundle_fingerprint(bundle) == before
        assert {file.name for file in bundle.iterdir() if file.name.startswith(".")} == set()

    def test_an_interrupted_write_leaves_the_old_curve(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        old = load_calibration(bundle)

        def fail(*paths: object) -> None:
            raise OSError("disk full")

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            write_calibration(bundle, self.NEW)
        assert load_calibration(bundle) == old
        assert not [file for file in bundle.iterdir() if file.name.startswith(".")]

    def test_bundles_made_before_the_prevalence_was_written_still_load(self, bundle: Path) -> None:
        (bundle / "calibration.json").write_text(json.dumps({"slope": 17.0, "offset": -4.6}))
        assert load_calibration(bundle) == Calibration(17.0, -4.6, None)
