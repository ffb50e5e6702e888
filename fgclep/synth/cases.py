"""Choosing what a synthetic ECG has: one rhythm, one conduction state, and the changes that go with them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fgclep.synth.territories import INFARCTS, INJURIES, ISCHAEMIAS

NORMAL_FRACTION = 0.33
"""Share of records drawn without any abnormality (some more turn out normal because their change is too small)."""

VENTRICULAR_RHYTHMS = frozenset({"VPACE", "DPACE", "IDIO", "VTACH"})
"""Rhythms whose every complex starts in the ventricle, so conduction, ST-T and Q waves are not judged."""

_NEEDS_ROOM = frozenset({"BRUG", "ERP", "DIG", "HYPOK"})
_SLOW_ENOUGH_BPM = 105
"""Above this rate T covers the ST segment and these patterns cannot be told."""

_NO_ECTOPY = frozenset({"BIGU", "TRIGU", "SVTAC", "PSVT", "VTACH", "SVARR"})

NO_SINUS = VENTRICULAR_RHYTHMS | {"AFIB", "AFLT", "SVTAC", "PSVT", "JUNC"}
"""Rhythms without sinus P waves in front of every complex."""


@dataclass(frozen=True)
class Case:
    """The intended content of one record; what it really shows is measured afterwards.

    Attributes:
        rhythm: finding id of the rhythm (`DPACE`: atrial and ventricular pacing, `SR` also for rate and PR changes).
        av: `none`, `1AVB`, `SPR`, `2AVB1`, `2AVB2`, `2AVB` (2:1) or `3AVB`.
        conduction: finding id or `normal`.
        fascicle: a fascicular block that accompanies right bundle branch block, or `none`.
        infarct: finding id or `none`; `stage` is `acute`, `recent`, `old` or `aneurysm`.
        repolarisation: ST-T item or `normal`.
        qt: `LNGQT`, `SHQT` or `normal`; u_wave: whether one follows T.
        hypertrophy: `none`, `LVH`, `LVH-strain`, `RVH`, `SEHYP`.
        atria: `none`, `LAO`, `RAO`.
        voltage: `normal`, `low`, `low-limb`, `low-chest`.
        axis: `normal`, `left`, `right`, `extreme`.
        poor_r: weak R waves V1-V4 without infarction.
        artefacts: any of `NOISE`, `WANDER`, `LIMBREV`.
    """

    sex: str
    age_years: int
    rhythm: str = "SR"
    rate_bpm: float = 70.0
    av: str = "none"
    conduction: str = "normal"
    fascicle: str = "none"
    ectopy: tuple[str, ...] = ()
    infarct: str = "none"
    stage: str = "old"
    repolarisation: str = "normal"
    qt: str = "normal"
    u_wave: bool = False
    hypertrophy: str = "none"
    atria: str = "none"
    voltage: str = "normal"
    axis: str = "normal"
    poor_r: bool = False
    artefacts: tuple[str, ...] = ()

    @property
    def normal(self) -> bool:
        """Whether nothing but sinus rhythm and noise is intended."""
        plain = Case(self.sex, self.age_years, self.rhythm, self.rate_bpm, artefacts=self.artefacts)
        return self == plain and self.rhythm in ("SR", "SARRH") and "LIMBREV" not in self.artefacts

    @property
    def ventricular(self) -> bool:
        """Whether every complex starts in the ventricle."""
        return self.rhythm in VENTRICULAR_RHYTHMS or (self.av == "3AVB" and self.conduction == "IVCD")


_RHYTHMS: Mapping[str, float] = {
    "SR": 30, "SBRAD": 7, "STACH": 7, "SARRH": 5, "AFIB": 14, "AFLT": 4.5, "SVTAC": 3.6, "PSVT": 3.9, "SVARR": 3.6,
    "BIGU": 4, "TRIGU": 4, "JUNC": 4, "IDIO": 4.2, "VTACH": 4.2, "EAR": 4.8, "APACE": 3, "VPACE": 4, "DPACE": 2.4,
}  # fmt: skip
_AV: Mapping[str, float] = {
    "none": 55, "1AVB": 11, "SPR": 5, "2AVB1": 6.5, "2AVB2": 7.5, "2AVB": 2.5, "3AVB": 6,
}  # fmt: skip
_CONDUCTIONS: Mapping[str, float] = {
    "CRBBB": 8, "IRBBB": 8, "CLBBB": 7, "ILBBB": 6, "LAFB": 8, "LPFB": 6, "IVCD": 6, "WPW": 15,
}  # fmt: skip
_REPOLARISATIONS: Mapping[str, float] = {
    **dict.fromkeys(ISCHAEMIAS, 4.6), **dict.fromkeys(INJURIES, 5.0), "NST": 5.4, "NDT": 4.8, "LOWT": 1.5,
    "TALL": 2, "DIG": 6.2, "HYPERK": 3, "HYPOK": 3, "BRUG": 6, "ERP": 5.4,
}  # fmt: skip
_HYPERTROPHIES: Mapping[str, float] = {"LVH": 7, "LVH-strain": 7, "RVH": 9.5, "SEHYP": 12}
_ATRIA: Mapping[str, float] = {"LAO": 8, "RAO": 6}
_LOW_VOLTAGES: Mapping[str, float] = {"low": 5, "low-limb": 4, "low-chest": 3}
_AXES: Mapping[str, float] = {"left": 12, "right": 6, "extreme": 6}
_INFARCTS: Mapping[str, float] = dict.fromkeys(INFARCTS, 1.0) | {"IPMI": 1.25, "ALMI": 1.2, "PMI": 1.15}
_STAGES: Mapping[str, float] = {"acute": 30, "recent": 20, "old": 50}


def _pick(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    share = np.fromiter(weights.values(), dtype=float)
    return str(rng.choice(list(weights), p=share / share.sum()))


def _rate(rng: np.random.Generator, rhythm: str, av: str) -> float:
    """Draw the ventricular rate, or the atrial rate of 2AVB1 and 2AVB2, in beats per minute."""
    low, high = {
        "SBRAD": (38, 58), "STACH": (102, 150), "AFLT": (60, 160), "SVTAC": (130, 190),
        "PSVT": (155, 220), "JUNC": (38, 68), "IDIO": (30, 48), "VTACH": (125, 205), "SARRH": (54, 85),
        "EAR": (55, 95), "APACE": (60, 90), "VPACE": (60, 80), "DPACE": (60, 90), "SVARR": (70, 115),
        "BIGU": (62, 92), "TRIGU": (62, 95),
    }.get(rhythm, (61, 98))  # fmt: skip
    if av in ("2AVB1", "2AVB2"):
        low, high = 65, 92
    if av in ("2AVB", "3AVB"):
        low, high = 30, 50
    if rhythm == "AFIB":
        # Slow, usual and rapid responses alike, so that the slow ones are not lost in the tail.
        return float(
            rng.choice([rng.uniform(38, 58), rng.uniform(60, 100), rng.uniform(102, 165)], p=[0.24, 0.38, 0.38])
        )
    middle = (low + high) / 2
    return float(np.clip(rng.normal(middle - 0.08 * (high - low), (high - low) / 3.6), low, high))


def draw_case(rng: np.random.Generator, sex: str, age_years: int) -> Case:
    """Draw one case: about a third normal, the others with one to four abnormalities that can go together."""
    if rng.random() < NORMAL_FRACTION:
        rhythm = "SARRH" if rng.random() < 0.03 else "SR"
        return Case(sex, age_years, rhythm, _rate(rng, rhythm, "none"), artefacts=_artefacts(rng, 0.06))
    while True:
        case = _abnormal_case(rng, sex, age_years)
        if case is not None:
            return case


def _abnormal_case(rng: np.random.Generator, sex: str, age: int) -> Case | None:
    """Draw one abnormal case, or None where every draw fell on normal."""
    rhythm = _pick(rng, _RHYTHMS) if rng.random() < 0.68 else "SR"
    av = _pick(rng, _AV) if rng.random() < 0.75 and rhythm in ("SR", "SBRAD", "STACH") else "none"
    if av.startswith(("2", "3")):
        rhythm = "SR"
    rate_bpm = _rate(rng, rhythm, av)
    fields: dict[str, object] = {"rhythm": rhythm, "av": av, "rate_bpm": rate_bpm}
    ventricular = rhythm in VENTRICULAR_RHYTHMS
    if av == "3AVB" and rng.random() < 0.55:
        fields["conduction"], ventricular = "IVCD", True
    if not ventricular:
        fields.update(_structure(rng, rhythm, av))
        if rate_bpm > _SLOW_ENOUGH_BPM and fields.get("repolarisation") in _NEEDS_ROOM:
            fields["repolarisation"] = "normal"
    if rng.random() < 0.16 and rhythm not in _NO_ECTOPY and not av.startswith(("2", "3")):
        kinds = ("PVC",) if rhythm in NO_SINUS else ("PVC", "PAC")
        fields["ectopy"] = (str(rng.choice(kinds)),)
    if rng.random() < 0.06:
        fields["voltage"] = _pick(rng, _LOW_VOLTAGES)
    fields["artefacts"] = _artefacts(rng, 0.14, limb_reversal=rhythm == "SR" and av == "none" and not ventricular)
    case = Case(sex, age, **fields)  # type: ignore[arg-type]
    return None if case.normal else case


def _structure(rng: np.random.Generator, rhythm: str, av: str) -> dict[str, object]:
    """Draw conduction, infarction, ST-T, hypertrophy, atria and axis that can stand together."""
    fields: dict[str, object] = {}
    conduction = _pick(rng, _CONDUCTIONS) if rng.random() < 0.36 else "normal"
    if conduction == "WPW" and (rhythm not in ("SR", "SBRAD", "STACH") or av != "none"):
        conduction = "normal"
    if rhythm in ("SVTAC", "PSVT") and conduction not in ("IRBBB", "LAFB"):
        conduction = "normal"
    fields["conduction"] = conduction
    if conduction == "CRBBB" and rng.random() < 0.3:
        fields["fascicle"] = "LAFB" if rng.random() < 0.7 else "LPFB"
    if rhythm in ("SR", "SBRAD", "STACH", "BIGU", "TRIGU") and rng.random() < 0.16:
        fields["atria"] = _pick(rng, _ATRIA)
    if conduction not in ("CLBBB", "ILBBB", "WPW", "IVCD"):
        fields.update(_disease(rng, conduction))
    return fields


def _disease(rng: np.random.Generator, conduction: str) -> dict[str, object]:
    """Draw one of infarction, ST-T item or hypertrophy, then what goes with any of them."""
    fields: dict[str, object] = {}
    draw = rng.random()
    if draw < 0.315:
        fields["infarct"] = _pick(rng, _INFARCTS)
        fields["stage"] = _pick(rng, _STAGES)
        if fields["infarct"] in ("AMI", "ASMI") and rng.random() < 0.48:
            fields["stage"] = "aneurysm"
    elif draw < 0.84:
        fields["repolarisation"] = _pick(rng, _REPOLARISATIONS)
    elif conduction == "normal" and draw < 0.98:
        fields["hypertrophy"] = _pick(rng, _HYPERTROPHIES)
    if conduction == "normal" and "hypertrophy" not in fields:
        fields["poor_r"] = "infarct" not in fields and rng.random() < 0.05
        if rng.random() < 0.2:
            fields["axis"] = _pick(rng, _AXES)
    if fields.get("repolarisation") not in ("DIG", "HYPERK", "HYPOK") and rng.random() < 0.11:
        fields["qt"] = "LNGQT" if rng.random() < 0.55 else "SHQT"
    fields["u_wave"] = fields.get("repolarisation") == "HYPOK" or rng.random() < 0.05
    return fields


def _artefacts(rng: np.random.Generator, chance: float, *, limb_reversal: bool = False) -> tuple[str, ...]:
    found = [name for name in ("NOISE", "WANDER") if rng.random() < chance / 2]
    if limb_reversal and rng.random() < 0.09:
        found.append("LIMBREV")
    return tuple(found)
