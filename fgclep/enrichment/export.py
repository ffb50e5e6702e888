"""Enriched reports for step 3, and recorded answers for replay, as files."""

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from fgclep.enrichment.providers.base import RunIdentity
from fgclep.record import RecordInfo
from fgclep.reports import clean_report

COLUMNS = ("record_id", "subject_id", "report", "features", "scores", "text")


def enriched_rows(
    infos: Iterable[RecordInfo], accepted: Mapping[str, Sequence[tuple[str, float]]]
) -> Iterator[dict[str, Any]]:
    """Yield every record with its report, its accepted features and their scores, and both as one text.

    The text is the cleaned report with the features appended, as step 3 trains on it (METHOD A3); without accepted
    features it is the cleaned report.
    """
    for info in infos:
        pairs = accepted.get(info.record_id, ())
        features = [feature for feature, _ in pairs]
        yield {
            "record_id": info.record_id,
            "subject_id": info.subject_id,
            "report": "\n".join(info.report_lines),
            "features": features,
            "scores": [score for _, score in pairs],
            "text": clean_report([*info.report_lines, *features]),
        }


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write enriched rows, as CSV if the name ends so, else as JSONL; return how many.

    The file is either whole or as it was. In CSV the lists are joined by "; ".
    """
    write = _write_csv if path.suffix == ".csv" else _write_jsonl
    return _write_whole(path, lambda file: write(file, rows))


def write_answers(path: Path, identity: RunIdentity, answers: Iterable[Mapping[str, Any]]) -> int:
    """Write a run's answers as JSONL for `--backend replay`; return how many."""

    def write(file: TextIO) -> int:
        file.write(json.dumps(asdict(identity), ensure_ascii=False) + "\n")
        return _write_jsonl(file, answers)

    return _write_whole(path, write)


def _write_jsonl(file: TextIO, rows: Iterable[Mapping[str, Any]]) -> int:
    count = 0
    for count, row in enumerate(rows, start=1):  # noqa: B007  # the last one is the number of rows
        file.write(json.dumps(dict(row), ensure_ascii=False) + "\n")
    return count


def _write_csv(file: TextIO, rows: Iterable[Mapping[str, Any]]) -> int:
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    count = 0
    for count, row in enumerate(rows, start=1):  # noqa: B007
        lists = {key: "; ".join(map(str, row[key])) for key in ("features", "scores")}
        writer.writerow({**row, **lists})
    return count


def _write_whole(path: Path, write: Callable[[TextIO], int]) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    with _part(path) as part:
        with part.open("w", encoding="utf-8", newline="") as file:
            count = write(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    return count


@contextmanager
def _part(path: Path) -> Iterator[Path]:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)
