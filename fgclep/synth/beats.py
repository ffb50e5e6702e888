"""The shapes: P, QRS, ST and T of every conduction state, infarction, hypertrophy and ST-T pattern."""

from dataclasses import dataclass, replace

import numpy as np

from fgclep.synth.cases import Case
from fgclep.synth.measure import p_span, qrs_span
from fgclep.synth.repolarisation import repolarise
from fgclep.synth.territories import INFARCTS, pattern
from fgclep.synth.waves import NO_WAVES, Floats, Waves, dipole_waves, local_wave

# Fitted to the median normal beat of PTB-XL's NORM records (folds 1-9), 12 ms apart; local sources included.
_NORMAL_QRS = replace(
    dipole_waves(
        [
            (-24, 8.5, 8.5, (-0.040, -0.016, -0.125)),
            (-12, 8.5, 8.5, (0.200, 0.075, -0.130)),
            (0, 8.5, 8.5, (1.110, 0.545, 0.335)),
            (12, 8.5, 8.5, (0.030, 0.085, 0.410)),
            (24, 8.5, 8.5, (-0.125, 0.005, 0.175)),
            (38, 8.5, 9.5, (0.025, 0.000, 0.012)),
        ]
    ),
    local=np.array(
        [
            [-0.014, -0.002, -0.019, 0.010, 0.002, 0.001, -0.005, 0.001],
            [0.068, 0.009, 0.020, 0.048, -0.041, -0.032, 0.003, 0.042],
            [0.014, -0.003, 0.148, -0.153, 0.020, 0.071, 0.005, -0.042],
            [0.009, 0.004, 0.027, -0.045, 0.028, 0.003, -0.011, -0.007],
            [0.025, 0.006, 0.009, -0.007, 0.002, -0.006, 0.003, -0.012],
            [-0.007, -0.001, -0.009, 0.003, 0.003, 0.002, -0.004, -0.001],
        ]
    ).T,
)

_P = dipole_waves([(36, 15, 17, (0.045, 0.085, -0.060)), (68, 17, 17, (0.065, 0.060, 0.045))])
_P_LOCAL = np.array([[0.025, 0.010, 0, 0, 0, 0, 0, 0], [0.030, 0.012, 0, 0, 0, 0, 0, 0]]).T
_LAFB_START = dipole_waves([(-22, 8, 9, (-0.12, 0.26, -0.10))])
_LPFB_START = dipole_waves([(-22, 8, 9, (0.16, -0.26, -0.08))])


@dataclass(frozen=True)
class Beat:
    """One kind of beat. P has its own reference; the others refer to the middle of the QRS.

    Attributes:
        onset_s, j_s: measured QRS onset and end, from the QRS reference.
        p_onset_s, p_end_s: measured P onset and end, from the P reference; zeros without P.
        pr_s: PR interval of conducted beats.
    """

    p: Waves
    qrs: Waves
    st: Waves
    t: Waves
    u: Waves
    onset_s: float
    j_s: float
    p_onset_s: float
    p_end_s: float
    pr_s: float

    @property
    def repolarisation(self) -> Waves:
        """ST, T and U together."""
        return self.st.plus(self.t, self.u)


def _jitter(rng: np.random.Generator, waves: Waves, amount: float) -> Waves:
    """Vary each wave a little in size, place and direction."""
    count = waves.centre.size
    return replace(
        waves,
        centre=waves.centre + rng.normal(0, 0.0012, count),
        dipole=waves.dipole * (1 + rng.normal(0, amount, count)) + rng.normal(0, 0.015, (3, count)),
        local=waves.local * (1 + rng.normal(0, amount, (8, count))),
    )


def _normal_qrs(rng: np.random.Generator, case: Case) -> Waves:
    qrs = _jitter(rng, _NORMAL_QRS, 0.22).turned(rng.normal(4, 12), (0, 2))
    duration = rng.normal(1.1 if case.sex == "M" else 1.04, 0.07)
    # Chest electrodes differ in distance to the heart, most so the nearest ones.
    near = rng.lognormal([0, 0, 0, 0.14, 0.16, 0.06, 0, 0], [0, 0, 0.15, 0.25, 0.22, 0.18, 0.12, 0.1])
    qrs = replace(qrs, local=qrs.local + qrs.weights * (near[:, None] - 1))
    return qrs.stretched(float(np.clip(duration, 0.9, 1.24))).scaled(float(rng.lognormal(0.12, 0.3)))


def _frontal_axis(rng: np.random.Generator, case: Case) -> float | None:
    """Return the QRS axis to set, or None where the shape itself decides."""
    block = case.fascicle if case.fascicle != "none" else case.conduction
    if block == "LAFB":
        return float(rng.uniform(-72, -48))
    if block == "LPFB":
        return float(rng.uniform(102, 128))
    if case.hypertrophy == "RVH":
        return float(rng.uniform(98, 135))
    if block in ("CLBBB", "ILBBB", "WPW"):
        return float(rng.normal(5, 28))
    if case.hypertrophy.startswith("LVH"):
        return float(np.clip(rng.normal(12, 22), -29, 70))
    middle, spread = {"left": (-43, 8), "right": (112, 10), "extreme": (-125, 16)}.get(case.axis, (0, 0))
    if spread:
        low, high = {"left": (-65, -33), "right": (95, 140), "extreme": (-165, -97)}[case.axis]
        return float(np.clip(rng.normal(middle, spread), low, high))
    return float(np.clip(rng.normal(50 - 0.45 * (case.age_years - 40), 24), -24, 86))


def _right_bundle(rng: np.random.Generator, qrs: Waves, *, complete: bool) -> Waves:
    size = rng.uniform(0.8, 1.25)
    softer = replace(qrs, dipole=qrs.dipole * np.where(qrs.centre > 0.006, 0.55, 1.0))
    if complete:
        late = dipole_waves([(38, 14, 13, (-0.30, 0.02, -0.38)), (60, 15, 15, (-0.52, 0.00, -0.46))])
        return softer.plus(late.stretched(float(rng.uniform(0.95, 1.12))).scaled(size))
    late = dipole_waves([(44, 9, 10, (-0.24, -0.06, -0.42))])
    return softer.plus(late.stretched(float(rng.uniform(0.98, 1.14))).scaled(size))


def _left_bundle(rng: np.random.Generator, *, complete: bool) -> Waves:
    if complete:
        qrs = dipole_waves(
            [
                (-44, 12, 14, (0.20, 0.10, 0.20)),
                (-22, 13, 14, (0.58, 0.26, 0.62)),
                (2, 14, 15, (0.46, 0.18, 0.90)),
                (26, 13, 15, (0.58, 0.20, 0.86)),
                (48, 14, 14, (0.34, 0.04, 0.40)),
                (68, 14, 14, (0.06, 0.00, 0.10)),
            ]
        )
        stretch = rng.uniform(0.92, 1.12)
    else:
        qrs = dipole_waves(
            [
                (-28, 10, 11, (0.20, 0.14, 0.03)),
                (-6, 11, 11, (0.85, 0.42, 0.60)),
                (16, 11, 12, (0.35, 0.16, 0.62)),
                (34, 11, 11, (0.10, 0.02, 0.16)),
            ]
        )
        stretch = rng.uniform(0.92, 1.04)
    return _jitter(rng, qrs.stretched(float(stretch)), 0.10).scaled(float(rng.lognormal(0.12, 0.22)))


def ventricular_qrs(rng: np.random.Generator, kind: str) -> Waves:
    """Return a complex that starts in the ventricle.

    Args:
        kind: `apex` (paced from the right apex: left-bundle shape, upward axis), `right` (right outflow: left-bundle
            shape, downward axis), `left` (left ventricle: right-bundle shape).
    """
    shapes: dict[str, list[tuple[float, float, float, tuple[float, ...]]]] = {
        "apex": [(-38, 15, 16, (0.25, -0.30, 0.30)), (0, 17, 19, (0.70, -0.85, 0.80)), (36, 18, 19, (0.32, -0.6, 0.5))],
        "right": [(-38, 15, 16, (0.25, 0.4, 0.25)), (0, 18, 20, (0.55, 1.10, 0.75)), (38, 18, 20, (0.30, 0.5, 0.5))],
        "left": [(-38, 16, 16, (-0.1, 0.2, -0.45)), (0, 18, 20, (-0.55, 0.6, -0.8)), (38, 18, 20, (-0.6, 0.1, -0.4))],
    }
    shape = shapes[kind]
    turn = {"apex": 0.0, "right": 0.0, "left": float(rng.choice([0.0, -110.0]))}[kind]
    qrs = _jitter(rng, dipole_waves(shape), 0.12).turned(turn + rng.normal(0, 10))
    return qrs.stretched(float(rng.uniform(0.88, 1.1))).scaled(float(rng.lognormal(0.25, 0.22)))


def _pre_excited(rng: np.random.Generator, qrs: Waves) -> Waves:
    """Add a delta wave: slow early activation towards the left (type B) or the front (type A)."""
    direction = (0.26, 0.10, -0.30) if rng.random() < 0.5 else (0.42, 0.02, 0.22)
    # The slow upstroke must run into R without a dip, so the slurs grow towards it.
    slur = np.array(direction)
    rows = [(-52, 10, 13, 0.55 * slur), (-38, 11, 13, 1.0 * slur), (-24, 12, 13, 1.4 * slur), (-10, 11, 13, 1.0 * slur)]
    delta = dipole_waves(rows).scaled(float(rng.uniform(0.75, 1.15)))
    without_septum = replace(qrs, dipole=qrs.dipole * np.where(qrs.centre < -0.018, 0.1, 1.0))
    return replace(without_septum, local=qrs.local * np.where(qrs.centre < -0.005, 0.1, 1.0)).plus(delta)


def _hypertrophied(rng: np.random.Generator, qrs: Waves, kind: str) -> Waves:
    if kind.startswith("LVH"):
        growth = rng.uniform(1.75, 2.4)
        dipole = qrs.dipole * np.array([[1.0], [0.8], [1.0]]) * growth
        dipole[2] += 0.12 * growth * (np.abs(qrs.centre) < 0.016)
        return replace(qrs, dipole=dipole).stretched(float(rng.uniform(1.02, 1.15)))
    if kind == "RVH":
        front = dipole_waves([(6, 10, 11, (-0.55, 0.25, -1.05)), (26, 10, 11, (-0.55, 0.1, -0.10))])
        return replace(qrs.scaled(0.72), dipole=qrs.dipole * 0.72 * np.array([[0.75], [1], [0.45]])).plus(
            front.scaled(float(rng.uniform(0.85, 1.25)))
        )
    septal = dipole_waves([(-24, 7.5, 6.5, (-0.48, -0.22, -0.30))])
    return qrs.scaled(1.15).plus(septal.scaled(float(rng.uniform(0.8, 1.4))))


def _scarred(rng: np.random.Generator, qrs: Waves, case: Case) -> Waves:
    """Take away early forces from the infarcted region: Q waves there, weaker R."""
    depth = float(rng.uniform(0.32, 0.7)) * (0.55 if case.stage == "acute" and rng.random() < 0.5 else 1.0)
    for region in INFARCTS[case.infarct]:
        leads = pattern(region)
        loss = 1 - np.clip(leads, 0, 1)[:, None] * (0.75 if region in ("AS", "AN", "AL") else 0.45)
        early = (qrs.centre < 0.008)[None, :]
        weights = qrs.weights
        qrs = replace(qrs, local=qrs.local + np.where(early & (weights > 0), weights * (loss - 1), 0.0))
        if region == "PO":
            # The mirror image of an anterior Q: a broad tall R in V1-V3.
            qrs = qrs.plus(local_wave(6, 15, 18, -leads * (0.35 + 1.9 * depth)))
        else:
            qrs = qrs.plus(local_wave(-21, 10, 13, -leads * depth))
    return qrs


def _qrs(rng: np.random.Generator, case: Case) -> Waves:
    if case.ventricular:
        kind = "apex" if case.rhythm in ("VPACE", "DPACE") else str(rng.choice(["right", "left", "left"]))
        return ventricular_qrs(rng, kind)
    if case.conduction in ("CLBBB", "ILBBB"):
        qrs = _left_bundle(rng, complete=case.conduction == "CLBBB")
    else:
        qrs = _normal_qrs(rng, case)
    if case.hypertrophy != "none":
        qrs = _hypertrophied(rng, qrs, case.hypertrophy)
    axis = _frontal_axis(rng, case)
    block = case.fascicle if case.fascicle != "none" else case.conduction
    if block in ("LAFB", "LPFB"):
        start = _LAFB_START if block == "LAFB" else _LPFB_START
        main = replace(qrs, dipole=qrs.dipole * np.where(qrs.centre < -0.018, 0.3, 1.0))
        qrs = main.with_axis(axis or 0.0).stretched(1.06).plus(start.scaled(float(rng.uniform(0.8, 1.25))))
    elif axis is not None:
        qrs = qrs.with_axis(axis)
    if case.conduction in ("CRBBB", "IRBBB"):
        qrs = _right_bundle(rng, qrs, complete=case.conduction == "CRBBB")
    if case.conduction == "WPW":
        qrs = _pre_excited(rng, qrs)
    if case.conduction == "IVCD":
        slur = dipole_waves([(40, 12, 14, (-0.06, 0.12, 0.22)), (58, 13, 13, (0.05, -0.12, 0.16))])
        qrs = qrs.stretched(float(rng.uniform(1.12, 1.3))).plus(slur.scaled(float(rng.uniform(0.8, 1.3))))
    if case.poor_r:
        ahead = (qrs.weights[2:6] > 0) & (qrs.centre < 0.008)
        local = qrs.local.copy()
        local[2:6] -= np.where(ahead, qrs.weights[2:6] * np.array([[0.75], [0.75], [0.85], [0.5]]), 0.0)
        qrs = replace(qrs, local=local)
    if case.infarct != "none":
        qrs = _scarred(rng, qrs, case)
    return qrs


def _p(rng: np.random.Generator, case: Case) -> Waves:
    p = replace(_P, local=_P_LOCAL)
    if case.rhythm == "EAR":
        p = p.turned(float(rng.uniform(-150, -115)))
        p = replace(p, local=np.zeros_like(p.local))
    p = _jitter(rng, p, 0.12).scaled(float(rng.lognormal(0, 0.22)))
    if case.atria == "RAO":
        peaked = dipole_waves([(44, 16, 16, (0.04, 0.20, -0.07))])
        p = p.plus(peaked.scaled(float(rng.uniform(0.85, 1.25))))
    if case.atria == "LAO":
        late = dipole_waves([(98, 17, 16, (0.10, 0.07, 0.13))])
        p = p.plus(late.scaled(float(rng.uniform(0.85, 1.3))))
    return p.stretched(float(rng.uniform(0.9, 1.08)))


def _limited(qrs: Waves, most_mv: float) -> Waves:
    """Scale down a complex whose largest deflection no heart would give."""
    grid: Floats = np.arange(-0.06, 0.08, 0.004)
    return qrs.scaled(min(1.0, most_mv / float(np.abs(qrs.sample(grid)).max())))


def _lowered(qrs: Waves, voltage: str) -> Waves:
    """Scale leads down to low voltage: limb leads below 0.5 mV, chest leads below 1.0 mV peak to peak."""
    if voltage == "normal":
        return qrs
    grid: Floats = np.arange(-0.1, 0.12, 0.002)
    signal = qrs.sample(grid)
    size = np.ptp(signal, axis=1)
    third = float(np.ptp(signal[1] - signal[0]))
    factor = np.ones(8)
    if voltage in ("low", "low-limb"):
        factor[:2] = min(1.0, 0.40 / max(size[0], size[1], third))
    if voltage in ("low", "low-chest"):
        factor[2:] = min(1.0, 0.80 / size[2:].max())
    return replace(qrs, local=qrs.local + qrs.weights * (factor[:, None] - 1))


def build_beat(rng: np.random.Generator, case: Case, rr_s: float) -> Beat:
    """Return the record's main beat at its mean RR interval.

    Args:
        rng: source of this record's individual variation.
        case: what the record shall show.
        rr_s: mean RR interval in seconds, which sets QT.
    """
    qrs = _lowered(_limited(_qrs(rng, case), float(rng.uniform(2.6, 3.6))), case.voltage)
    p = _p(rng, case)
    if case.voltage in ("low", "low-limb"):
        p = p.scaled(0.75)
    onset_s, j_s = qrs_span(qrs)
    st, t, u = repolarise(rng, case, qrs, onset_s, j_s, rr_s)
    return Beat(p, qrs, st, t, u, onset_s, j_s, *p_span(p), _pr(rng, case, rr_s))


def _pr(rng: np.random.Generator, case: Case, rr_s: float) -> float:
    if case.av == "1AVB":
        return float(min(rng.uniform(0.215, 0.33), 0.55 * rr_s))
    if case.av == "SPR":
        return float(rng.uniform(0.096, 0.116))
    if case.conduction == "WPW":
        return float(rng.uniform(0.092, 0.116))
    usual = rng.normal(0.158 - 0.03 * (rr_s < 0.6), 0.016)
    return float(np.clip(usual + 0.012 * (case.atria == "LAO"), 0.124, 0.196))


def premature_beat(rng: np.random.Generator, rr_s: float) -> Beat:
    """Return a premature ventricular complex of its own shape."""
    qrs = ventricular_qrs(rng, str(rng.choice(["right", "left", "left"])))
    onset_s, j_s = qrs_span(qrs)
    st, t, u = repolarise(rng, Case("M", 50, rhythm="IDIO"), qrs, onset_s, j_s, max(rr_s, 0.7))
    return Beat(NO_WAVES, qrs, st, t, u, onset_s, j_s, 0.0, 0.0, 0.0)
