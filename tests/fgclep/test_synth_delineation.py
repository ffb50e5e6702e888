"""The stated truth of synthetic ECGs against an independent delineator, neurokit2.

Lead by lead delineation (prominence method, on the samples as they are) is combined as electrocardiographs do:
QRS from the earliest onset to the latest end over the leads, P and T by the median lead. The tolerances are for
medians over records: single leads of single records may be misread by any delineator. neurokit2 takes the first
notch of a bundle branch block for the end of QRS, so wide complexes are measured in test_synthetic.py instead.
"""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from fgclep.datasets.synthetic import SyntheticEcg, generate_one
from fgclep.leads import LEADS
from fgclep.record import Measurements
from fgclep.synth.beats import build_beat
from fgclep.synth.cases import Case
from fgclep.synth.render import render
from fgclep.synth.rhythm import draw_timeline
from fgclep.synth.truth import read_record
from fgclep.synth.waves import TO_TWELVE

nk = pytest.importorskip("neurokit2", reason="neurokit2 is not installed: it is an extra of its own (delineation)")

FS_HZ = 500
_DELINEATED = ("I", "II", "V1", "V2", "V3", "V5")
_DISTURBED = {
    "NOISE",
    "WANDER",
    "PRC",
    "2AVB",
    "3AVB",
    "WPW",
    "CRBBB",
    "CLBBB",
    "ILBBB",
    "IVCD",
    "AFLT",
    "AFIB",
    "PACE",
}


@dataclass(frozen=True)
class Delineation:
    rate_bpm: float
    pr_ms: float
    qrs_ms: float
    qt_ms: float
    st_mv: dict[str, float]


def delineate(samples: NDArray[np.float32]) -> Delineation:
    waveform = samples.astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # R peaks from the lead with the steepest complexes: in lead II alone a tall T can pass for R.
        steepest = int(np.quantile(np.abs(np.diff(waveform, axis=1)), 0.995, axis=1).argmax())
        _, found = nk.ecg_peaks(nk.ecg_clean(waveform[steepest], sampling_rate=FS_HZ), sampling_rate=FS_HZ)
        peaks = np.array(found["ECG_R_Peaks"])
        inside = peaks[(peaks > 0.4 * FS_HZ) & (peaks < waveform.shape[1] - 0.7 * FS_HZ)]
        places: dict[str, list[float]] = {"P_Onsets": [], "R_Onsets": [], "R_Offsets": [], "T_Offsets": []}
        for lead in _DELINEATED:
            _, waves = nk.ecg_delineate(waveform[LEADS.index(lead)], inside, sampling_rate=FS_HZ, method="prominence")
            for name, values in places.items():
                values.append(float(np.nanmedian(np.array(waves[f"ECG_{name}"], float) - inside)) * 1000 / FS_HZ)
        onset, j = np.nanmin(places["R_Onsets"]), np.nanmax(places["R_Offsets"])
        p, t = np.nanmedian(places["P_Onsets"]), np.nanmedian(places["T_Offsets"])

    def level(ms: float) -> NDArray[np.float64]:
        return np.median(waveform[:, inside + round(ms * FS_HZ / 1000)], axis=1)

    st = level(j + 60) - level(onset - 6)
    rate = 60 * FS_HZ / float(np.mean(np.diff(peaks)))
    return Delineation(rate, onset - p, j - onset, t - onset, dict(zip(LEADS, st, strict=True)))


@functools.cache
def _truth(number: int) -> frozenset[str]:
    return frozenset(generate_one(77, number, 100).truth)


def _records(wanted: Callable[[frozenset[str]], bool], count: int) -> list[tuple[SyntheticEcg, Delineation]]:
    chosen = []
    for number in range(2000):
        truth = _truth(number)
        if wanted(truth) and not truth & _DISTURBED and {"SR", "SBRAD"} & truth:
            ecg = generate_one(77, number, FS_HZ)
            chosen.append((ecg, delineate(ecg.record.waveform)))
        if len(chosen) == count:
            return chosen
    raise AssertionError(f"only {len(chosen)} of {count} records found")


def _made(case: Case, count: int = 12) -> list[tuple[Measurements, Delineation]]:
    """Draw one condition in otherwise normal hearts, with a little noise for the delineator's thresholds."""
    made = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        beat = build_beat(rng, case, 60 / case.rate_bpm)
        timeline = draw_timeline(rng, case, beat.pr_s)
        clean = render(rng, case, beat, timeline, FS_HZ)
        waveform = TO_TWELVE @ clean + rng.normal(0, 0.004, (12, clean.shape[1]))
        made.append((read_record(case, beat, timeline).measurements, delineate(waveform)))
    return made


def _errors(pairs: list[tuple[Measurements, Delineation]]) -> dict[str, NDArray[np.float64]]:
    rows = []
    for told, found in pairs:
        assert told.heart_rate_bpm and told.pr_interval_ms and told.qrs_duration_ms and told.qt_interval_ms
        rows.append(
            (
                found.rate_bpm - told.heart_rate_bpm,
                found.pr_ms - told.pr_interval_ms,
                found.qrs_ms - told.qrs_duration_ms,
                found.qt_ms - told.qt_interval_ms,
            )
        )
    return dict(zip(("rate", "pr", "qrs", "qt"), np.array(rows).T, strict=True))


@pytest.fixture(scope="module")
def normal() -> list[tuple[SyntheticEcg, Delineation]]:
    return _records(lambda truth: "NORM" in truth and "SARRH" not in truth, 30)


def test_intervals_of_normal_records_agree(normal: list[tuple[SyntheticEcg, Delineation]]) -> None:
    errors = _errors([(ecg.record.info.measurements, found) for ecg, found in normal])
    assert np.quantile(np.abs(errors["rate"]), 0.9) < 1.0
    assert abs(np.median(errors["pr"])) < 15
    assert abs(np.median(errors["qrs"])) < 10
    assert abs(np.median(errors["qt"])) < 25
    assert np.median(np.abs(errors["pr"])) < 20
    assert np.median(np.abs(errors["qrs"])) < 12
    assert np.median(np.abs(errors["qt"])) < 30


def test_st_levels_of_normal_records_are_small(normal: list[tuple[SyntheticEcg, Delineation]]) -> None:
    for ecg, found in normal:
        assert not [name for name in ecg.truth if name.startswith("STD@")]
        assert np.median([abs(level) for level in found.st_mv.values()]) < 0.08


def test_long_pr_is_found_long() -> None:
    usual, long = _made(Case("M", 60, rate_bpm=60)), _made(Case("M", 60, rate_bpm=60, av="1AVB"))
    assert abs(np.median(_errors(long)["pr"])) < 20
    assert np.median([found.pr_ms for _, found in long]) > np.median([found.pr_ms for _, found in usual]) + 60


def test_qt_follows_the_stated_truth() -> None:
    """The truth ends T by the tangent; neurokit2 some 0.1 s after its peak however narrow it is: later if short."""
    long, short = (_made(Case("F", 50, rate_bpm=62, qt=qt)) for qt in ("LNGQT", "SHQT"))
    assert abs(np.median(_errors(long)["qt"])) < 35
    assert -10 < np.median(_errors(short)["qt"]) < 65
    assert np.median([found.qt_ms for _, found in long]) > np.median([found.qt_ms for _, found in short]) + 120


@pytest.mark.parametrize(("finding", "sign"), [("STE", 1), ("STD", -1)])
def test_st_changes_are_found_where_the_truth_names_them(finding: str, sign: int) -> None:
    levels = []
    for ecg, found in _records(lambda truth: finding in truth, 15):
        levels += [sign * found.st_mv[lead] for lead in ecg.truth[finding]]
    assert len(levels) >= 30
    assert np.mean(np.array(levels) > 0.03) > 0.85
    assert np.median(levels) > 0.08
