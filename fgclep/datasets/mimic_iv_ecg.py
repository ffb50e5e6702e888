"""MIMIC-IV-ECG: record_list.csv and machine_measurements.csv beside files/pNNNN/p<subject>/s<study>/.

Both tables have 800,000 rows. They are streamed; all that is kept of the second is where each study's row starts,
24 bytes a row, because nothing promises that the two have the same order.
"""

import csv
import re
from array import array
from collections.abc import Iterator
from math import sqrt
from pathlib import Path
from typing import Self

import numpy as np

from fgclep.datasets.base import Dataset, check_columns, check_row, iso_time, iter_csv, parse_number
from fgclep.errors import DataError
from fgclep.record import Measurements, RecordInfo
from fgclep.wfdb_io import header_rate

RECORD_LIST = "record_list.csv"
MEASUREMENTS = "machine_measurements.csv"
_SYNTHETIC_TRUTH = "synthetic_truth.csv"  # stands beside the tables where `fgclep data synth` wrote the tree

_RECORD_COLUMNS = ("subject_id", "study_id", "ecg_time", "path")
_INTERVALS = ("rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end")
_AXES = ("p_axis", "qrs_axis", "t_axis")
_MEASUREMENT_COLUMNS = ("study_id", "report_0", *_INTERVALS, *_AXES)
_REPORT_COLUMN = re.compile(r"report_(\d+)")
_EXTRA = ("cart_id", "bandwidth", "filtering")
_SENTINEL = 29_999
"""What the carts write where an interval or axis is unknown; larger values are no measurements either."""


class MimicIvEcg(Dataset):
    """MIMIC-IV-ECG v1.0, whole or in part."""

    kind = "mimic-iv-ecg"
    name = "MIMIC-IV-ECG"
    side_tables = (_SYNTHETIC_TRUTH,)

    def __init__(self, root: Path, fs_hz: int | None = None) -> None:
        if not (root / MEASUREMENTS).exists():
            raise DataError(
                f"{root} has {RECORD_LIST} but no {MEASUREMENTS}, which holds the reports and measurements.",
                f"Download {MEASUREMENTS} too, or use {root / 'files'} as a plain WFDB folder without reports.",
            )
        if (root / _SYNTHETIC_TRUTH).exists():
            self.name = "synthetic ECGs in MIMIC-IV-ECG's layout"
        self.root = root
        rate = self._first_rate()
        super().__init__(root, () if rate is None else (rate,), fs_hz)

    def iter_infos(self) -> Iterator[RecordInfo]:
        """Yield the records whose files exist, in the order of record_list.csv."""
        with _MeasurementTable(self.root / MEASUREMENTS) as table:
            for row in self._rows():
                if self._has_files(_path(row)):
                    yield _info(row, table.find(row["study_id"]), table.report_columns)

    def iter_listed(self) -> Iterator[tuple[str, str]]:
        """Yield the record id and the path of every record that the data set lists."""
        for row in self._rows():
            yield f"{self.kind}:{row['study_id']}", _path(row)

    def _rows(self) -> Iterator[dict[str, str]]:
        return iter_csv(self.root / RECORD_LIST, _RECORD_COLUMNS)

    def _first_rate(self) -> int | None:
        """Return the rate of the first record whose header exists; all of the data set share it."""
        for row in self._rows():
            if self._has_files(_path(row)):
                rate = header_rate(self.root / _path(row))
                return None if rate is None else round(rate)
        return None


def _path(row: dict[str, str]) -> str:
    return row["path"].removesuffix(".hea").removesuffix(".dat")


class _MeasurementTable:
    """Rows of machine_measurements.csv by study, read from disk when asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        try:
            self._columns = check_columns(_parse_line(self._file.readline(), path), _MEASUREMENT_COLUMNS, path)
            numbered = [(int(m[1]), m[0]) for m in map(_REPORT_COLUMN.fullmatch, self._columns) if m]
            self.report_columns = tuple(name for _, name in sorted(numbered))
            self._listed, self._offsets = self._locate()
        except BaseException:
            self._file.close()
            raise
        self._sorted = np.argsort(self._listed, kind="stable")
        twice = (np.diff(np.asarray(self._listed)[self._sorted]) == 0).any()
        self._in_step = not twice  # of several rows for one study the first counts, and must be looked for
        self._next = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def find(self, study_id: str) -> dict[str, str]:
        """Return a study's row, empty if the table has none."""
        study = int(study_id) if study_id.isdigit() else -1
        # Mostly both tables have the same order.
        if not (self._in_step and self._next < len(self._listed) and self._listed[self._next] == study):
            position = int(np.searchsorted(self._listed, study, sorter=self._sorted))
            if position == len(self._listed) or self._listed[place := int(self._sorted[position])] != study:
                return {}
            self._next = place
        self._file.seek(self._offsets[self._next])
        self._next += 1
        fields = _parse_line(self._row_bytes(), self._path)
        return check_row(fields, self._columns, f"{self._path}, study {study_id}")

    def _row_bytes(self) -> bytes:
        """Read one row, which a quoted line break spreads over several lines."""
        row = self._file.readline()
        while row.count(b'"') % 2 and (more := self._file.readline()):
            row += more
        return row

    def _locate(self) -> "tuple[array[int], array[int]]":
        """Return the study id of each row and its offset."""
        studies, offsets = array("q"), array("q")
        column = self._columns.index("study_id")
        offset = self._file.tell()
        while row := self._row_bytes():
            if row.strip():
                studies.append(self._study_of(row, column, len(studies) + 1))
                offsets.append(offset)
            offset += len(row)
        return studies, offsets

    def _study_of(self, row: bytes, column: int, number: int) -> int:
        """Return a row's study id without parsing all of it; a row of the wrong length must not lend its id."""
        plain = b'"' not in row
        try:
            if plain and row.count(b",") != len(self._columns) - 1:
                raise ValueError
            return int(row.split(b",", column + 1)[column].strip(b' "\r\n'))
        except (ValueError, IndexError):
            raise DataError(
                f"{self._path}, row {number}: expected {len(self._columns)} fields with a study_id, not {row[:60]!r}.",
                "The file is damaged or cut off; download it again.",
            ) from None


def _parse_line(line: bytes, path: Path) -> list[str]:
    try:
        return next(csv.reader([line.decode("utf-8-sig")]), [])
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a UTF-8 csv file ({error}).", "Download it again.") from error


def _info(row: dict[str, str], measured: dict[str, str], report_columns: tuple[str, ...]) -> RecordInfo:
    lines = [line for column in report_columns if (line := measured[column].strip())] if measured else []
    return RecordInfo(
        record_id=f"{MimicIvEcg.kind}:{row['study_id']}",
        dataset=MimicIvEcg.kind,
        subject_id=row["subject_id"],
        study_id=row["study_id"],
        path=_path(row),
        ecg_time=iso_time(row["ecg_time"]),
        report_lines=tuple(lines),
        measurements=derive_measurements(measured),
        extra={name: value for name in _EXTRA if (value := measured.get(name, "").strip())},
    )


def derive_measurements(row: dict[str, str]) -> Measurements:
    """Derive rate and intervals from one row of machine_measurements.csv.

    Args:
        row: `rr_interval`, `p_onset`, `p_end`, `qrs_onset`, `qrs_end`, `t_end` in ms and the axes in degrees, as text;
            blank, 29999, zero and negative times mean unknown.

    Returns:
        Rate 60000/RR, PR from P onset to QRS onset, QRS from onset to end, QT from QRS onset to T end, QTc by Bazett,
        to a tenth of their unit.
    """
    rr, p_onset, _, qrs_onset, qrs_end, t_end = [_positive(parse_number(row.get(name))) for name in _INTERVALS]
    p_axis, qrs_axis, t_axis = [_angle(parse_number(row.get(name))) for name in _AXES]
    qt = _difference(t_end, qrs_onset)
    return Measurements(
        heart_rate_bpm=None if rr is None else round(60_000 / rr, 1),
        rr_interval_ms=rr,
        pr_interval_ms=_difference(qrs_onset, p_onset),
        qrs_duration_ms=_difference(qrs_end, qrs_onset),
        qt_interval_ms=qt,
        qtc_ms=None if qt is None or rr is None else round(qt / sqrt(rr / 1000), 1),
        p_axis_deg=p_axis,
        qrs_axis_deg=qrs_axis,
        t_axis_deg=t_axis,
    )


def _positive(value: float | None) -> float | None:
    return value if value is not None and 0 < value < _SENTINEL else None


def _difference(end: float | None, start: float | None) -> float | None:
    return None if end is None or start is None else _positive(end - start)


def _angle(value: float | None) -> float | None:
    return value if value is not None and -360 <= value <= 360 else None
