"""Write hits out: pictures, or a folder with WFDB copies, pictures and tables, the first form of a case set."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fgclep.errors import UsageError
from fgclep.leads import LEADS
from fgclep.record import EcgRecord
from retrieval.paper import DISCLAIMER, dataset_notice, draw_ecg
from retrieval.searcher import Hit, Result
from retrieval.tables import csv_text
from retrieval.waveforms import WaveformReader

WAVEFORMS = "waveforms"
PICTURES = "pictures"

_GAIN_PER_MV = 1000  # 1 uV per step: holds the values of every known data set exactly
_MAX_STEPS = 32000


def plot_hits(result: Result, waveforms: WaveformReader, out: Path) -> list[Path]:
    """Draw every hit as a PNG into a folder, which is made if need be.

    Raises:
        NotSetUpError: if the data has moved; nothing is written then.
    """
    pictures = []
    for hit in result.hits:
        record = waveforms.read(hit.row)
        out.mkdir(parents=True, exist_ok=True)
        pictures.append(out / f"{_file_name(hit)}.png")
        draw_ecg(record, pictures[-1], title=_title(result, hit))
    return pictures


def export_hits(result: Result, waveforms: WaveformReader, out: Path) -> None:
    """Write all hits into a new folder: `hits.json`, `hits.csv`, `waveforms/` (WFDB) and `pictures/` (PNG).

    The folder appears complete or not at all.

    Raises:
        UsageError: if `out` exists and is not an empty folder.
        NotSetUpError: if the data has moved.
        RecordReject: if a hit's file can no longer be read.
    """
    with _new_folder(out) as folder:
        (folder / WAVEFORMS).mkdir()
        (folder / PICTURES).mkdir()
        files = []
        for hit in result.hits:
            record = waveforms.read(hit.row)
            name = _file_name(hit)
            _write_wfdb(record, folder / WAVEFORMS, name)
            draw_ecg(record, folder / PICTURES / f"{name}.png", title=_title(result, hit))
            files.append({"waveform": f"{WAVEFORMS}/{name}", "picture": f"{PICTURES}/{name}.png"})
        content = result.to_dict()
        content["hits"] = [{**hit, **file} for hit, file in zip(content["hits"], files, strict=True)]
        text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
        (folder / "hits.json").write_text(text, encoding="utf-8")
        columns = [*Hit.columns(), "waveform", "picture"]
        (folder / "hits.csv").write_text(csv_text(content["hits"], columns), encoding="utf-8")


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Offer a temporary folder beside `out` and give it that name when all is written; remove it on failure."""
    check_new_folder(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    temporary.mkdir()
    try:
        yield temporary
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_new_folder(out: Path) -> None:
    """Refuse a path that is taken, so that an export never mixes with or overwrites what is there.

    Raises:
        UsageError: if `out` exists and is not an empty folder.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} already exists; an export needs a new or empty folder.", "Name another folder.")


def _file_name(hit: Hit) -> str:
    """Return a name that sorts by rank and that WFDB and every file system allow."""
    return f"{hit.rank:03d}_{re.sub(r'[^A-Za-z0-9-]+', '_', hit.row['record_id'])}"


def _title(result: Result, hit: Hit) -> str:
    strength = f"similarity {hit.similarity:.2f}" if hit.score is None else f"score {hit.score:.2f}"
    return f"#{hit.rank}   {strength}   {result.query.text or result.plan}"


def _write_wfdb(record: EcgRecord, folder: Path, name: str) -> None:
    """Write one record in WFDB format 16, leads in canonical order, with its description as comments."""
    import wfdb

    peak = float(np.abs(record.waveform).max())
    gain = min(float(_GAIN_PER_MV), _MAX_STEPS / peak if peak else float(_GAIN_PER_MV))
    steps = np.rint(record.waveform.T * gain).astype(np.int16)  # (samples, 12)
    wfdb.wrsamp(
        name,
        fs=record.fs_hz,
        units=["mV"] * len(LEADS),
        sig_name=list(LEADS),
        d_signal=steps,
        fmt=["16"] * len(LEADS),
        adc_gain=[gain] * len(LEADS),
        baseline=[0] * len(LEADS),
        comments=_comments(record),
        write_dir=str(folder),
    )


def _comments(record: EcgRecord) -> list[str]:
    """Describe the record in header comments: what it is, whose, what was found, and what it is not for.

    The source of a synthetic record is written as `fgclep.wfdb_io.SYNTHETIC_COMMENT`, by which readers know the copy.
    """
    info = record.info
    known: dict[str, Any] = {
        "Record": info.record_id,
        "Source": dataset_notice(info.dataset),
        "Age": None if info.age_years is None else f"{info.age_years:g}",
        "Sex": info.sex,
        "Report": " | ".join(info.report_lines) or None,
        "Flags": ", ".join(record.flags) or None,
        "Note": f"copied by fgclep, {DISCLAIMER}",
    }
    # A line break inside a comment would become a header line of its own.
    return [" ".join(f"{name}: {value}".split()) for name, value in known.items() if value is not None]
