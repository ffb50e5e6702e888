"""One record as a row of the store; free of SQLAlchemy, so that reading processes stay small and start fast."""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from fgclep.findings.tagger import tag_report
from fgclep.record import RecordInfo
from fgclep.reports import quality_remarks, report_hash


def record_row(key: int, info: RecordInfo, *, fs_hz: float, duration_s: float, flags: Sequence[str]) -> dict[str, Any]:
    """Turn a record into the columns of `records`, plus its `tags`: the data set's codes and its report's findings.

    What the report remarks on the recording's quality is a flag, not a finding. A record of the generator keeps its
    tags as they are: they are its exact truth, which its report may blur.
    """
    report = "\n".join(info.report_lines)
    said = () if info.generated else _findings_said(report)
    tags: dict[str, str] = {}
    for tag in (*info.tags, *said):
        tags.setdefault(tag.lower(), tag)  # the store tells no upper from lower case
    return {
        "key": key,
        "record_id": info.record_id,
        "dataset": info.dataset,
        "subject_id": info.subject_id,
        "study_id": info.study_id,
        "path": info.path,
        "ecg_time": info.ecg_time,
        "age_years": info.age_years,
        "sex": info.sex,
        "fold": info.fold,
        "report": report,
        **vars(info.measurements),  # `asdict` takes twenty times longer
        "fs_hz": fs_hz,
        "duration_s": duration_s,
        "flags": "\n".join([*flags, *_remarks(report)]),
        "report_hash": _hash(report),
        "extra": json.dumps(info.extra, ensure_ascii=False),
        "tags": list(tags.values()),
    }


_hash = lru_cache(maxsize=16_384)(report_hash)  # machine reports repeat: MIMIC-IV-ECG's 800,000 are far fewer texts


@lru_cache(maxsize=16_384)
def _remarks(report: str) -> tuple[str, ...]:
    """Return flags such as `quality:Artifact in lead(s) I,V1`."""
    return tuple(f"quality:{remark}" for remark in quality_remarks(report))


@lru_cache(maxsize=16_384)
def _findings_said(report: str) -> tuple[str, ...]:
    """Return the findings that a report asserts, those it is unsure of ("possible", "consider") included."""
    return tuple(finding for finding, present in tag_report(report).items() if present)
