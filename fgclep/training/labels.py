"""What is true of a record: a vector over all findings, +1 present, -1 absent, 0 unknown."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fgclep.findings.catalog import Finding, findings, ptbxl_code
from fgclep.findings.tagger import PARENTS, tag_report
from fgclep.record import RecordInfo

Labels = NDArray[np.int8]

_AXIS_OF_PTBXL = {
    "LAD": "LAXIS",
    "ALAD": "LAXIS",
    "RAD": "RAXIS",
    "ARAD": "RAXIS",
    "AXL": "LAXIS",
    "MID": "NAXIS",
}
_LEFT_TO_ANNOTATORS = {"TAB", "TNOS", "STE", "NST", "NDT", "NT"}
_SHOWN_SOMEWHERE = ("STE_", "STD_", "TINV_", "Q_")  # territory findings, by the start of their id
_QUALITY_COLUMNS = {"WANDER": ("baseline_drift",), "NOISE": ("static_noise", "burst_noise", "electrodes_problems")}


def finding_ids() -> tuple[str, ...]:
    """Return the findings in column order of a label matrix."""
    return tuple(findings())


def ptbxl_labels(info: RecordInfo) -> Labels:
    """Label one PTB-XL record from its codes, its axis and quality columns, and its report.

    A code decides; a report can turn "absent" into "unknown" (the annotators left codes out) and "unknown" into a
    value.
    """
    codes = {ptbxl_code(tag) for tag in info.tags}
    column_values = _ptbxl_columns(info)
    said = tag_report(" ".join(info.report_lines))
    return np.array([_ptbxl_label(f, codes, column_values, said) for f in _all()], np.int8)


def ptbxl_left_open(info: RecordInfo) -> NDArray[np.bool_]:
    """Tell which findings a record's annotator left uncoded beside a code that may include them.

    Their label is "unknown" (a Q wave beside "inferior infarction" goes without saying), but a record with the code
    shows the finding more surely than these do. Findings that the report mentions are not among them.

    Returns:
        bool, shape (findings,).
    """
    codes = {ptbxl_code(tag) for tag in info.tags}
    said = tag_report(" ".join(info.report_lines))
    return np.array(
        [not codes & set(f.scp) and bool(f.scp and codes & set(f.unclear)) and f.id not in said for f in _all()]
    )


def _all() -> list[Finding]:
    return list(findings().values())


def _ptbxl_columns(info: RecordInfo) -> dict[str, int]:
    values: dict[str, int] = {}
    axis = _AXIS_OF_PTBXL.get(info.extra.get("heart_axis", ""))
    if axis:
        values = {key: 1 if key == axis else -1 for key in (*_AXIS_OF_PTBXL.values(), "XAXIS")}
    for key, columns in _QUALITY_COLUMNS.items():
        values[key] = 1 if any(info.extra.get(column, "").strip(" ,") for column in columns) else -1
    return values


def _ptbxl_label(finding: Finding, codes: set[str], columns: dict[str, int], said: dict[str, bool]) -> int:
    if finding.id in columns:
        return columns[finding.id]
    if codes & set(finding.scp):
        return 1
    reported = said.get(finding.id)
    if codes & set(finding.unclear):
        label = 0
    elif finding.scp or codes & set(finding.absent_if):
        label = -1
    else:
        label = 0
    if label == 0 and reported is not None:
        return 1 if reported else -1
    if label == -1 and reported:
        return 0
    return label


def synthetic_labels(infos: Sequence[RecordInfo]) -> Labels:
    """Label synthetic records: exact for every finding the generator produces, unknown for all others.

    Unknown too are the few broad ST-T statements that PTB-XL's annotators use in a way no measurement settles.
    """
    ids = finding_ids()
    present = [_with_parents(info.tags) for info in infos]
    produced = set().union(*present) - _LEFT_TO_ANNOTATORS
    columns = np.array([1 if key in produced else 0 for key in ids], np.int8)
    hits = np.array([[key in tags for key in ids] for tags in present], bool).reshape(len(infos), len(ids))
    return np.where(hits & (columns == 1), np.int8(1), -columns).astype(np.int8)


def _with_parents(tags: Sequence[str]) -> set[str]:
    """Add what a finding implies, but not from one lead or territory to the whole ECG.

    The generator states ST and T changes lead by lead also where they are secondary (bundle branch block, pacing); only
    primary ones make the ECG one "with inverted T waves", and it says so itself.
    """
    closed = set(tags)
    pending = [tag for tag in tags if "@" not in tag and not tag.startswith(_SHOWN_SOMEWHERE)]
    while pending:
        for parent in PARENTS.get(pending.pop(), ()):
            if parent not in closed:
                closed.add(parent)
                pending.append(parent)
    return closed
