"""From beats and onsets to the samples of the eight independent leads."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fgclep.synth.beats import Beat, premature_beat
from fgclep.synth.cases import Case
from fgclep.synth.rhythm import DURATION_S, Timeline
from fgclep.synth.waves import LEAD_FIELD, Floats, Waves, add_beats, dipole_waves

_ATRIAL_SPIKE = (-0.10, 0.35, 0.05)
_VENTRICULAR_SPIKE = (0.25, -0.70, -0.15)
# The right atrium lies under V1, so its waves fade quickly towards V3.
_NEAR_V1: Floats = np.array([0, 0, 0.7, 0.3, 0.1, 0, 0, 0])


def render(rng: np.random.Generator, case: Case, beat: Beat, timeline: Timeline, fs_hz: int) -> NDArray[np.float32]:
    """Draw the noise-free record.

    Args:
        rng: breathing, the shape of premature complexes and the fibrillation waves.
        fs_hz: sampling rate; the Gaussians are evaluated at its instants, nothing is resampled.

    Returns:
        mV, float32, shape (8, 10 s of samples), independent leads.
    """
    canvas = np.zeros((8, round(DURATION_S * fs_hz)), dtype=np.float32)
    breath_hz, phase, depth = rng.uniform(0.16, 0.32), rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.05)

    def draw(waves: Waves, times: Floats, stretch: Floats | None = None) -> None:
        breathing = 1 + depth * np.sin(2 * np.pi * breath_hz * times + phase)
        add_beats(canvas, fs_hz, 0.0, waves, times, np.ones_like(times) if stretch is None else stretch, breathing)

    kinds = [(beat, timeline.main)]
    if timeline.pvc.size:
        kinds.append((premature_beat(rng, float(np.median(np.diff(timeline.main)))), timeline.pvc))
    for kind, onsets in kinds:
        middle = onsets - kind.onset_s
        draw(kind.qrs, middle)
        draw(kind.repolarisation, middle, _qt_adaptation(onsets))
    draw(beat.p, timeline.p - beat.p_onset_s)
    draw(_other_p(beat.p), timeline.early_p - beat.p_onset_s)
    draw(beat.p.turned(170).scaled(0.8), timeline.retrograde_p - beat.p_onset_s)
    draw(_spike(_ATRIAL_SPIKE, fs_hz), timeline.atrial_spikes)
    draw(_spike(_VENTRICULAR_SPIKE, fs_hz), timeline.ventricular_spikes)
    if case.rhythm == "AFIB":
        canvas += _fibrillation(rng, fs_hz)
    if timeline.flutter_hz is not None:
        canvas += _flutter(rng, timeline.flutter_hz, float(timeline.main[0]), fs_hz)
    return canvas


def _qt_adaptation(onsets: Floats) -> Floats:
    """Return each beat's repolarisation time factor: QT follows the RR before it, slowly."""
    if onsets.size < 2:
        return np.ones_like(onsets)
    rr = np.diff(onsets, prepend=onsets[0] - np.median(np.diff(onsets)))
    mean = np.median(rr)
    return np.asarray(np.clip(np.sqrt((0.8 * mean + 0.2 * rr) / mean), 0.93, 1.05))


def _other_p(p: Waves) -> Waves:
    """Return the P wave of another atrial focus."""
    turned = p.turned(-75)
    return replace(turned.scaled(0.9), local=p.local * 0.3)


def _spike(dipole: tuple[float, float, float], fs_hz: int) -> Waves:
    """Return a pacing stimulus as a recorder of this rate shows it: slower rates make it lower and wider."""
    width_ms = max(1.0, 400 / fs_hz)
    return dipole_waves([(0, width_ms, width_ms, dipole)]).scaled(1.0 if fs_hz >= 400 else 0.55)


def _fibrillation(rng: np.random.Generator, fs_hz: int) -> NDArray[np.float32]:
    """Return fibrillatory waves: three wandering oscillations, largest in V1 and II."""
    coarse = np.arange(0, DURATION_S + 0.05, 0.05)
    fine = np.arange(round(DURATION_S * fs_hz)) / fs_hz
    size = rng.lognormal(np.log(0.055), 0.4)
    waves = []
    for hz in rng.uniform([4.8, 5.6, 6.4], [6.4, 7.4, 8.8]):
        wander = np.cumsum(hz + rng.normal(0, 0.7, coarse.size)) * 0.05
        swell = 1 + 0.45 * np.sin(2 * np.pi * rng.uniform(0.2, 0.6) * coarse + rng.uniform(0, 2 * np.pi))
        phase = 2 * np.pi * np.interp(fine, coarse, wander)
        waves.append(np.interp(fine, coarse, swell) * np.sin(phase + 0.35 * np.sin(phase)))
    dipole = np.array([[0.05], [0.45], [-0.25]]) + rng.normal(0, 0.15, (3, 3))
    leads = LEAD_FIELD @ dipole + _NEAR_V1[:, None] * rng.uniform(0.3, 1.1)
    return np.asarray(leads * size @ np.array(waves), dtype=np.float32)


def _flutter(rng: np.random.Generator, hz: float, start_s: float, fs_hz: int) -> NDArray[np.float32]:
    """Return flutter waves: a sawtooth, negative in the inferior leads and positive in V1."""
    fine = np.arange(round(DURATION_S * fs_hz)) / fs_hz
    phase = 2 * np.pi * (hz * (fine - start_s) + rng.uniform(0, 1))
    saw = sum(np.sin(k * phase) / k**1.25 for k in range(1, 5))
    size = rng.uniform(0.09, 0.19)
    in_front = np.sin(phase + 0.6) + 0.3 * np.sin(2 * phase)
    inferior = LEAD_FIELD @ (np.array([0.03, 1.0, 0.05]) * size)
    signal = np.outer(inferior, saw) + np.outer(_NEAR_V1 * size, in_front)
    return np.asarray(signal, dtype=np.float32)
