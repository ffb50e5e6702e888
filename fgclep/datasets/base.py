"""What every data set offers, and the reading of its csv files with clear errors."""

import csv
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from fgclep.errors import DataError, UsageError
from fgclep.record import EcgRecord, RecordInfo
from fgclep.signal import clean
from fgclep.wfdb_io import SUFFIXES, read_wfdb

_CACHED = ("_survey", "_stems")


class Dataset(ABC):
    """A tree of records with what is known about them.

    Pickles to a few hundred bytes, whatever its size, so that worker processes can be handed `dataset.read`.

    Attributes:
        kind: the data set's id, the first half of its record ids.
        name: its name for people.
        root: the folder that holds it.
        rates: rates in Hz at which the tree stores every record; several mean a choice. Empty where each record is
            at a rate of its own, told by its header.
        fs_hz: the rate chosen among `rates`; None where `rates` is empty.
    """

    kind: str
    name: str

    side_tables: tuple[str, ...] = ()
    """Files in the root, where there, that others than this class read; a pack keeps copies."""

    def __init__(self, root: Path, rates: Sequence[int], fs_hz: int | None = None) -> None:
        self.root = root
        self.rates = tuple(sorted(rates))
        if fs_hz is not None and self.rates and fs_hz not in self.rates:
            have = " and ".join(f"{rate} Hz" for rate in self.rates)
            raise UsageError(f"{root} holds records at {have}; {fs_hz} Hz was asked for.", "Leave the rate out.")
        self.fs_hz = (fs_hz or self.rates[-1]) if self.rates else None

    @abstractmethod
    def iter_infos(self) -> Iterator[RecordInfo]:
        """Yield what is known about each record whose files exist, always in the same order."""

    @abstractmethod
    def iter_listed(self) -> Iterator[tuple[str, str]]:
        """Yield the record id and the path below the root of every record that the data set lists."""

    @cached_property
    def _survey(self) -> tuple[int, tuple[str, ...]]:
        listed, missing = 0, []
        for record_id, path in self.iter_listed():
            listed += 1
            if not self._has_files(path):
                missing.append(record_id)
        return listed, tuple(missing)

    @property
    def listed(self) -> int:
        """The number of records that the data set lists, whether their files exist or not."""
        return self._survey[0]

    @property
    def missing(self) -> tuple[str, ...]:
        """The ids of the listed records whose files are absent, as in a partial copy."""
        return self._survey[1]

    def _has_files(self, path: str) -> bool:
        """Tell whether a record's header exists; a sample file that is missing beside it is a reject when read."""
        return os.access(f"{self.root}/{path}.hea", os.F_OK)  # a Path for each of 800,000 rows takes seconds

    def read(self, info: RecordInfo) -> EcgRecord:
        """Read and clean one record.

        Raises:
            RecordReject: naming why the record cannot be used.
        """
        return clean(read_wfdb(f"{self.root}/{info.path}", info.record_id), info)

    def stamp(self, info: RecordInfo) -> list[tuple[int, int]]:
        """Return sizes and times of change of a record's files: as long as they stay, the record is taken as unchanged.

        Args:
            info: one of `iter_infos`.
        """
        stamps = []
        for suffix in SUFFIXES:
            try:
                status = os.stat(f"{self.root}/{info.path}{suffix}")  # noqa: PTH116 - see _has_files
            except OSError:
                continue
            stamps.append((status.st_size, status.st_mtime_ns))
        return stamps

    def __getstate__(self) -> dict[str, Any]:
        """Leave the tables behind; a worker process needs the root only."""
        return {name: value for name, value in self.__dict__.items() if name not in _CACHED}


def iter_csv(path: Path, required: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield the rows of a csv file, one at a time.

    Args:
        path: a UTF-8 file with a header line.
        required: columns without which the file is not what it should be.

    Raises:
        DataError: if the file is missing or empty, lacks a column, or has a row of another length.
    """
    try:
        file = path.open(newline="", encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.", "Download it again from where the data set came.") from None
    with file:
        reader = csv.reader(file)
        try:
            columns = check_columns(next(reader, []), required, path)
            for row in reader:
                if row:  # a blank line is no row
                    yield check_row(row, columns, f"{path}, line {reader.line_num}")
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path} is not a UTF-8 csv file ({error}).", "Download it again.") from error


def check_columns(columns: list[str], required: Sequence[str], path: Path) -> list[str]:
    """Return `columns`, or raise DataError naming those of `required` that are not among them."""
    lacking = [column for column in required if column not in columns]
    if lacking:
        have = f"it has {', '.join(columns)}" if columns else "it is empty"
        raise DataError(f"{path} lacks the column {', '.join(lacking)}; {have}.", "Use the data set's original file.")
    return columns


def check_row(row: list[str], columns: list[str], where: str) -> dict[str, str]:
    """Name the fields of a row, or raise DataError, saying `where`, if there are too few or too many."""
    if len(row) != len(columns):
        raise DataError(
            f"{where}: {len(row)} fields; expected {len(columns)}.",
            "The file is damaged or cut off; download it again.",
        )
    return dict(zip(columns, row, strict=True))


def parse_number(text: str | None) -> float | None:
    """Return a finite number, or None for anything else."""
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


def iso_time(text: str) -> str | None:
    """Return `2180-07-23 08:44:00` as ISO 8601, None for blank."""
    return text.strip().replace(" ", "T") or None
