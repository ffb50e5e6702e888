"""Timing: where each P wave, complex and pacing spike stands in the ten seconds."""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fgclep.synth.cases import Case
from fgclep.synth.waves import Floats

DURATION_S = 10.0
_BEGIN_S = -1.6
_END_S = DURATION_S + 2.5


@dataclass(frozen=True)
class Timeline:
    """Onset times in seconds from the record's start; some lie outside the ten seconds.

    Attributes:
        main: QRS onsets of the record's ordinary complexes.
        pvc: QRS onsets of premature ventricular complexes.
        p: onsets of ordinary P waves.
        early_p: onsets of P waves of another shape (premature or wandering atrial foci).
        retrograde_p: onsets of inverted P waves that follow the complex.
        atrial_spikes, ventricular_spikes: pacing stimuli.
        pac: QRS onsets of premature atrial beats (they stand in `main` too).
        pr_s: PR interval of ordinary conducted beats, None where there is none; the mean in Wenckebach.
        flutter_hz: rate of atrial flutter waves, None where there is none.
    """

    main: Floats
    p: Floats
    pr_s: float | None
    pvc: Floats = field(default_factory=lambda: np.zeros(0))
    early_p: Floats = field(default_factory=lambda: np.zeros(0))
    retrograde_p: Floats = field(default_factory=lambda: np.zeros(0))
    atrial_spikes: Floats = field(default_factory=lambda: np.zeros(0))
    ventricular_spikes: Floats = field(default_factory=lambda: np.zeros(0))
    pac: Floats = field(default_factory=lambda: np.zeros(0))
    flutter_hz: float | None = None

    @property
    def complexes(self) -> Floats:
        """All QRS onsets inside the record, in order."""
        every = np.sort(np.concatenate([self.main, self.pvc]))
        return np.asarray(every[(every >= 0) & (every < DURATION_S)])


def _intervals(rng: np.random.Generator, rr_s: float, breathing: float, noise: float) -> Floats:
    """Return onsets with respiratory and random variation of the interval."""
    count = int((_END_S - _BEGIN_S) / (0.5 * rr_s)) + 3
    breath_hz, phase = rng.uniform(0.16, 0.32), rng.uniform(0, 2 * np.pi)
    when = np.arange(count) * rr_s
    steps = rr_s * (1 + breathing * np.sin(2 * np.pi * breath_hz * when + phase) + rng.normal(0, noise, count))
    times = _BEGIN_S + rng.uniform(-rr_s, 0) + np.cumsum(np.maximum(steps, 0.4 * rr_s))
    return np.asarray(times[times < _END_S])


def _flutter(rng: np.random.Generator, rate_bpm: float) -> tuple[float, int]:
    """Return atrial frequency and conduction ratio (2 to 6) that fit a ventricular rate."""
    ratio = int(np.clip(round(4.7 * 60 / rate_bpm), 2, 6))
    return float(np.clip(ratio * rate_bpm / 60 * rng.uniform(0.99, 1.01), 4.0, 5.4)), ratio


def draw_timeline(rng: np.random.Generator, case: Case, pr_s: float) -> Timeline:
    """Draw the onsets of everything in one record.

    Args:
        rng: source of variation.
        case: rhythm, AV conduction and ectopy to draw.
        pr_s: PR interval of conducted beats.
    """
    rr_s = 60 / case.rate_bpm
    if case.av in ("2AVB1", "2AVB2", "2AVB", "3AVB"):
        return _blocked(rng, case, pr_s, rr_s)
    if case.rhythm in ("BIGU", "TRIGU"):
        return _coupled(rng, case.rhythm, rr_s, pr_s)
    if case.rhythm == "SVARR":
        return _wandering(rng, rr_s, pr_s)
    return _with_ectopy(rng, case, _regular(rng, case, rr_s, pr_s), rr_s)


def _regular(rng: np.random.Generator, case: Case, rr_s: float, pr_s: float) -> Timeline:
    rhythm = case.rhythm
    if rhythm == "AFIB":
        count = int((_END_S - _BEGIN_S) / (0.4 * rr_s)) + 3
        steps = rr_s * np.clip(rng.lognormal(-0.03, 0.24, count), 0.58, 1.9)
        times = _BEGIN_S + rng.uniform(-rr_s, 0) + np.cumsum(np.maximum(steps, 0.29))
        return Timeline(times[times < _END_S], np.zeros(0), None)
    if rhythm == "AFLT":
        atrial_hz, ratio = _flutter(rng, case.rate_bpm)
        return Timeline(_flutter_beats(rng, atrial_hz, ratio), np.zeros(0), None, flutter_hz=atrial_hz)
    if rhythm in ("SVTAC", "PSVT", "JUNC"):
        main = _intervals(rng, rr_s, 0.004, 0.004)
        seen = rng.random() < (0.4 if rhythm == "JUNC" else 0.3)
        return Timeline(main, np.zeros(0), None, retrograde_p=main + rng.uniform(0.085, 0.11) if seen else np.zeros(0))
    if rhythm in ("IDIO", "VTACH"):
        p = _intervals(rng, float(rng.uniform(0.6, 0.85)), 0.01, 0.01) if rhythm == "VTACH" else np.zeros(0)
        return Timeline(_intervals(rng, rr_s, 0.004, 0.008), p, None)
    if rhythm == "VPACE":
        main = _intervals(rng, rr_s, 0.0, 0.0005)
        return Timeline(main, np.zeros(0), None, ventricular_spikes=main - 0.012)
    if rhythm in ("APACE", "DPACE"):
        main = _intervals(rng, rr_s, 0.0, 0.0005)
        p = main - pr_s
        ventricular = main - 0.012 if rhythm == "DPACE" else np.zeros(0)
        return Timeline(main, p, pr_s, atrial_spikes=p - 0.014, ventricular_spikes=ventricular)
    youth = float(np.clip((75 - case.age_years) / 50, 0.15, 1.1))
    breathing = rng.uniform(0.1, 0.17) if rhythm == "SARRH" else rng.uniform(0.006, 0.035) * youth
    main = _intervals(rng, rr_s, float(breathing), 0.008)
    return Timeline(main, main - pr_s, pr_s)


def _flutter_beats(rng: np.random.Generator, atrial_hz: float, ratio: int) -> Floats:
    """Return complexes that stand at whole numbers of flutter cycles."""
    count = int((_END_S - _BEGIN_S) * atrial_hz) + 8
    ratios = np.full(count, ratio)
    if rng.random() < 0.35:
        ratios = rng.choice([max(ratio - 1, 2), ratio, ratio + 1, ratio + 2], count)
    times = _BEGIN_S + rng.uniform(-1, 0) + np.cumsum(ratios) / atrial_hz
    return np.asarray(times[times < _END_S])


def _with_ectopy(rng: np.random.Generator, case: Case, regular: Timeline, rr_s: float) -> Timeline:
    """Put one to three premature complexes into a regular rhythm."""
    if not case.ectopy:
        return regular
    timeline = regular
    wanted = int(rng.integers(1, 4))
    candidates = regular.main[(regular.main > 0.2) & (regular.main < DURATION_S - 2.1 * rr_s)]
    chosen: list[float] = []
    for before in rng.permutation(candidates):
        if len(chosen) < wanted and all(abs(before - other) > 2.3 * rr_s for other in chosen):
            chosen.append(float(before))
    add = _add_pvc if "PVC" in case.ectopy else _add_pac
    for before in sorted(chosen, reverse=True):
        timeline = add(rng, timeline, before)
    return timeline


def _add_pvc(rng: np.random.Generator, timeline: Timeline, before: float) -> Timeline:
    """Replace the complex after `before` by a premature ventricular one, with a full compensatory pause."""
    following = float(timeline.main[timeline.main > before + 0.02][0])
    pr_s = timeline.pr_s or 0.0
    early = before + (following - before) * rng.uniform(0.56, 0.7)
    return replace(
        timeline,
        main=_without(timeline.main, following),
        p=_without(timeline.p, following - pr_s),
        retrograde_p=timeline.retrograde_p[~_near(timeline.retrograde_p, following + 0.1, 0.03)],
        pvc=np.append(timeline.pvc, early),
        atrial_spikes=_without(timeline.atrial_spikes, following - pr_s - 0.014),
        ventricular_spikes=_without(timeline.ventricular_spikes, following - 0.012),
    )


def _add_pac(rng: np.random.Generator, timeline: Timeline, before: float) -> Timeline:
    """Bring the complex after `before` forward with a P wave of another shape; later ones move up with it."""
    following = float(timeline.main[timeline.main > before + 0.02][0])
    pr_s = timeline.pr_s or 0.14
    gap = following - before
    early = before + gap * rng.uniform(0.6, 0.72)
    shift = following - early - 0.12 * gap
    later_main = timeline.main > following + 0.01
    p = _without(timeline.p, following - pr_s)
    return replace(
        timeline,
        main=np.where(_near(timeline.main, following, 0.01), early, timeline.main - shift * later_main),
        p=p - shift * (p > following - pr_s),
        early_p=np.append(timeline.early_p - shift * (timeline.early_p > following), early - pr_s),
        pac=np.append(timeline.pac - shift * (timeline.pac > following), early),
    )


def _near(times: Floats, place: float, tolerance: float) -> NDArray[np.bool_]:
    return np.asarray(np.abs(times - place) < tolerance)


def _without(times: Floats, gone: float) -> Floats:
    return np.asarray(times[~_near(times, gone, 0.005)])


def _coupled(rng: np.random.Generator, rhythm: str, rr_s: float, pr_s: float) -> Timeline:
    """Every second (bigeminy) or third (trigeminy) complex is ventricular, at a fixed coupling."""
    sinus = _intervals(rng, rr_s, 0.01, 0.006)
    period = 2 if rhythm == "BIGU" else 3
    turn = np.arange(sinus.size) % period == period - 1
    coupling = rng.uniform(0.52, 0.64)
    kept = sinus[~turn]
    places = np.flatnonzero(turn)
    places = places[places > 0]
    pvc = sinus[places - 1] + coupling * rr_s
    return Timeline(kept, kept - pr_s, pr_s, pvc=pvc)


def _wandering(rng: np.random.Generator, rr_s: float, pr_s: float) -> Timeline:
    """Supraventricular arrhythmia: irregular atrial beats from several foci."""
    count = int((_END_S - _BEGIN_S) / (0.5 * rr_s)) + 3
    steps = rr_s * rng.choice([0.66, 0.8, 1.0, 1.12, 1.3], count, p=[0.2, 0.2, 0.25, 0.2, 0.15])
    times = _BEGIN_S + np.cumsum(steps * (1 + rng.normal(0, 0.02, count)))
    main = times[times < _END_S]
    other = rng.random(main.size) < 0.55
    pr = pr_s + rng.uniform(-0.02, 0.03, main.size)
    return Timeline(main, (main - pr)[~other], None, early_p=(main - pr)[other])


def _blocked(rng: np.random.Generator, case: Case, pr_s: float, rr_s: float) -> Timeline:
    """Second- and third-degree AV block."""
    if case.av == "3AVB":
        p = _intervals(rng, float(rng.uniform(0.62, 0.86)), 0.015, 0.008)
        return Timeline(_intervals(rng, rr_s, 0.0, 0.004), p, None)
    if case.av == "2AVB":
        p = _intervals(rng, rr_s / 2, 0.01, 0.006)
        return Timeline((p + pr_s)[::2], p, pr_s)
    p = _intervals(rng, rr_s, 0.01, 0.006)
    cycle = int(rng.integers(3, 6)) if case.av == "2AVB1" else int(rng.integers(3, 5))
    place = (np.arange(p.size) + int(rng.integers(cycle))) % cycle
    conducted = place < cycle - 1
    if case.av == "2AVB2":
        return Timeline((p + pr_s)[conducted], p, pr_s)
    # The first step of Wenckebach's lengthening is the largest.
    steps = np.array([0.0, 0.09, 0.135, 0.165, 0.185]) * min(rng.uniform(0.8, 1.2), 0.6 * rr_s / 0.4)
    intervals = pr_s + 0.02 + steps[place]
    return Timeline((p + intervals)[conducted], p, float(intervals[conducted].mean()))
