"""Synthetic ECGs with exact truth: any record by (seed, number), or a whole tree in MIMIC-IV-ECG's layout."""

import csv
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import UsageError
from fgclep.leads import LEADS
from fgclep.record import EcgRecord, RecordInfo
from fgclep.synth.artefacts import draw_noise
from fgclep.synth.beats import Beat, build_beat
from fgclep.synth.cases import Case, draw_case
from fgclep.synth.render import render
from fgclep.synth.reports import write_report
from fgclep.synth.rhythm import Timeline, draw_timeline
from fgclep.synth.truth import Reading, Truth, find_truth, lead_matrix, read_record
from fgclep.wfdb_io import SYNTHETIC_COMMENT

UNITS_PER_MV = 200
"""Quantisation of every synthetic waveform: 5 uV, as MIMIC-IV-ECG stores it, so that writing loses nothing."""

MIMIC_LEADS: tuple[str, ...] = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
"""Lead order of MIMIC-IV-ECG's files: aVF before aVL."""

# Seventeen people give twenty records: one has two, one has three.
_PERSON: tuple[int, ...] = (0, 0, 1, 1, 1, *range(2, 17))


@dataclass(frozen=True)
class SyntheticEcg:
    """One synthetic ECG.

    Attributes:
        record: the ECG; its `info.tags` are the keys of `truth`.
        truth: finding id -> leads that show it, empty for findings of the whole record.
    """

    record: EcgRecord
    truth: Truth


def _generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *key])))


def generate(seed: int, n: int, *, fs_hz: int = 500, start: int = 0) -> Iterator[SyntheticEcg]:
    """Return records `start` .. `start + n - 1`, made one by one; each depends on the seed and its own number only.

    Args:
        seed: not negative.
        fs_hz: sampling rate; the same record at another rate has the same truth.

    Raises:
        UsageError: if seed, n or start is negative, or fs_hz is below 100.
    """
    if min(seed, n, start) < 0 or fs_hz < 100:
        raise UsageError(
            f"Synthetic ECGs were asked for with seed {seed}, n {n}, start {start}, {fs_hz} Hz; "
            "seed, n and start must not be negative and the rate must be at least 100 Hz."
        )
    return (generate_one(seed, number, fs_hz=fs_hz) for number in range(start, start + n))


def generate_one(seed: int, i: int, fs_hz: int = 500) -> SyntheticEcg:
    """Return record number `i` of a seed."""
    plan = _plan(seed, i)
    clean = render(_generator(seed, i, 1), plan.case, plan.beat, plan.timeline, fs_hz)
    noise = draw_noise(_generator(seed, i, 2, fs_hz), plan.case, fs_hz, clean.shape[1])
    waveform = _quantised_twelve(clean + noise, plan.case)
    return SyntheticEcg(EcgRecord(_info(seed, i, plan), waveform, float(fs_hz)), plan.truth)


# A normal heart whose random variation crosses a limit is drawn again, so that normal records stay normal.
_NORMAL_TRIES = 6


@dataclass(frozen=True)
class _Plan:
    case: Case
    beat: Beat
    timeline: Timeline
    reading: Reading
    truth: Truth


def _plan(seed: int, i: int) -> _Plan:
    """Draw what record `i` holds and measure it, free of noise and sampling rate."""
    person = _generator(seed, _subject_number(i), 0, 1)
    sex = "F" if person.random() < 0.5 else "M"
    age = int(np.clip(person.normal(59, 17), 18, 96))
    rng = _generator(seed, i, 0)
    case = draw_case(rng, sex, age)
    rr_s = 60 / case.rate_bpm
    for _ in range(_NORMAL_TRIES):
        beat = build_beat(rng, case, rr_s)
        timeline = draw_timeline(rng, case, beat.pr_s)
        reading = read_record(case, beat, timeline)
        truth = find_truth(case, timeline, reading)
        if not case.normal or "NORM" in truth:
            break
    return _Plan(case, beat, timeline, reading, truth)


def _quantised_twelve(independent: NDArray[np.float32], case: Case) -> NDArray[np.float32]:
    """Return the displayed twelve leads in whole steps of 5 uV.

    Steps are taken on the independent leads and on the halves first, so III stays exact and the augmented
    leads are at most half a step away from Goldberger's formulas.
    """
    matrix = lead_matrix(case).astype(np.float32)
    shown = matrix @ independent
    steps = np.rint(shown * UNITS_PER_MV)
    steps[2] = steps[1] - steps[0]
    steps[3] = np.rint(-(steps[0] + steps[1]) / 2)
    steps[4] = np.rint(steps[0] - steps[1] / 2)
    steps[5] = np.rint(steps[1] - steps[0] / 2)
    return np.asarray(np.clip(steps, -32767, 32767) / np.float32(UNITS_PER_MV), dtype=np.float32)


def _subject_number(i: int) -> int:
    return i // len(_PERSON) * (_PERSON[-1] + 1) + _PERSON[i % len(_PERSON)]


def _info(seed: int, i: int, plan: _Plan) -> RecordInfo:
    subject = 10_000_000 + _subject_number(i)
    study = 40_000_000 + i
    lines = write_report(_generator(seed, i, 3), plan.truth, plan.reading.measurements, plan.case.stage)
    day, minute = divmod(i * 7919 + seed, 1440)
    return RecordInfo(
        record_id=f"synthetic:{seed}-{i}",
        dataset="synthetic",
        subject_id=str(subject),
        study_id=str(study),
        path=f"files/p{str(subject)[:4]}/p{subject}/s{study}/{study}",
        ecg_time=f"{2150 + day // 336 % 50}-{day // 28 % 12 + 1:02d}-{day % 28 + 1:02d} "
        f"{minute // 60:02d}:{minute % 60:02d}:00",
        age_years=float(plan.case.age_years),
        sex=plan.case.sex,
        report_lines=lines,
        tags=tuple(plan.truth),
        measurements=plan.reading.measurements,
    )


def write_tree(out: Path, n: int, seed: int, fs_hz: int = 500) -> None:
    """Write records 0 .. n-1 of a seed as a tree in MIMIC-IV-ECG's own layout.

    `record_list.csv`, `machine_measurements.csv` and `files/` are as MIMIC has them; `synthetic_truth.csv`
    (study_id, finding, leads) and `synthetic_subjects.csv` (subject_id, sex, age_years) stand beside them, and every
    header says that its record is synthetic.

    Raises:
        UsageError: if `out` exists and is not an empty directory, or as `generate` does.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            f"{out} exists and is not an empty directory; synthetic ECGs are written into a new one.",
            f"Remove it or choose another place, e.g. {out}-2.",
        )
    records = generate(seed, n, fs_hz=fs_hz)  # refuses a bad request before anything is written
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as files:
        tables = {
            name: csv.writer(files.enter_context((out / name).open("w", newline="", encoding="utf-8")))
            for name in _COLUMNS
        }
        for name, columns in _COLUMNS.items():
            tables[name].writerow(columns)
        subjects: set[str] = set()
        for ecg in records:
            info = ecg.record.info
            _write_record(out, ecg.record)
            tables["record_list.csv"].writerow(
                [info.subject_id, info.study_id, info.study_id, info.ecg_time, info.path]
            )
            tables["machine_measurements.csv"].writerow(_machine_row(info, fs_hz))
            tables["synthetic_truth.csv"].writerows(
                [info.study_id, finding, " ".join(leads)] for finding, leads in ecg.truth.items()
            )
            if info.subject_id not in subjects:
                subjects.add(info.subject_id)
                tables["synthetic_subjects.csv"].writerow([info.subject_id, info.sex, f"{info.age_years:.0f}"])


_REPORT_COLUMNS = 18
_MISSING = 29999
_COLUMNS: dict[str, list[str]] = {
    "record_list.csv": ["subject_id", "study_id", "file_name", "ecg_time", "path"],
    "machine_measurements.csv": [
        *("subject_id", "study_id", "cart_id", "ecg_time"),
        *(f"report_{number}" for number in range(_REPORT_COLUMNS)),
        *("bandwidth", "filtering", "rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end"),
        *("p_axis", "qrs_axis", "t_axis"),
    ],
    "synthetic_truth.csv": ["study_id", "finding", "leads"],
    "synthetic_subjects.csv": ["subject_id", "sex", "age_years"],
}


def _machine_row(info: RecordInfo, fs_hz: int) -> list[str | int | None]:
    """Return a row of machine_measurements.csv; intervals become times of one beat, missing ones MIMIC's 29999."""
    m = info.measurements

    def whole(value: float | None) -> int:
        return _MISSING if value is None else round(value)

    qrs_onset = 400  # ms from the start of the carts' averaged beat
    p_onset = None if m.pr_interval_ms is None else qrs_onset - m.pr_interval_ms
    p_end = None if m.pr_interval_ms is None else qrs_onset - max(m.pr_interval_ms - 100, 10)
    reports = [*info.report_lines[:_REPORT_COLUMNS], *[""] * (_REPORT_COLUMNS - len(info.report_lines))]
    ends = [None if ms is None else qrs_onset + ms for ms in (m.qrs_duration_ms, m.qt_interval_ms)]
    return [
        *(info.subject_id, info.study_id, 0, info.ecg_time, *reports),
        *(f"0.05-{min(150, fs_hz // 2)} Hz", "60 Hz notch Baseline filter", whole(m.rr_interval_ms)),
        *(whole(p_onset), whole(p_end), qrs_onset, *map(whole, ends)),
        *(whole(axis) for axis in (m.p_axis_deg, m.qrs_axis_deg, m.t_axis_deg)),
    ]


def _write_record(out: Path, record: EcgRecord) -> None:
    """Write one record's header and format-16 samples in MIMIC's lead order."""
    info = record.info
    order = [LEADS.index(lead) for lead in MIMIC_LEADS]
    units = np.rint(record.waveform[order] * UNITS_PER_MV).astype("<i2")  # (12, samples)
    folder = (out / info.path).parent
    folder.mkdir(parents=True, exist_ok=True)
    name = info.study_id
    year, month, day = (info.ecg_time or "")[:10].split("-")
    clock = (info.ecg_time or "")[11:]
    lines = [f"{name} 12 {record.fs_hz:.0f} {units.shape[1]} {clock} {day}/{month}/{year}"]
    for lead, samples in zip(MIMIC_LEADS, units, strict=True):
        checksum = (int(samples.sum(dtype=np.int64)) + 32768) % 65536 - 32768
        lines.append(f"{name}.dat 16 {UNITS_PER_MV}.0(0)/mV 16 0 {samples[0]} {checksum} 0 {lead}")
    lines += [f"# <subject_id>: {info.subject_id}", f"# {SYNTHETIC_COMMENT}"]
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / f"{name}.dat").write_bytes(units.T.tobytes())
