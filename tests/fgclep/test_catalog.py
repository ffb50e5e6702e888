"""The catalogue of findings: complete, consistent, and held-out wordings really held out."""

import ast
import csv
import itertools
import random
import re
from pathlib import Path

import numpy as np
import pytest

from fgclep.evaluation.text_search import TASKS, task_labels
from fgclep.findings.catalog import findings, fold_wording, further_wordings, ptbxl_code
from fgclep.record import RecordInfo
from fgclep.training.labels import finding_ids, ptbxl_labels, synthetic_labels
from fgclep.training.statements import (
    Statement,
    StatementSampler,
    held_out_wordings,
    machine_statements,
    statement_labels,
)

RESERVED = [
    "irregularly irregular rhythm without P waves",
    "wide QRS with notched R in I, V5 and V6",
    "fast sinus rhythm",
    "complete LBBB",
]


def _info(codes: tuple[str, ...], report: str = "", **extra: str) -> RecordInfo:
    return RecordInfo("ptb-xl:1", "ptb-xl", "1", "1", "x", report_lines=(report,), tags=codes, extra=extra)


def _label(info: RecordInfo, finding: str) -> int:
    return int(ptbxl_labels(info)[finding_ids().index(finding)])


def test_every_finding_has_wordings_of_both_kinds() -> None:
    for finding in findings().values():
        assert len(finding.wordings) >= 8, finding.id
        assert len(finding.held_out) >= 2, finding.id


def test_no_held_out_wording_is_trained_on() -> None:
    trained = {fold_wording(w.text) for finding in findings().values() for w in finding.wordings}
    assert not trained & held_out_wordings()
    assert not trained & {fold_wording(text) for text in RESERVED}


def test_sampled_statements_never_contain_a_held_out_wording_alone() -> None:
    sampler = StatementSampler([], list(finding_ids()))
    forbidden = held_out_wordings()
    rng = random.Random(0)
    drawn = [statement.text for _ in range(20) for statement in sampler.sample(rng, extra=30)]
    assert len(set(drawn)) > 2000
    assert not [text for text in drawn if fold_wording(text) in forbidden]


def test_statements_say_what_their_terms_say() -> None:
    """A term is negative exactly where the text names it after a negation; "A without B" asserts A and denies B."""
    sampler = StatementSampler([], ["AFIB", "LVOLT", "PVC"])
    sampler.wordings = {"AFIB": ["AFIB"], "LVOLT": ["LVOLT"], "PVC": ["PVC"]}
    rng = random.Random(1)
    drawn = [statement for _ in range(50) for statement in sampler.sample(rng, extra=20)]
    negation = re.compile(r"\b(no|not|without|absence|absent)\b", re.IGNORECASE)
    for statement in drawn:
        assert [key for key, _ in statement.terms] == re.findall("AFIB|LVOLT|PVC", statement.text.upper())
        assert bool(negation.search(statement.text)) == any(sign < 0 for _, sign in statement.terms)
    signs = {tuple(sign for _, sign in statement.terms) for statement in drawn}
    assert signs == {(1,), (-1,), (1, 1), (1, -1)}


def test_machine_statements_that_equal_a_held_out_wording_are_dropped() -> None:
    held_out = next(w.text for w in findings()["AFIB"].held_out if w.kind == "synonym")
    assert machine_statements([held_out.upper(), "Atrial fibrillation"]) == machine_statements(["Atrial fibrillation"])


def _code_of(key: str) -> str:
    """Return the PTB-XL code that a benchmark's finding stands for."""
    return "TAB" if key == "TNOS" else key


def test_all_71_statements_are_covered(shared_data: Path) -> None:
    with (shared_data / "ptbxl" / "scp_statements.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    codes = {ptbxl_code(row[""]) for row in rows}
    assert {_code_of(key) for key in TASKS["all"]} == codes
    named = {code for finding in findings().values() for code in (*finding.scp, *finding.unclear, *finding.absent_if)}
    assert named <= codes
    for task, column in (("form", "form"), ("rhythm", "rhythm")):
        assert {_code_of(key) for key in TASKS[task]} == {ptbxl_code(row[""]) for row in rows if row[column] == "1.0"}
    classes = {"NORM": "NORM", "MI": "MI", "STTC": "STTC", "CD": "CD", "HYP": "HYP"}
    for finding, diagnostic_class in classes.items():
        wanted = {ptbxl_code(row[""]) for row in rows if row["diagnostic_class"] == diagnostic_class}
        assert set(findings()[finding].scp) == wanted


@pytest.mark.parametrize(
    ("task", "folder"), [("super", "super_class"), ("sub", "sub_class"), ("form", "form"), ("rhythm", "rhythm")]
)
def test_task_labels_equal_the_published_split(shared_data: Path, task: str, folder: str) -> None:
    """Validation labels against the benchmark's own file; PTB-XL 1.0.3 changed the codes of one of its records."""
    with next((shared_data / "splits" / "ptbxl" / folder).glob("*_val.csv")).open(encoding="utf-8") as file:
        published = {row["ecg_id"]: row for row in csv.DictReader(file)}
    with (shared_data / "ptbxl" / "ptbxl_database.csv").open(encoding="utf-8") as file:
        infos = [
            RecordInfo(row["ecg_id"], "ptb-xl", "", "", "", tags=tuple(ast.literal_eval(row["scp_codes"])))
            for row in csv.DictReader(file)
            if row["ecg_id"] in published
        ]
    rows, labels = task_labels(infos, task)
    assert len(rows) == len(published)
    columns = list(next(iter(published.values())))[6:]
    theirs = np.array([[float(published[info.record_id][column]) for column in columns] for info in infos]) > 0
    if task in ("super", "form", "rhythm"):
        order = [[ptbxl_code(column) for column in columns].index(_code_of(key)) for key in TASKS[task]]
        differing = (labels != theirs[:, order]).any(axis=1).sum()
    else:  # subclasses have names of their own: compare their counts
        differing = np.abs(np.sort(labels.sum(axis=0)) - np.sort(theirs.sum(axis=0))).sum()
    assert differing <= 1


def test_codes_decide_and_reports_only_soften() -> None:
    assert _label(_info(("NORM", "SR")), "NORM") == 1
    assert _label(_info(("SR",)), "AFIB") == -1
    assert _label(_info(("SR",), "atrial fibrillation"), "AFIB") == 0
    assert _label(_info(("CRBBB",)), "IRBBB") == 0
    assert _label(_info(("STD_",)), "STD") == 1
    assert _label(_info(("PRC(S)",)), "PRC") == 1


def test_axis_and_quality_columns_are_used() -> None:
    assert _label(_info(("SR",), heart_axis="ALAD"), "LAXIS") == 1
    assert _label(_info(("SR",), heart_axis="MID"), "LAXIS") == -1
    assert _label(_info(("SR",)), "LAXIS") == 0
    assert _label(_info(("SR",), baseline_drift=" , I-V1,  "), "WANDER") == 1
    assert _label(_info(("SR",)), "WANDER") == -1


def test_synthetic_labels_are_closed_over_parents_and_silent_on_the_rest() -> None:
    infos = [_info(("IMI", "SR")), _info(("SR",))]
    labels = synthetic_labels(infos)
    column = {key: index for index, key in enumerate(finding_ids())}
    assert labels[:, column["IMI"]].tolist() == [1, -1]
    assert labels[:, column["MI"]].tolist() == [1, -1]
    assert labels[:, column["SR"]].tolist() == [1, 1]
    assert labels[:, column["WPW"]].tolist() == [0, 0]


def test_one_lead_or_a_broad_statement_of_a_synthetic_ecg_does_not_label_the_whole_ecg() -> None:
    infos = [_info(("TINV@V1", "TINV_ANT", "TAB")), _info(("INVT", "TAB"))]
    labels = synthetic_labels(infos)
    column = {key: index for index, key in enumerate(finding_ids())}
    assert labels[:, column["INVT"]].tolist() == [-1, 1]
    assert labels[:, column["TINV@V1"]].tolist() == [1, -1]
    assert labels[:, column["TAB"]].tolist() == [0, 0]


def test_statement_labels_equal_three_valued_logic() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 2, (30, len(finding_ids()))).astype(np.int8)
    ids = finding_ids()
    statements = [
        Statement(
            "x",
            tuple(
                (ids[column], int(sign))
                for column, sign in zip(rng.choice(len(ids), n, replace=False), rng.choice([-1, 1], n), strict=True)
            ),
        )
        for n in (1, 2, 3, 5, 1)
    ]
    got = statement_labels(statements, labels)
    for row, (j, statement) in itertools.product(range(30), enumerate(statements)):
        values = [int(labels[row, ids.index(key)]) * sign for key, sign in statement.terms]
        expected = -1 if -1 in values else 0 if 0 in values else 1
        assert got[row, j] == expected


def test_further_wordings_are_of_known_findings_and_none_is_held_out() -> None:
    further = further_wordings()
    assert set(further) <= set(findings())
    letters = [{fold_wording(text).replace(" ", "") for text in texts} for texts in further.values()]
    assert not set().union(*letters) & {text.replace(" ", "") for text in held_out_wordings()}
    assert all(len({fold_wording(text) for text in texts}) == len(texts) for texts in further.values())
    assert set(further["LVOLT"]) <= set(StatementSampler([], ["LVOLT", "AFIB"]).wordings["LVOLT"])
