"""What the figures of a model show: which reports, which records, which hits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import DataError, UsageError
from fgclep.evaluation.figures import COLOURS
from fgclep.evaluation.figures_maps import OTHER
from fgclep.findings.catalog import findings, ptbxl_code
from fgclep.record import EcgRecord, RecordInfo
from fgclep.reports import clean_report

BATCH = 32
"""Reports on each side of the heat map, as in Figure 3 of the paper."""
SHOWN_HITS = 3

_MOST_OTHERS = 400  # records with none of the findings that are shown behind the others
_NORMAL = "NORM"


@dataclass(frozen=True)
class PlateHit:
    """One record found, to be drawn."""

    record: EcgRecord
    similarity: float


DrawPlate = Callable[[str, Sequence[PlateHit], Path], None]
"""Draws the first hits of a query, best first, to a .png or .svg file."""


def codes_of(info: RecordInfo) -> frozenset[str]:
    """Return a record's codes as ids of findings and as PTB-XL codes in the form of `Finding.scp`."""
    return frozenset(ptbxl_code(tag) for tag in info.tags)


def finding_names(keys: Sequence[str]) -> list[str]:
    """Return the plain names of findings.

    Raises:
        UsageError: if one is unknown, or they are more than a map has colours.
    """
    unknown = [key for key in keys if key not in findings()]
    if unknown:
        raise UsageError(f"there is no finding {unknown[0]!r}.", "The ids are those in fgclep/findings/data.")
    if not 1 <= len(keys) <= len(COLOURS):
        raise UsageError(f"{len(keys)} findings were asked for; a map shows one to {len(COLOURS)}.")
    return [findings()[key].name for key in keys]


def map_groups(
    infos: Sequence[RecordInfo], keys: Sequence[str], seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Choose the records of a map: those with exactly one of the findings, and some with none.

    Args:
        infos: n records.
        keys: ids of findings.
        seed: chooses among the records with none.

    Returns:
        Rows of `infos`, ascending, and the group of each: the number of its finding, or `OTHER`.

    Raises:
        DataError: if no record has exactly one of the findings.
    """
    wanted = [{key, *findings()[key].scp} for key in keys]
    present = np.array([[bool(codes_of(info) & codes) for codes in wanted] for info in infos])
    alone = np.flatnonzero(present.sum(axis=1) == 1)
    if not len(alone):
        raise DataError(f"none of {len(infos):,} records has exactly one of the findings {', '.join(keys)}.")
    none = np.flatnonzero(~present.any(axis=1))
    rng = np.random.default_rng(seed)
    rows = np.sort(np.concatenate([alone, rng.permutation(none)[:_MOST_OTHERS]]))
    groups = np.where(present[rows].any(axis=1), present[rows].argmax(axis=1), OTHER)
    return rows, groups.astype(np.intp)


def similarity_batches(
    infos: Sequence[RecordInfo], encode_text: Callable[[list[str]], NDArray[np.float32]], seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compare reports with each other: a random batch, and one whose first half is of normal ECGs.

    The reports are the records' own, cleaned and in lower case as in training.

    Returns:
        Two matrices of cosines, float32, shape (32, 32).

    Raises:
        DataError: if there are too few reports of normal or of abnormal ECGs.
    """
    texts = [clean_report(info.report_lines, lower=True) for info in infos]
    normal = [row for row, info in enumerate(infos) if texts[row] and _NORMAL in codes_of(info)]
    abnormal = [row for row, info in enumerate(infos) if texts[row] and _NORMAL not in codes_of(info)]
    half = BATCH // 2
    if min(len(normal), len(abnormal)) < half:
        raise DataError(
            f"{len(normal)} reports of normal and {len(abnormal)} of other ECGs; the heat map needs {half} of each."
        )
    rng = np.random.default_rng(seed)
    mixed = rng.choice(sorted(normal + abnormal), BATCH, replace=False)
    grouped = [*rng.choice(normal, half, replace=False), *rng.choice(abnormal, half, replace=False)]
    vectors = encode_text([texts[row] for row in (*mixed, *grouped)])
    left, right = vectors[:BATCH], vectors[BATCH:]
    return left @ left.T, right @ right.T


def top_rows(similarities: NDArray[np.float32], subject_ids: Sequence[str], count: int = SHOWN_HITS) -> list[int]:
    """Return the rows of the highest similarities, one per subject; of equal ones the first comes first."""
    rows: list[int] = []
    seen: set[str] = set()
    for row in np.argsort(-similarities, kind="stable").tolist():
        if subject_ids[row] not in seen:
            rows.append(row)
            seen.add(subject_ids[row])
        if len(rows) == count:
            break
    return rows
