"""`fgclep show`: everything known about one ECG, and its picture."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import print_json, say

if TYPE_CHECKING:
    from fgclep.record import EcgRecord, RecordInfo

_UNITS = {"bpm": "/min", "ms": "ms", "deg": "°"}


def show(
    ref: Annotated[str, typer.Argument(metavar="REF", help="Record id, study id or WFDB file.")],
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw it on ECG paper: .png, .svg or .pdf.")
    ] = None,
    index: Annotated[str | None, typer.Option("--index", help="Name or path of an index (FGCLEP_INDEX).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show one ECG: who, when, measurements, report, tags, flags; draw it with --plot.

    A file given with its extension (.hea, .dat, .mat) is read as it is, without any index.
    """
    from retrieval.paper import check_picture_name, draw_ecg

    if plot is not None:
        check_picture_name(plot)
    info, details, read = _find(ref, index)
    if plot is not None:
        record = read()
        plot.parent.mkdir(parents=True, exist_ok=True)
        draw_ecg(record, plot)
        say(f"Drew {plot}")
    if as_json:
        print_json({"schema": 1, "record": _to_dict(info, details)})
    else:
        for label, value in _lines(info, details):
            typer.echo(f"{label:<16} {value}".rstrip())


def _find(ref: str, index: str | None) -> "tuple[RecordInfo, dict[str, Any], Callable[[], EcgRecord]]":
    """Look a record up in a file or an index: what is known of it, and how to read its samples."""
    from cli.demo import find_index
    from indexer.open import open_index
    from retrieval.refs import named_file, resolve_ref
    from retrieval.waveforms import WaveformReader, read_file, record_info

    file = named_file(ref)
    if file is None:
        opened = open_index(find_index(index), backend="numpy")
        target = resolve_ref(opened, ref)
        if isinstance(target, int):
            row = opened.store.records([target])[target]
            details = {"fs_hz": row["fs_hz"], "duration_s": row["duration_s"], "flags": row["flags"].splitlines()}
            return record_info(row), details, lambda: WaveformReader(opened.manifest).read(row)
        file = target
    record = read_file(file)
    duration_s = record.waveform.shape[1] / record.fs_hz
    details = {"fs_hz": record.fs_hz, "duration_s": duration_s, "flags": list(record.flags)}
    return record.info, details, lambda: record


def _to_dict(info: "RecordInfo", details: dict[str, Any]) -> dict[str, Any]:
    """Return a record with the field names of `search --json`."""
    from dataclasses import asdict

    return {
        "record": info.record_id,
        "subject_id": info.subject_id,
        "study_id": info.study_id,
        "path": info.path,
        "dataset": info.dataset,
        "fold": info.fold,
        "ecg_time": info.ecg_time,
        "age_years": info.age_years,
        "sex": info.sex,
        **asdict(info.measurements),
        **details,
        "tags": list(info.tags),
        "report": "\n".join(info.report_lines),
    }


def _lines(info: "RecordInfo", details: dict[str, Any]) -> list[tuple[str, str]]:
    """Return label and value of everything that is known; lists go on under their label."""
    from dataclasses import asdict

    from retrieval.paper import dataset_notice

    person = [
        f"{info.age_years:.0f} years" if info.age_years is not None else "",
        {"F": "female", "M": "male"}.get(info.sex or "", ""),
    ]
    lines = [
        ("record", info.record_id),
        ("subject, study", f"{info.subject_id}, {info.study_id}"),
        ("person", ", ".join(part for part in person if part)),
        ("time", info.ecg_time or ""),
        ("source", dataset_notice(info.dataset)),
        ("file", info.path),
        ("samples", f"{details['fs_hz']:g} Hz, {details['duration_s']:.1f} s"),
    ]
    for name, value in asdict(info.measurements).items():
        label, _, unit = name.rpartition("_")
        lines.append((label.replace("_", " "), "" if value is None else f"{value:.0f} {_UNITS[unit]}"))
    lines.append(("tags", ", ".join(info.tags)))
    lines.extend(("" if number else "flags", flag) for number, flag in enumerate(details["flags"]))
    lines = [(label, value) for label, value in lines if value]
    report = info.report_lines or ("(none)",)
    return [*lines, *(("report" if number == 0 else "", line) for number, line in enumerate(report))]
