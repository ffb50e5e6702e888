"""What a record shows: finding ids and their leads, from measurements wherever a measurement decides.

Conventions: aVR is never listed. ST is judged at J + 60 ms (elevated from 0.10 mV, 0.15 mV in V2-V3; depressed
from -0.05 mV), T inverted from -0.10 mV and tall from 0.5 mV (limb) or 1.0 mV (chest), Q from 30 ms and 0.10 mV.
Q waves are not judged where the complex starts abnormally (ventricular rhythms, LBBB, WPW). Per-lead and
per-territory ST and T findings name what is seen; the global ones (STE, STD, INVT, TAB) leave out changes that
merely follow an abnormal complex.
"""

from dataclasses import dataclass

import numpy as np

from fgclep.record import Measurements
from fgclep.synth.beats import Beat
from fgclep.synth.cases import Case
from fgclep.synth.measure import LeadShape, lead_shapes, t_end
from fgclep.synth.rhythm import DURATION_S, Timeline
from fgclep.synth.territories import ANTERIOR, INFARCTS, INFERIOR, INJURIES, ISCHAEMIAS, LATERAL
from fgclep.synth.waves import TO_TWELVE, Floats, Waves

Truth = dict[str, tuple[str, ...]]

LIMB = ("I", "II", "III", "aVL", "aVF")
CHEST = ("V1", "V2", "V3", "V4", "V5", "V6")
_JUDGED = LIMB + CHEST
_TERRITORIES = {"ANT": ANTERIOR, "INF": INFERIOR, "LAT": LATERAL}
_AREA = {"AS": "ANT", "AN": "ANT", "AL": "ANT", "LA": "LAT", "IN": "INF", "IL": "INF", "PO": "ANT"}
_ARMS_SWAPPED: Floats = np.eye(8)
_ARMS_SWAPPED[:2, :2] = [[-1, 0], [-1, 1]]


@dataclass(frozen=True)
class Reading:
    """Everything measured on one noise-free record.

    Attributes:
        leads: shape of the main beat in each displayed lead.
        measurements: global intervals and axes.
        p_duration_ms, p_in_ii_mv: P wave of the main beat; 0 without P waves.
        u_mv: U amplitude per lead.
        rr_spread_s: longest minus shortest RR inside the record.
        sinus_rate_bpm: from the median PP interval; 0 without P waves.
    """

    leads: dict[str, LeadShape]
    measurements: Measurements
    p_duration_ms: float
    p_in_ii_mv: float
    u_mv: dict[str, float]
    rr_spread_s: float
    sinus_rate_bpm: float


def lead_matrix(case: Case) -> Floats:
    """Return the (12, 8) matrix from the true independent leads to the displayed twelve."""
    return TO_TWELVE @ _ARMS_SWAPPED if "LIMBREV" in case.artefacts else TO_TWELVE


def read_record(case: Case, beat: Beat, timeline: Timeline) -> Reading:
    """Measure one record before noise is added."""
    matrix = lead_matrix(case)
    rr = np.diff(timeline.complexes)
    mean_rr = float(rr.mean())
    has_p = timeline.p.size > 0
    qt_ms = 1000 * (t_end(beat.t) - beat.onset_s)
    leads = lead_shapes(beat.qrs, (beat.onset_s, beat.j_s), beat.repolarisation, beat.t, matrix)
    grid = np.arange(0, 1.0, 0.004)
    measurements = Measurements(
        heart_rate_bpm=60 / mean_rr,
        rr_interval_ms=1000 * mean_rr,
        pr_interval_ms=None if timeline.pr_s is None else 1000 * timeline.pr_s,
        qrs_duration_ms=1000 * (beat.j_s - beat.onset_s),
        qt_interval_ms=qt_ms,
        qtc_ms=qt_ms / mean_rr**0.5,
        p_axis_deg=_axis(beat.p, matrix) if has_p else None,
        qrs_axis_deg=_axis(beat.qrs, matrix),
        t_axis_deg=_axis(beat.t, matrix),
    )
    u = (matrix @ beat.u.sample(grid)).max(axis=1)
    pp = np.diff(timeline.p[(timeline.p > 0) & (timeline.p < DURATION_S)])
    return Reading(
        leads,
        measurements,
        1000 * (beat.p_end_s - beat.p_onset_s) if has_p else 0.0,
        float((matrix @ beat.p.sample(grid))[1].max()) if has_p else 0.0,
        {lead: float(u[row]) for row, lead in enumerate(leads)},
        float(np.ptp(rr)),
        float(60 / np.median(pp)) if pp.size else 0.0,
    )


def _axis(waves: Waves, matrix: Floats) -> float:
    area = (matrix @ waves.weights)[[0, 5]] @ (waves.left + waves.right)
    return float(np.degrees(np.arctan2(2 * area[1] / np.sqrt(3), area[0])))


def find_truth(case: Case, timeline: Timeline, reading: Reading) -> Truth:
    """Return every finding the record shows, with the leads that show it (empty: global)."""
    truth: Truth = {}
    _add_leads(truth, case, reading)
    _add_rhythm(truth, case, timeline, reading)
    _add_conduction(truth, case, reading)
    _add_voltage(truth, case, reading)
    _add_ischaemia(truth, case, reading)
    _add_repolarisation(truth, case, reading)
    truth.update(dict.fromkeys(case.artefacts, ()))
    _add_groups(truth)
    return truth


def _add_leads(truth: Truth, case: Case, reading: Reading) -> None:
    """Add per-lead findings and what follows for the territories."""
    starts_normally = not case.ventricular and case.conduction not in ("CLBBB", "ILBBB", "WPW")
    shown: dict[str, list[str]] = {kind: [] for kind in ("STE", "STD", "TINV", "TTALL", "Q", "U")}
    for lead in _JUDGED:
        shape = reading.leads[lead]
        tests = {
            "STE": shape.st_mv >= (0.15 if lead in ("V2", "V3") else 0.10),
            "STD": shape.st_mv <= -0.05,
            "TINV": shape.t_mv <= -0.10,
            "TTALL": shape.t_mv >= (0.5 if lead in LIMB else 1.0),
            "Q": starts_normally and _pathologic_q(lead, reading.leads),
            "U": reading.u_mv[lead] >= 0.05,
        }
        for kind, found in tests.items():
            if found:
                shown[kind].append(lead)
                truth[f"{kind}@{lead}"] = (lead,)
    for kind in ("STE", "STD", "TINV", "Q"):
        for name, territory in _TERRITORIES.items():
            # V1 alone may be negative in health, so an anterior inversion is counted from V2 on.
            counted = territory[1:] if (kind, name) == ("TINV", "ANT") else territory
            if sum(lead in shown[kind] for lead in counted) >= 2:
                truth[f"{kind}_{name}"] = tuple(lead for lead in territory if lead in shown[kind])
    if not _secondary(case):
        for kind, name in (("STE", "STE"), ("STD", "STD"), ("TINV", "INVT")):
            if any(f"{kind}_{area}" in truth for area in _TERRITORIES):
                truth[name] = tuple(shown[kind])
    if any(f"Q_{area}" in truth for area in _TERRITORIES):
        truth["QWAVE"] = tuple(shown["Q"])
    if len(shown["TTALL"]) >= 2 and not _secondary(case):
        truth["TTALL"] = tuple(shown["TTALL"])
    if len(shown["U"]) >= 2:
        truth["UWAVE"] = tuple(shown["U"])


def _pathologic_q(lead: str, leads: dict[str, LeadShape]) -> bool:
    """Return whether a lead's Q is pathological; one in III or aVL alone is not."""
    shape = leads[lead]
    if lead == "V1":
        return shape.q_depth_mv >= 0.1 and shape.r_mv < 0.05
    long = 20 if lead in ("V2", "V3") else 30
    if shape.q_depth_mv < max(0.1, 0.15 * shape.r_mv) or shape.q_duration_ms < long:
        return False
    neighbours = {"III": ("II", "aVF"), "aVL": ("I",)}.get(lead, ())
    return not neighbours or any(_pathologic_q(other, leads) for other in neighbours)


def _secondary(case: Case) -> bool:
    return case.ventricular or case.conduction in ("CLBBB", "WPW")


def _add_rhythm(truth: Truth, case: Case, timeline: Timeline, reading: Reading) -> None:
    rhythm = case.rhythm
    rate = reading.measurements.heart_rate_bpm or 0.0
    names: list[str] = []
    if rhythm in ("SR", "SBRAD", "STACH", "SARRH", "BIGU", "TRIGU"):
        names += _sinus(case, reading)
    if rhythm in ("BIGU", "TRIGU", "AFIB", "AFLT", "SVTAC", "PSVT", "SVARR", "JUNC", "IDIO", "VTACH", "EAR"):
        names.append(rhythm)
    if rhythm == "AFIB" and not 60 <= rate <= 100:
        names.append("AFIB_RVR" if rate > 100 else "AFIB_SVR")
    if rhythm in ("APACE", "VPACE", "DPACE"):
        names += ["PACE"] + ["APACE"] * (rhythm != "VPACE") + ["VPACE"] * (rhythm != "APACE")
    inside = {"PVC": timeline.pvc, "PAC": timeline.pac}
    found = [name for name, times in inside.items() if ((times > 0.1) & (times < DURATION_S - 0.2)).any()]
    if rhythm == "SVARR":
        found.append("PAC")
    names += found + ["PRC"] * bool(found)
    names += {"2AVB1": ["2AVB", "2AVB1"], "2AVB2": ["2AVB", "2AVB2"], "2AVB": ["2AVB"], "3AVB": ["3AVB"]}.get(
        case.av, []
    )
    pr = reading.measurements.pr_interval_ms
    if pr is not None and case.av != "2AVB1":
        names += ["1AVB", "LPR"] if pr > 200 else ["SPR"] if pr < 120 else []
    if any(name in names for name in ("1AVB", "2AVB", "3AVB")):
        names.append("AVB")
    truth.update(dict.fromkeys(names, ()))


def _sinus(case: Case, reading: Reading) -> list[str]:
    rate = reading.sinus_rate_bpm
    by_rate = "SBRAD" if rate < 60 else "STACH" if rate > 100 else "SR"
    if case.rhythm in ("BIGU", "TRIGU"):
        return ["SR"]
    if case.av == "none" and not case.ectopy and reading.rr_spread_s > 0.16:
        return ["SARRH"] if by_rate == "SR" else ["SARRH", by_rate]
    return [by_rate]


def _add_conduction(truth: Truth, case: Case, reading: Reading) -> None:
    duration = reading.measurements.qrs_duration_ms or 0.0
    axis = reading.measurements.qrs_axis_deg or 0.0
    names: list[str] = []
    if not case.ventricular:
        wide = duration >= 120
        names += {
            "CRBBB": ["CRBBB" if wide else "IRBBB"],
            "IRBBB": ["CRBBB" if wide else "IRBBB"],
            "CLBBB": ["CLBBB" if wide else "ILBBB"],
            "ILBBB": ["CLBBB" if wide else "ILBBB"],
            "IVCD": ["IVCD"] if duration >= 110 else [],
            "normal": [],
        }.get(case.conduction, [case.conduction])
        if case.fascicle != "none":
            names.append(case.fascicle)
    if "LAFB" in names or "LPFB" in names:
        names.append("LAFB_LPFB")
    if -30 <= axis <= 90:
        names.append("NAXIS")
    elif -90 <= axis < -30:
        names.append("LAXIS")
    else:
        names.append("RAXIS" if axis > 0 else "XAXIS")
    truth.update(dict.fromkeys(names, ()))


def _add_voltage(truth: Truth, case: Case, reading: Reading) -> None:
    leads = reading.leads
    limits = ((LIMB, 0.5), (CHEST, 1.0))
    low = [group for group, limit in limits if all(leads[lead].peak_to_peak_mv < limit for lead in group)]
    if low and not _secondary(case):
        truth["LVOLT"] = tuple(lead for group in low for lead in group)
    names: list[str] = []
    if not case.ventricular and case.conduction in ("normal", "LAFB", "IRBBB") and "LIMBREV" not in case.artefacts:
        sokolow = leads["V1"].s_mv + max(leads["V5"].r_mv, leads["V6"].r_mv)
        cornell = leads["aVL"].r_mv + leads["V3"].s_mv
        if (sokolow >= 3.5 and case.age_years >= 35) or cornell >= (2.8 if case.sex == "M" else 2.0):
            names.append("VCLVH")
        if sokolow >= 4.5 or max(leads["I"].r_mv, leads["II"].r_mv, leads["aVF"].r_mv) >= 2.2:
            names.append("HVOLT")
        if case.hypertrophy.startswith("LVH") and "VCLVH" in names:
            names.append("LVH")
        if case.hypertrophy == "RVH" and leads["V1"].r_mv >= max(0.5, leads["V1"].s_mv):
            names.append("RVH")
        if case.hypertrophy == "SEHYP":
            names.append("SEHYP")
        if leads["V3"].r_mv < 0.3 and "LVOLT" not in truth and case.hypertrophy == "none":
            names.append("PRWP")
    if case.rhythm != "EAR":
        names += ["LAO"] * (reading.p_duration_ms >= 120) + ["RAO"] * (reading.p_in_ii_mv >= 0.25)
    truth.update(dict.fromkeys(names, ()))


def _add_ischaemia(truth: Truth, case: Case, reading: Reading) -> None:
    """Add infarction, ischaemia and injury where the measured beat bears the intention out."""
    seen = {kind: sum(name.startswith(f"{kind}@") for name in truth) for kind in ("STD", "TINV")}
    if case.infarct in INFARCTS:
        areas = {_AREA[region] for region in INFARCTS[case.infarct] if region != "PO"}
        marked = any(f"{kind}_{area}" in truth for kind in ("Q", "STE") for area in areas)
        posterior = "STD_ANT" in truth or any(reading.leads[x].r_mv >= reading.leads[x].s_mv for x in ("V1", "V2"))
        if marked or ("PRWP" in truth and areas == {"ANT"}) or (case.infarct == "PMI" and posterior):
            truth[case.infarct] = ()
        if case.stage == "aneurysm" and "STE_ANT" in truth:
            truth["ANEUR"] = truth["STE_ANT"]
    if case.repolarisation in ISCHAEMIAS and max(seen["TINV"], seen["STD"]) >= 2:
        truth[case.repolarisation] = ()
    if case.repolarisation in INJURIES and seen["STD"] >= 2:
        truth[case.repolarisation] = ()


def _add_repolarisation(truth: Truth, case: Case, reading: Reading) -> None:
    item = case.repolarisation
    names: list[str] = []
    values = reading.measurements
    qtc, duration = values.qtc_ms or 0.0, values.qrs_duration_ms or 0.0
    if duration < 120 and not case.ventricular:
        names += ["LNGQT"] if qtc > (460 if case.sex == "M" else 470) else ["SHQT"] if qtc < 350 else []
    if not _secondary(case):
        flat = [x for x in ("I", "II", "V3", "V4", "V5", "V6") if abs(reading.leads[x].t_mv) < 0.1]
        if len(flat) >= 4:
            truth["LOWT"] = tuple(flat)
    t_changed = "LOWT" in truth or any(name.startswith("TINV@") and name != "TINV@V1" for name in truth)
    if item == "NDT" or (item == "LOWT" and "LOWT" in truth):
        names += ["NDT", "NT"] if t_changed else []
    if item == "NST" and any(name.startswith("STD@") for name in truth):
        names.append("NST")
    if "INVT" in truth or "LOWT" in truth or "TTALL" in truth or "NDT" in names:
        names.append("TAB")
    depressed = sum(name.startswith("STD@") for name in truth) >= 2
    if item == "DIG" and depressed:
        names.append("DIG")
    if (item == "HYPERK" and "TTALL" in truth) or (item == "HYPOK" and (depressed or "UWAVE" in truth)):
        names.append("EL")
    if item == "BRUG" and "STE@V1" in truth and "STE@V2" in truth:
        names.append("BRUG")
    if item == "ERP" and "STE" in truth:
        names.append("ERP")
    truth.update(dict.fromkeys(names, ()))


GROUPS: dict[str, tuple[str, ...]] = {
    "IMI_ANY": ("IMI", "ILMI", "IPMI", "IPLMI"),
    "AMI_ANY": ("AMI", "ASMI", "ALMI"),
    "ISCA_ANY": ("ISCAL", "ISCAS", "ISCLA", "ISCAN"),
    "ISCI_ANY": ("ISCIN", "ISCIL"),
    "ISC": tuple(ISCHAEMIAS),
    "STTC_SUB": ("NDT", "DIG", "LNGQT", "ANEUR", "EL"),
    "MI": (*INFARCTS, *INJURIES),
    "STTC": ("ISC", "NDT", "NST", "DIG", "LNGQT", "ANEUR", "EL"),
    "CD": ("LAFB", "LPFB", "CRBBB", "IRBBB", "CLBBB", "ILBBB", "IVCD", "WPW", "AVB"),
    "HYP": ("LVH", "RVH", "SEHYP", "LAO", "RAO"),
    "ABQRS": ("QWAVE", "PRWP", "CRBBB", "CLBBB", "ILBBB", "IVCD", "WPW", "VPACE", "IDIO", "VTACH"),
}
_ALLOWED_IN_NORMAL = frozenset({"SR", "SARRH", "NAXIS", "NOISE", "WANDER"})
_NORMAL_VARIANTS = frozenset({"TINV@V1", "TINV@III", "TINV@aVL", "Q@V1", "Q@III", "Q@aVL"})


def _add_groups(truth: Truth) -> None:
    for name, members in GROUPS.items():
        if any(member in truth for member in members):
            truth[name] = ()
    others = set(truth) - _ALLOWED_IN_NORMAL - _NORMAL_VARIANTS
    lone = {name for name in others if name.startswith(("STE@", "STD@", "TTALL@"))}
    # One lead's borderline ST or T alone makes no abnormal ECG.
    if not (others - lone) and ("SR" in truth or "SARRH" in truth):
        truth["NORM"] = ()
