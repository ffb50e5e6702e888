"""Folders whose only table is their headers: CPSC2018, CSN and any other WFDB folder.

PhysioNet Challenge headers carry age, sex and SNOMED codes as comments. The two Challenge sets that fgclep evaluates
on are told by their record names (A0001, JS00001); all other folders are plain WFDB, with the same comments read
where a header has them.
"""

import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from fgclep.datasets.base import Dataset, parse_number
from fgclep.datasets.snomed import tag_of_code
from fgclep.errors import DataError
from fgclep.record import RecordInfo
from fgclep.wfdb_io import header_comments

PLAIN_KIND = "wfdb"
_NAMES = {"cpsc2018": "CPSC2018", "csn": "Chapman-Shaoxing-Ningbo", PLAIN_KIND: "WFDB folder"}
_RECORD_NAMES = {"cpsc2018": re.compile(r"A\d{4}"), "csn": re.compile(r"JS\d{5}")}
_SEX = {"male": "M", "m": "M", "female": "F", "f": "F"}
_ANGLES = str.maketrans("", "", "<>")


class WfdbFolder(Dataset):
    """All records below a folder, each known by its header."""

    def __init__(self, root: Path, fs_hz: int | None = None) -> None:
        super().__init__(root, (), fs_hz)
        self.kind = _kind_of(self._stems)
        self.name = _NAMES[self.kind]

    @cached_property
    def _stems(self) -> tuple[str, ...]:
        return _find_stems(self.root)

    def __bool__(self) -> bool:
        """Tell whether the folder has any record."""
        return bool(self._stems)

    def iter_infos(self) -> Iterator[RecordInfo]:
        """Yield every record that has a header, by path."""
        for stem in self._stems:
            yield _info(self.root, stem, self.kind, self._record_id(stem))

    def iter_listed(self) -> Iterator[tuple[str, str]]:
        """Yield the record id and the path of every record that the data set lists."""
        for stem in self._stems:
            yield self._record_id(stem), stem

    def _record_id(self, stem: str) -> str:
        return f"{self.kind}:{stem if self.kind == PLAIN_KIND else stem.rpartition('/')[2]}"


def _find_stems(root: Path) -> tuple[str, ...]:
    """Return the records below a folder as sorted POSIX paths without extension, segments of others left out.

    Raises:
        DataError: if a name is not UTF-8.
    """
    stems: list[str] = []
    segments: set[str] = set()
    for folder, folders, files in os.walk(root):
        folders.sort()
        below = Path(folder).relative_to(root).as_posix()
        prefix = "" if below == "." else f"{below}/"
        for name in files:
            if name.endswith(".hea"):
                _check_name(f"{folder}/{name}")
                stems.append(prefix + name[:-4])
                segments.update(prefix + segment for segment in _segment_names(Path(folder, name)))
    return tuple(sorted(stem for stem in stems if stem not in segments))


def _check_name(path: str) -> None:
    """Refuse a name that is not UTF-8: it becomes a record id, which no table or output could hold."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"The name {path!r} is not UTF-8.", "Rename the file or its folder.") from error


def _segment_names(header: Path) -> list[str]:
    """Return the names of the segments that a multi-segment header joins; none for any other header."""
    text = _read_text(header)
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [line[0] for line in lines[1:]] if lines and "/" in lines[0][0] else []


def _read_text(header: Path) -> str:
    """Read a header; an unreadable one is empty here and rejected with its reason when its record is read."""
    try:
        return header.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _kind_of(stems: tuple[str, ...]) -> str:
    names = {stem.rpartition("/")[2] for stem in stems}
    if len(names) == len(stems):  # a name that occurs twice is no record id
        for kind, pattern in _RECORD_NAMES.items():
            if names and all(pattern.fullmatch(name) for name in names):
                return kind
    return PLAIN_KIND


def _info(root: Path, stem: str, kind: str, record_id: str) -> RecordInfo:
    name = stem.rpartition("/")[2]
    said = _parse_comments(header_comments(_read_text(root / f"{stem}.hea")))
    codes = [code.strip() for code in said.get("dx", "").split(",") if code.strip().casefold() not in ("", "unknown")]
    age = parse_number(said.get("age"))
    extra = {"snomed": ",".join(codes)} if codes else {}
    return RecordInfo(
        record_id=record_id,
        dataset=kind,
        subject_id=said.get("subject_id") or record_id.partition(":")[2],
        study_id=name,
        path=stem,
        age_years=age if age is not None and age >= 0 else None,
        sex=_SEX.get(said.get("sex", "").casefold()),
        tags=tuple(dict.fromkeys(tag_of_code(code) for code in codes)),
        extra=extra,
    )


def _parse_comments(comments: tuple[str, ...]) -> dict[str, str]:
    """Read `Age: 85` and MIMIC's `<subject_id>: 12177274` into lower-case keys."""
    pairs = (comment.partition(":") for comment in comments)
    return {key.translate(_ANGLES).strip().casefold(): value.strip() for key, colon, value in pairs if colon}
