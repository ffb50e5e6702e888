"""What reports say: rules against statements read by hand, PTB-XL's codes, and properties that hold for any text."""

import ast
import csv
import itertools
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgclep.findings.catalog import findings
from fgclep.findings.rules import rule_book
from fgclep.findings.tagger import PARENTS, is_remark, split_report, tag_report, tag_statement
from fgclep.reports import clean_report, normalise, quality_remarks, report_hash

FINDINGS = set(findings())


def leaves(text: str) -> dict[str, bool]:
    """Findings of a report without those that another finding brought along."""
    said = tag_report(text)
    brought = {parent for finding, present in said.items() if present for parent in PARENTS.get(finding, ())}
    return {finding: present for finding, present in said.items() if finding not in brought}


def present(text: str) -> set[str]:
    return {finding for finding, is_present in leaves(text).items() if is_present}


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("Sinus rhythm with borderline 1st degree A-V block", "SR 1AVB"),
        ("Atrial fibrillation with rapid ventricular response with PVCs", "AFIB_RVR PVC"),
        ("Atrial flutter with 3:1 A-V block.", "AFLT"),
        ("Sinus rhythm with 2nd degree A-V block, Mobitz I (Wenckebach)", "SR 2AVB1"),
        ("Sinus rhythm with 2nd degree (Mobitz II) SA block.", "SR"),
        ("supraventricular tachycardia", "SVTAC"),
        ("Wandering atrial pacemaker", "EAR"),
        ("Atrial-sensed ventricular-paced rhythm", "VPACE APACE"),
        ("Inferior/lateral ST-T changes suggest myocardial injury/ischemia", "ISCIL TAB"),
        ("Lateral T wave changes are nonspecific", "NT NDT"),
        ("Lateral T wave changes are normal for age", ""),
        ("Low QRS voltages in precordial leads", "LVOLT"),
        ("Left axis deviation", "LAXIS"),
        ("RSR'(V1) - probable normal variant", "IRBBB"),
        ("Incomplete RBBB and LAFB", "IRBBB LAFB"),
        ("Left anterior fascicular block", "LAFB"),
        ("Anteroseptal infarct - age undetermined", "ASMI"),
        ("CONSIDER RECENT INFERIOR AND ANTEROSEPTAL INFARCTION", "IMI ASMI"),
        ("Anterior ST depression is probably reciprocal to inferior infarct", "STD_ANT"),
        ("ST depr, consider ischemia, anterolateral lds", "STD_ANT STD_LAT ISCAL"),
        ("ST elevation, consider inferior injury", "STE_INF INJIN STTC"),
        ("Poor R wave progression - cannot rule out anteroseptal infarct", "PRWP ASMI"),
        ("LVH with secondary repolarization abnormality", "LVH SEHYP"),
        ("Tall T waves - consider hyperkalemia", "TTALL EL"),
        ("periphere niederspannung", "LVOLT"),
        ("linkstyp", ""),
        ("ueberdrehter linkstyp", "LAXIS"),
        ("rechtstyp", "RAXIS"),
        ("unvollstÄndiger rechtsschenkelblock", "IRBBB"),
        ("supraventrikulÄre extrasystole(n) tachykardes vorhofflimmern", "PAC AFIB_RVR"),
        ("ventrikulÄre extrasystole(n), bigeminus", "PVC BIGU"),
        ("sinusrhythmus a-v block i lagetyp normal qrs(t) abnorm", "SR 1AVB NAXIS ABQRS"),
        ("inferiorer infarkt     wahrscheinlich alt t abnorm in anterolateralen ableitungen", "IMI TAB"),
        ("wahrscheinlich    inferolaterale ischÄmie oder linksbelastung", "ISCIL"),
        ("verlÄngertes qt", "LNGQT"),
        ("vÄnster anteriort hemiblock", "LAFB"),
        ("sinusrytm fÖrmaksflimmer", "SR AFIB"),
        ("verdacht auf p-sinistrocardiale", "LAO"),
        ("t waves are inverted in i, avl, v4-6", "TINV@I TINV@aVL TINV@V4 TINV@V5 TINV@V6 TINV_LAT"),
        ("st segments are depressed in ii, avf, v4,5.", "STD@II STD@aVF STD@V4 STD@V5 STD_INF"),
        ("sinus rhythm. Edit: NORM 100", "SR NORM"),
    ],
)
def test_statements_read_by_hand(statement: str, expected: str) -> None:
    assert present(statement) == set(expected.split())


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("no ST elevation", "STE"),
        ("without acute infarct", "MI"),
        ("kein infarkt", "MI"),
        ("sinusrhythmus ohne st-senkung", "STD"),
        ("Abnormal ECG", "NORM"),
        ("pathologisches ekg", "NORM"),
    ],
)
def test_what_is_denied_is_absent(statement: str, finding: str) -> None:
    assert tag_report(statement)[finding] is False


@pytest.mark.parametrize(
    ("statement", "finding", "hedged"),
    [
        ("Inferior infarct - age undetermined", "IMI", False),
        ("Possible inferior infarct - age undetermined", "IMI", True),
        ("Cannot rule out anteroseptal infarct - age undetermined", "ASMI", True),
        ("old anteroseptal infarct cannot be excluded", "ASMI", True),
        ("inferiorer infarkt wahrscheinlich alt", "IMI", False),
        ("inferiorer infarkt nicht auszuschliessen", "IMI", True),
        ("linkshypertrophie mÖglich", "LVH", True),
        ("Possible atrial flutter with PVCs", "AFLT", True),
        ("Possible atrial flutter with PVCs", "PVC", False),
        ("sinusbradykardie sonst normales ekg", "NORM", True),
        ("Normal ECG", "NORM", False),
        ("Sinus rhythm with PVCs or aberrant ventricular conduction", "PVC", True),
        ("Lateral T wave changes may be due to hypertrophy and/or ischemia", "ISCLA", True),
        ("Lateral T wave changes may be due to hypertrophy and/or ischemia", "HYP", True),
    ],
)
def test_doubt_belongs_to_its_own_finding(statement: str, finding: str, hedged: bool) -> None:
    assert {a.finding: (a.present, a.hedged) for a in tag_statement(statement)}[finding] == (True, hedged)


def test_one_denial_does_not_undo_an_assertion_elsewhere() -> None:
    assert tag_report("ST elevation in V2, V3. No ST elevation in II, III, aVF.")["STE"] is True


def test_infarct_brings_its_parents() -> None:
    assert {"ASMI", "AMI_ANY", "MI"} <= {a.finding for a in tag_statement("Anteroseptal infarct - age undetermined")}


def test_parents_are_transitively_closed_and_known() -> None:
    for child, parents in PARENTS.items():
        assert {child, *parents} <= FINDINGS
        for parent in parents:
            assert set(PARENTS.get(parent, ())) <= set(parents) - {child}


def test_every_finding_a_rule_can_assert_is_known() -> None:
    book = rule_book()
    named = {f for rule in book.rules for f in (*rule.find, *rule.hedge, *rule.absent)}
    placed = {f for table in book.places.values() for f in itertools.chain.from_iterable(table.values())}
    assert named | placed <= FINDINGS


@given(
    st.text(
        alphabet=st.sampled_from("ST-T ischemia infarct anterior inferior,. V1 v4-6 no possible Äö*()\n"), max_size=80
    )
)
def test_any_text_gives_one_assertion_per_known_finding(text: str) -> None:
    counted = Counter(assertion.finding for assertion in tag_statement(text))
    assert set(counted) <= FINDINGS and set(counted.values()) <= {1}


WHOLE_STATEMENTS = (
    "Sinus rhythm",
    "Left axis deviation",
    "Poor R wave progression - cannot rule out anteroseptal infarct",
    "I.V. CONDUCTION DEFECT",
    "Abnormal ECG",
)


@given(st.lists(st.sampled_from(WHOLE_STATEMENTS), min_size=1), st.sampled_from([".", ". ", ", ", "\n", ".. ", "; "]))
def test_statements_survive_joining(statements: list[str], joint: str) -> None:
    assert split_report(joint.join(statements)) == statements


def test_qualifying_clauses_stay_with_their_statement() -> None:
    assert split_report("ST elevation, consider inferior injury, sinus rhythm.") == [
        "ST elevation, consider inferior injury",
        "sinus rhythm",
    ]
    assert split_report("ATRIAL FIBRILLATION.WITH RAPID VENTRICULAR RESPONSE.") == [
        "ATRIAL FIBRILLATION WITH RAPID VENTRICULAR RESPONSE"
    ]


def test_machine_statements_are_all_but_understood(shared_data: Path) -> None:
    statements = (shared_data / "text" / "mimic_iv_ecg_statements.txt").read_text(encoding="utf-8").splitlines()
    missed = [text for text in statements if not tag_statement(text) and not is_remark(text)]
    assert len(missed) <= len(statements) // 200


def test_a_rhythm_statement_is_no_remark(shared_data: Path) -> None:
    statements = (shared_data / "text" / "mimic_iv_ecg_statements.txt").read_text(encoding="utf-8").splitlines()
    rhythms = [text for text in statements if text.lower().startswith(("sinus ", "atrial f", "- 2:1"))]
    assert rhythms and not [text for text in rhythms if is_remark(text) and "pause" not in text.lower()]


def test_joining_mark_and_case_change_nothing(shared_data: Path) -> None:
    with (shared_data / "text" / "mimic_iv_ecg_reports_610.csv").open(encoding="utf-8", newline="") as handle:
        reports = [row["report"] for row in csv.DictReader(handle)]
    differing = [text for text in reports if tag_report(text) != tag_report(text.replace(".", ", ").lower())]
    assert len(differing) <= len(reports) // 100


# Least precision and recall against codes that PTB-XL's reports state in so many words.
AGAINST_CODES = {
    "SR": (0.98, 0.98),
    "AFIB": (0.95, 0.97),
    "SBRAD": (0.93, 0.97),
    "STACH": (0.95, 0.97),
    "PACE": (0.95, 0.93),
    "ABQRS": (0.94, 0.97),
    "VCLVH": (0.90, 0.93),
    "NORM": (0.88, 0.75),
    "PVC": (0.78, 0.80),
    "LAFB": (0.85, 0.45),
    "MI": (0.83, 0.68),
}


def test_agrees_with_ptbxl_codes(shared_data: Path) -> None:
    with (shared_data / "ptbxl" / "ptbxl_database.csv").open(encoding="utf-8", newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if int(row["strat_fold"]) <= 8][::4]
    said, coded, both = Counter[str](), Counter[str](), Counter[str]()
    for row in rows:
        tags = {
            finding for finding, is_present in tag_report(row["report"].lower().split("edit:")[0]).items() if is_present
        }
        codes = {code.rstrip("_") for code in ast.literal_eval(row["scp_codes"])}
        codes |= {parent for code in codes for parent in PARENTS.get(code, ())}
        said.update(tags)
        coded.update(codes)
        both.update(tags & codes)
    reached = {code: (both[code] / said[code], both[code] / coded[code]) for code in AGAINST_CODES}
    short = {
        code: reached[code]
        for code, least in AGAINST_CODES.items()
        if reached[code][0] < least[0] or reached[code][1] < least[1]
    }
    assert not short


def test_clean_report_follows_the_published_recipe() -> None:
    lines = ("*** CONSIDER ACUTE ST ELEVATION MI ***", "Sinus  rhythm.", "", "=-Abnormal EKG")
    assert clean_report(lines) == "CONSIDER ACUTE ST ELEVATION MI. Sinus rhythm. Abnormal ECG."
    assert clean_report(lines, lower=True) == "consider acute st elevation mi. sinus rhythm. abnormal ecg."
    assert clean_report(["", " * "]) == ""


@given(st.text(max_size=60))
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def test_hash_ignores_looks_and_keeps_words() -> None:
    assert report_hash("Sinus rhythm.\nNormal EKG") == report_hash("  sinus   rhythm. NORMAL ECG.")
    assert report_hash("Sinus rhythm") != report_hash("Sinus tachycardia")
    assert report_hash("Sinus rhythm") == "54e364cb9ce4e436"  # printf "sinus rhythm" | sha256sum


def test_quality_remarks_are_told_apart() -> None:
    report = "Sinus rhythm.Artifact in lead(s) I,V1.--- Suspect limb lead reversal ---.Abnormal ECG"
    assert quality_remarks(report) == ("Artifact in lead(s) I,V1", "Suspect limb lead reversal")
    assert quality_remarks("Sinus rhythm. Inferior infarct.") == ()
