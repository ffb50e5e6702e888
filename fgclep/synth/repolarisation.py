"""ST segment, T and U waves of every state."""

from dataclasses import replace

import numpy as np

from fgclep.synth.cases import Case
from fgclep.synth.territories import INFARCTS, INJURIES, ISCHAEMIAS, pattern
from fgclep.synth.waves import LEAD_FIELD, NO_WAVES, Floats, Waves, local_wave

_T_DIPOLE: Floats = np.array([0.275, 0.150, -0.180])
_T_LOCAL: Floats = np.array([0.075, 0.023, -0.073, 0.105, -0.030, -0.060, -0.030, 0.045])
_DIGITALIS: Floats = np.array([0.5, 0.8, -0.2, 0.1, 0.5, 0.9, 1.0, 0.9])
_EARLY: Floats = np.array([0.3, 0.6, 0.2, 1.0, 1.1, 1.0, 0.8, 0.5])
_COVED: Floats = np.array([0.0, 0.0, 0.9, 1.0, 0.3, 0.0, 0.0, 0.0])
_U: Floats = np.array([0.15, 0.45, 0.3, 0.95, 1.0, 0.8, 0.5, 0.3])


def repolarise(
    rng: np.random.Generator, case: Case, qrs: Waves, onset: float, j: float, rr_s: float
) -> tuple[Waves, Waves, Waves]:
    """Return ST, T and U waves for a QRS.

    Args:
        rng: source of individual variation.
        case: what the record shall show.
        qrs: the depolarisation the repolarisation follows.
        onset, j: measured begin and end of `qrs`, seconds from its reference.
        rr_s: mean RR interval in seconds.
    """
    qt_s = _qt(rng, case, j - onset, rr_s)
    jt = onset + qt_s - j
    t8 = LEAD_FIELD @ _t_dipole(rng, case, qrs) + _t_local(rng, case)
    st8, t8 = _regional(rng, case, t8)
    narrow = 0.55 if case.repolarisation == "HYPERK" else 1.0
    right = 0.155 * jt * narrow
    left = right * (1.1 if case.repolarisation == "HYPERK" else 1.45)
    peak = onset + qt_s - 2 * right
    t = local_wave(1000 * peak, 1000 * left, 1000 * right, t8)
    return _st_waves(rng, case, j, jt, st8), t, _u_wave(rng, case, onset + qt_s, rr_s)


def _qt(rng: np.random.Generator, case: Case, qrs_s: float, rr_s: float) -> float:
    """Draw QT (s) by way of Bazett's QTc; never so long that T would run into the next complex."""
    ranges = {"LNGQT": (0.492, 0.58), "SHQT": (0.296, 0.338), "DIG": (0.358, 0.388), "HYPOK": (0.43, 0.475)}
    reason = case.qt if case.qt != "normal" else case.repolarisation
    if reason in ranges:
        qtc = rng.uniform(*ranges[reason])
    else:
        qtc = float(np.clip(rng.normal(0.412 + 0.008 * (case.sex == "F"), 0.016), 0.366, 0.448))
        qtc += 0.75 * max(qrs_s - 0.11, 0.0)
    return float(min(qtc * np.sqrt(rr_s), 0.86 * rr_s + 0.02, 0.62))


def _net_direction(qrs: Waves) -> Floats:
    area = qrs.dipole @ (qrs.left + qrs.right)
    return np.asarray(area / np.linalg.norm(area))


def _t_dipole(rng: np.random.Generator, case: Case, qrs: Waves) -> Floats:
    size = rng.lognormal(0, 0.3) * (0.9 if case.sex == "F" else 1.08)
    swing, tilt = rng.normal(0, 0.24), rng.normal(0, 0.2)
    x, y, z = _T_DIPOLE * size
    usual = np.array([x * np.cos(tilt) - y * np.sin(tilt), y * np.cos(tilt) + x * np.sin(tilt), z + 0.3 * swing * x])
    away = -_net_direction(qrs)
    if case.ventricular or case.conduction == "CLBBB":
        return np.asarray(away * rng.uniform(0.36, 0.6))
    if case.conduction == "ILBBB":
        return np.asarray(0.4 * usual + away * rng.uniform(0.08, 0.25))
    if case.conduction == "WPW":
        return np.asarray(0.45 * usual + away * rng.uniform(0.05, 0.28))
    if case.conduction == "CRBBB":
        return np.asarray(usual + np.array([0.05, 0.0, rng.uniform(0.17, 0.3)]))
    if case.hypertrophy == "LVH-strain":
        return np.array([rng.uniform(-0.34, -0.2), rng.uniform(-0.06, 0.06), rng.uniform(-0.38, -0.22)])
    if case.hypertrophy == "RVH":
        return np.array([0.24, rng.uniform(-0.12, 0.08), rng.uniform(0.14, 0.34)])
    return usual


def _t_local(rng: np.random.Generator, case: Case) -> Floats:
    strange = case.ventricular or case.conduction in ("CLBBB", "WPW") or case.hypertrophy in ("LVH-strain", "RVH")
    size = 0.0 if strange else (0.65 if case.sex == "F" else 1.0)
    return np.asarray(size * _T_LOCAL * rng.lognormal(0, 0.2) + rng.normal(0, 0.012, 8))


def _inverted(t8: Floats, region: Floats, depth: float) -> Floats:
    return np.asarray(t8 * (1 - np.clip(np.abs(region), 0, 1)) - depth * region)


def _regional(rng: np.random.Generator, case: Case, t8: Floats) -> tuple[Floats, Floats]:
    """Return ST level and T amplitude per independent lead after regional and diffuse changes."""
    st8 = 0.28 * t8 if case.ventricular or case.conduction == "CLBBB" else np.zeros(8)
    if case.hypertrophy in ("LVH-strain", "RVH"):
        st8 = st8 + 0.3 * np.where(t8 < 0, t8, 0.35 * t8)
    if case.infarct != "none":
        for name in INFARCTS[case.infarct]:
            st8, t8 = _infarcted(rng, case.stage, name, st8, t8)
        return st8, t8
    item = case.repolarisation
    if item in ISCHAEMIAS:
        region = pattern(ISCHAEMIAS[item])
        if rng.random() < 0.6:
            st8 = st8 - rng.uniform(0.05, 0.12) * region
        return st8, _inverted(t8, region, rng.uniform(0.26, 0.6))
    if item in INJURIES:
        region = pattern(INJURIES[item])
        return st8 - rng.uniform(0.16, 0.34) * region, t8 * (1 - 0.6 * np.clip(region, 0, 1))
    return _diffuse(rng, item, st8, t8)


def _infarcted(rng: np.random.Generator, stage: str, region: str, st8: Floats, t8: Floats) -> tuple[Floats, Floats]:
    leads = pattern(region)
    if stage == "acute":
        level = rng.uniform(0.17, 0.42)
        return st8 + level * leads, t8 + (0.8 if region != "PO" else -0.5) * level * leads
    if region == "PO":
        return st8, t8 - rng.uniform(0.05, 0.3) * leads
    if stage == "recent":
        return st8 + rng.uniform(0.03, 0.12) * leads, _inverted(t8, leads, rng.uniform(0.22, 0.5))
    if stage == "aneurysm":
        return st8 + rng.uniform(0.2, 0.34) * leads, _inverted(t8, leads, rng.uniform(0.05, 0.22))
    return st8, t8 * (1 - rng.uniform(0, 0.9) * np.clip(leads, 0, 1)) - rng.choice([0.0, 0.15]) * leads


def _diffuse(rng: np.random.Generator, item: str, st8: Floats, t8: Floats) -> tuple[Floats, Floats]:
    if item == "NST":
        return st8 - rng.uniform(0.07, 0.105) * pattern(str(rng.choice(["LA", "IL", "AL"]))), t8 * 0.7
    if item == "NDT":
        region = pattern(str(rng.choice(["LA", "IL", "AL", "IN"])))
        return st8, _inverted(t8, region, rng.uniform(0.03, 0.15))
    if item == "LOWT":
        return st8, t8 * min(0.09 / np.abs(t8).max(), 0.3)
    if item == "TALL":
        return st8 + 0.05 * _EARLY, t8 * rng.uniform(1.3, 1.6) + 0.75 * _EARLY * rng.uniform(0.8, 1.2)
    if item == "HYPERK":
        return st8, t8 * rng.uniform(1.5, 2.0) + 0.7 * _EARLY * rng.uniform(0.7, 1.3)
    if item == "HYPOK":
        return st8 - rng.uniform(0.05, 0.1) * _DIGITALIS, t8 * rng.uniform(0.12, 0.3)
    if item == "DIG":
        return st8 - rng.uniform(0.1, 0.19) * _DIGITALIS, t8 * rng.uniform(0.35, 0.65)
    if item == "BRUG":
        return st8 + rng.uniform(0.22, 0.36) * _COVED, _inverted(t8, _COVED, rng.uniform(0.18, 0.36))
    if item == "ERP":
        return st8 + rng.uniform(0.12, 0.22) * _EARLY, t8 * rng.uniform(1.15, 1.6)
    return st8, t8


def _st_waves(rng: np.random.Generator, case: Case, j: float, jt: float, st8: Floats) -> Waves:
    """Draw an ST level (mV at J + 60 ms) as two waves, shaped by its cause."""
    if not st8.any():
        return NO_WAVES
    ms = 1000 * j
    pace = min(jt / 0.3, 1.3)
    if case.repolarisation == "BRUG":
        return local_wave(ms + 4, 11, 54 * pace, st8 / 0.6)
    if case.repolarisation == "DIG":
        return local_wave(ms + 75 * pace, 42, 48 * pace, st8)
    plateau = local_wave(ms + 45, 28, 45 * pace, st8 / 1.38).plus(
        local_wave(ms + 110 * pace, 45 * pace, 45 * pace, 0.8 * st8 / 1.38)
    )
    if case.repolarisation == "ERP":
        notch = rng.uniform(0.1, 0.2) * np.array([0.6, 1.0, 0.0, 0.2, 0.4, 0.8, 1.0, 0.9])
        return plateau.plus(local_wave(ms + 8, 7, 8, notch))
    return plateau


def _u_wave(rng: np.random.Generator, case: Case, t_end_s: float, rr_s: float) -> Waves:
    """Draw a U wave after T where the case asks for one and diastole leaves room."""
    size = rng.uniform(0.14, 0.28) if case.repolarisation == "HYPOK" else rng.uniform(0.11, 0.22)
    if not case.u_wave or rr_s < 0.72:
        return NO_WAVES
    wave = local_wave(1000 * t_end_s + 45, 30, 36, size * _U)
    return replace(wave, local=wave.local * rng.lognormal(0, 0.1, (8, 1)))
