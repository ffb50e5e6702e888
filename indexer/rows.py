"""One record as a row of the store; free of SQLAlchemy, so that reading processes stay small and start fast."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fgclep.record import RecordInfo
from fgclep.reports import report_hash


def record_row(key: int, info: RecordInfo, *, fs_hz: float, duration_s: float, flags: Sequence[str]) -> dict[str, Any]:
    """Turn a record into the columns of `records`, plus its `tags`."""
    report = "\n".join(info.report_lines)
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
        **asdict(info.measurements),
        "fs_hz": fs_hz,
        "duration_s": duration_s,
        "flags": "\n".join(flags),
        "report_hash": report_hash(report),
        "extra": json.dumps(info.extra, ensure_ascii=False),
        "tags": list(dict.fromkeys(info.tags)),
    }
