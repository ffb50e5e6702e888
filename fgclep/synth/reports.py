"""MIMIC-style report lines for a record's truth, with or without the waveform features behind them."""

from collections.abc import Sequence

import numpy as np

from fgclep.leads import LEADS
from fgclep.record import Measurements
from fgclep.synth.truth import Truth

_RHYTHM_LINES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("3AVB", ("Complete AV block", "Sinus rhythm with complete A-V block", "Third degree A-V block")),
    ("2AVB1", ("Sinus rhythm with Mobitz I (Wenckebach) 2nd degree A-V block", "2nd degree A-V block, Wenckebach")),
    ("2AVB2", ("Sinus rhythm with Mobitz type II 2nd degree A-V block", "Mobitz II second degree AV block")),
    ("2AVB", ("Sinus rhythm with 2:1 A-V block", "2:1 A-V block")),
    ("AFIB_RVR", ("Atrial fibrillation with rapid ventricular response",)),
    ("AFIB_SVR", ("Atrial fibrillation with slow ventricular response",)),
    ("AFIB", ("Atrial fibrillation", "Probable atrial fibrillation")),
    ("AFLT", ("Atrial flutter", "Atrial flutter with variable A-V block")),
    ("PSVT", ("Paroxysmal supraventricular tachycardia", "Supraventricular tachycardia")),
    ("SVTAC", ("Supraventricular tachycardia", "Probable supraventricular tachycardia")),
    ("SVARR", ("Supraventricular arrhythmia", "Irregular supraventricular rhythm with frequent PACs")),
    ("JUNC", ("Junctional rhythm", "Probable junctional rhythm")),
    ("IDIO", ("Idioventricular rhythm",)),
    ("VTACH", ("Ventricular tachycardia", "Wide complex tachycardia")),
    ("EAR", ("Ectopic atrial rhythm", "Probable ectopic atrial rhythm")),
    ("BIGU", ("Sinus rhythm with ventricular bigeminy", "Sinus rhythm with bigeminal PVCs")),
    ("TRIGU", ("Sinus rhythm with ventricular trigeminy",)),
    ("SARRH", ("Sinus arrhythmia", "Sinus rhythm with sinus arrhythmia")),
    ("SBRAD", ("Sinus bradycardia",)),
    ("STACH", ("Sinus tachycardia",)),
    ("SR", ("Sinus rhythm", "Normal sinus rhythm")),
)

_LINES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("WPW", ("Ventricular preexcitation(WPW)", "Wolff-Parkinson-White pattern")),
    ("SPR", ("Short PR interval",)),
    ("LNGQT", ("Prolonged QT interval",)),
    ("SHQT", ("Short QT interval",)),
    ("LAO", ("Left atrial abnormality", "Possible left atrial abnormality", "Probable left atrial enlargement")),
    ("RAO", ("Right atrial enlargement", "Possible right atrial abnormality")),
    ("CRBBB", ("Right bundle branch block", "RBBB")),
    ("IRBBB", ("Incomplete RBBB", "Incomplete right bundle branch block")),
    ("CLBBB", ("Left bundle branch block", "LBBB")),
    ("ILBBB", ("Incomplete LBBB", "Incomplete left bundle branch block")),
    ("LAFB", ("Left anterior fascicular block", "Possible left anterior fascicular block")),
    ("LPFB", ("Left posterior fascicular block", "Possible left posterior fascicular block")),
    ("IVCD", ("IV conduction defect", "Intraventricular conduction defect")),
    ("IMI", ("Inferior infarct",)),
    ("AMI", ("Anterior infarct",)),
    ("ASMI", ("Anteroseptal infarct",)),
    ("ALMI", ("Anterolateral infarct",)),
    ("ILMI", ("Inferolateral infarct",)),
    ("LMI", ("Lateral infarct",)),
    ("PMI", ("Posterior infarct", "True posterior infarct")),
    ("IPMI", ("Inferior infarct with posterior extension", "Inferoposterior infarct")),
    ("IPLMI", ("Inferoposterolateral infarct", "Inferior, posterior and lateral infarct")),
    ("ANEUR", ("Persistent ST elevation, consider ventricular aneurysm",)),
    ("LVH", ("Left ventricular hypertrophy", "Possible left ventricular hypertrophy")),
    ("RVH", ("Right ventricular hypertrophy", "Probable right ventricular hypertrophy")),
    ("SEHYP", ("Septal hypertrophy", "Deep narrow Q waves, consider septal hypertrophy")),
    ("BRUG", ("Brugada pattern", "ST elevation V1-V2, consider Brugada pattern")),
    ("ERP", ("ST elevation, probable early repolarization", "ST elev, probable normal early repol pattern")),
    ("DIG", ("ST changes consistent with digitalis effect", "Digitalis effect")),
    ("ISCAL", ("Anterolateral ST-T changes may be due to myocardial ischemia",)),
    ("ISCIN", ("Inferior ST-T changes may be due to myocardial ischemia",)),
    ("ISCIL", ("Inferior/lateral ST-T changes may be due to myocardial ischemia",)),
    ("ISCAS", ("Anteroseptal ST-T changes may be due to myocardial ischemia",)),
    ("ISCLA", ("Lateral ST-T changes may be due to myocardial ischemia",)),
    ("ISCAN", ("Anterior ST-T changes may be due to myocardial ischemia",)),
    ("INJAS", ("Anteroseptal ST depression, subendocardial injury",)),
    ("INJAL", ("Anterolateral ST depression, subendocardial injury",)),
    ("INJIN", ("Inferior ST depression, subendocardial injury",)),
    ("INJLA", ("Lateral ST depression, subendocardial injury",)),
    ("INJIL", ("Inferolateral ST depression, subendocardial injury",)),
    ("NST", ("ST changes are nonspecific", "Minor ST depression is nonspecific")),
    ("NDT", ("T wave changes are nonspecific", "Nonspecific T wave abnormalities")),
    ("PRWP", ("Poor R wave progression",)),
)

_FEATURES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("AFIB", ("Irregularly irregular RR intervals without P waves", "Fibrillatory waves, no P waves")),
    ("AFLT", ("Sawtooth flutter waves in II, III and aVF",)),
    ("1AVB", ("Prolonged PR interval",)),
    ("2AVB1", ("Progressive PR prolongation followed by a dropped QRS",)),
    ("2AVB2", ("Nonconducted P waves with constant PR interval",)),
    ("3AVB", ("P waves and QRS complexes are independent of each other",)),
    ("WPW", ("Delta wave with short PR interval and wide QRS",)),
    ("CRBBB", ("RSR' in V1 with wide S in I and V6", "Wide QRS with terminal R' in V1")),
    ("IRBBB", ("rSr' pattern in V1", "RSR' in V1 or V2")),
    ("CLBBB", ("Wide QRS with broad notched R in I, V5 and V6, deep S in V1-V3",)),
    ("LAFB", ("qR in I and aVL, rS in II, III and aVF",)),
    ("LPFB", ("rS in I and aVL, qR in III",)),
    ("LAO", ("Broad notched P waves in II", "Wide P waves with negative terminal force in V1")),
    ("RAO", ("Tall peaked P waves in II",)),
    ("RVH", ("Dominant R in V1",)),
    ("VPACE", ("Pacing spikes before wide QRS complexes",)),
    ("EAR", ("Inverted P waves in inferior leads",)),
    ("DIG", ("Scooped ST depression",)),
    ("BRUG", ("Coved ST elevation in V1-V2 with inverted T",)),
    ("PVC", ("Wide premature complexes",)),
)
_STAGED = frozenset({"IMI", "AMI", "ASMI", "ALMI", "ILMI", "LMI", "PMI", "IPMI", "IPLMI"})


def lead_list(leads: Sequence[str]) -> str:
    """Return leads as a reader would write them: chest leads in a run become a range (`V2-V5`)."""
    order = [lead for lead in LEADS if lead in leads]
    parts: list[str] = []
    run: list[str] = []
    for lead in [*order, ""]:
        if run and (lead[:1] != "V" or run[0][:1] != "V" or int(lead[1]) != int(run[-1][1]) + 1):
            parts.append(run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}")
            run = []
        if lead:
            run.append(lead)
    return ", ".join(parts)


def write_report(rng: np.random.Generator, truth: Truth, measurements: Measurements, stage: str) -> tuple[str, ...]:
    """Return report lines for a record.

    Args:
        rng: chooses wording, and whether the waveform features are written (about half of real reports have them).
        truth: the record's findings.
        measurements: for the first-degree block wording.
        stage: age of an infarction, as in `Case.stage`.
    """
    lines = [_rhythm_line(rng, truth)]
    lines += _axis_lines(truth)
    for name, wordings in _LINES:
        if name in truth:
            line = str(rng.choice(wordings))
            lines.append(line + _age_of_infarct(rng, stage) if name in _STAGED else line)
    lines += _voltage_lines(rng, truth)
    if "INVT" in truth and not any(name.startswith("ISC") or name == "BRUG" for name in truth) and "MI" not in truth:
        lines.append(f"{_region(truth, 'TINV')}T wave changes are nonspecific".capitalize())
    if "TTALL" in truth:
        lines.append("Tall T waves, consider hyperkalemia" if "EL" in truth else "Tall T waves")
    elif "EL" in truth:
        lines.append("ST-T changes and prominent U waves, consider hypokalemia")
    if rng.random() < 0.5:
        lines += _feature_lines(rng, truth, measurements)
    lines += _quality_lines(truth)
    lines.append(_verdict(rng, truth))
    return tuple(lines)


def _rhythm_line(rng: np.random.Generator, truth: Truth) -> str:
    if "PACE" in truth:
        if "APACE" in truth and "VPACE" in truth:
            return str(rng.choice(["A-V dual-paced rhythm", "A-V sequential pacing"]))
        return str(rng.choice(["Atrial pacing", "Atrial-paced rhythm"] if "APACE" in truth else [
            "Ventricular pacing", "Ventricular-paced rhythm"]))  # fmt: skip
    line = next(str(rng.choice(wordings)) for name, wordings in _RHYTHM_LINES if name in truth)
    if "1AVB" in truth:
        line += " with 1st degree A-V block"
    if "PVC" in truth and "BIGU" not in truth and "TRIGU" not in truth:
        line += " with PVC(s)"
    if "PAC" in truth and "SVARR" not in truth:
        line += " with PAC(s)"
    return line


def _axis_lines(truth: Truth) -> list[str]:
    words = {
        "LAXIS": "Left axis deviation",
        "RAXIS": "Right axis deviation",
        "XAXIS": "Abnormal extreme QRS axis deviation",
    }
    return [line for name, line in words.items() if name in truth]


def _age_of_infarct(rng: np.random.Generator, stage: str) -> str:
    return {"acute": " - possibly acute", "recent": " - possibly recent"}.get(
        stage, str(rng.choice([" - age undetermined", ", old"]))
    )


def _voltage_lines(rng: np.random.Generator, truth: Truth) -> list[str]:
    lines = []
    low = truth.get("LVOLT", ())
    if low:
        where = {(True, True): "Generalized low QRS voltages", (True, False): "Low QRS voltages in limb leads"}
        lines.append(where.get(("I" in low, "V1" in low), "Low QRS voltages in precordial leads"))
    if "VCLVH" in truth and "LVH" not in truth:
        lines.append(str(rng.choice(["Voltage criteria for left ventricular hypertrophy", "LVH by voltage"])))
    elif "HVOLT" in truth and "LVH" not in truth:
        lines.append("Abnormally high QRS voltages")
    return lines


def _region(truth: Truth, kind: str) -> str:
    words = {"ANT": "anterior", "INF": "inferior", "LAT": "lateral"}
    found = [word for area, word in words.items() if f"{kind}_{area}" in truth]
    return "/".join(found) + " " if found else ""


def _feature_lines(rng: np.random.Generator, truth: Truth, measurements: Measurements) -> list[str]:
    lines = [str(rng.choice(wordings)) for name, wordings in _FEATURES if name in truth]
    phrases = {"QWAVE": "Q waves", "STE": "ST elevation", "STD": "ST depression", "INVT": "T wave inversion"}
    lines += [f"{words} in {lead_list(truth[name])}" for name, words in phrases.items() if name in truth]
    if "UWAVE" in truth:
        lines.append(f"U waves in {lead_list(truth['UWAVE'])}")
    if "LOWT" in truth:
        lines.append("Low amplitude T waves")
    if "LNGQT" in truth or "SHQT" in truth:
        lines.append(f"QTc {measurements.qtc_ms:.0f} ms")
    return lines


def _quality_lines(truth: Truth) -> list[str]:
    lines = []
    if "LIMBREV" in truth:
        lines.append("--- Suspect arm lead reversal - only aVF, V1-V6 analyzed ---")
    if "NOISE" in truth or "WANDER" in truth:
        lines.append("--- Warning: Data quality may affect interpretation ---")
    return lines


def _verdict(rng: np.random.Generator, truth: Truth) -> str:
    if "NORM" in truth:
        return str(rng.choice(["Normal ECG", "Within normal limits", "Normal ECG"]))
    mild = {"SBRAD", "SARRH", "NST", "NDT", "LAXIS", "SPR", "PAC", "ERP", "IRBBB", "PRWP", "HVOLT", "LVOLT"}
    serious = {"MI", "CD", "HYP", "STTC", "AFIB", "AFLT", "PACE", "STE", "STD", "VTACH", "IDIO", "PVC"}
    return "Borderline ECG" if mild & set(truth) and not serious & (set(truth) - mild) else "Abnormal ECG"
