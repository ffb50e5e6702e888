"""Fit the score of a bundle on labelled records, assess it before and after, and put it into the bundle."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fgclep.evaluation.benchmark_base import Split
from fgclep.evaluation.calibration import (
    REFERENCE_PREVALENCE,
    Assessment,
    assess,
    cross_validated_scores,
    fit_platt,
)
from fgclep.evaluation.results import Measured, measured, write_json
from fgclep.evaluation.retrieval import open_model
from fgclep.evaluation.retrievers import TextScorer
from fgclep.evaluation.search_set import SearchSet
from fgclep.evaluation.zero_shot import Embed
from fgclep.findings.catalog import findings
from fgclep.pretrained import CALIBRATION_NAME, Calibration, load_calibration

MIN_POSITIVES = 5
"""Positives that a finding needs to be assessed; in the fit all findings with both outcomes take part."""


@dataclass(frozen=True)
class CalibrationResult(Measured):
    """A bundle's curve before and after; every assessment is at `prevalence`.

    Attributes:
        dataset: one of `SEARCH_SETS`.
        prevalence: that new scores are probabilities for.
        texts: findings that were assessed, asked for by plain name.
        skipped: those with fewer than 5 positives, or without negatives. Findings that are stated lead by lead are
            neither assessed nor in the fit.
        old: the curve that the bundle came with.
        new: the curve fitted to all records and findings.
        before: of `old`.
        after: of curves that saw neither the subjects nor the findings they are assessed on.
        other_texts: wordings of the same findings that training does not use.
        other_before, other_after: of `old` and `new` on these; None if there are none.
    """

    dataset: str
    seed: int
    prevalence: float
    texts: int
    skipped: tuple[str, ...]
    old: Calibration
    new: Calibration
    before: Assessment
    after: Assessment
    other_texts: int
    other_before: Assessment | None
    other_after: Assessment | None


def calibrate_bundle(
    bundle: Path,
    name: str,
    data: Path,
    split: Split | None,
    *,
    splits: Path | None = None,
    embed: Embed,
    seed: int = 0,
) -> CalibrationResult:
    """Fit the curve of a bundle and assess it; nothing is written.

    Args:
        bundle: directory of the bundle.
        name: one of `SEARCH_SETS`.
        data: the data set's tree.
        split: which part, see `open_search_set`.
        splits: folder of published split files.
        embed: encodes records into the space of texts.
        seed: of the folds.

    Raises:
        FgclepError: as `open_model` and `load_calibration` do.
        DataError: if the records are too few to fit or to cross-validate.
    """
    old = load_calibration(bundle)
    records, retriever, rejected = open_model(str(bundle), name, data, split, splits=splits, embed=embed)
    every = records.columns()
    new = fit_platt(retriever.score([records.texts[c] for c in every]), records.labels[:, every])
    columns = records.columns(MIN_POSITIVES)
    labels = records.labels[:, columns]
    similarity = retriever.score([records.texts[c] for c in columns])
    crossed = cross_validated_scores(similarity, labels, records.subject_ids, seed=seed)
    others, before, after = _other_wordings(records, columns, retriever.score, old, new)
    return CalibrationResult(
        **measured(records, retriever, records.subject_ids, rejected),
        dataset=records.name,
        seed=seed,
        prevalence=REFERENCE_PREVALENCE,
        texts=len(columns),
        skipped=records.skipped(MIN_POSITIVES),
        old=old,
        new=new,
        before=assess(old.score(similarity), labels),
        after=assess(crossed, labels),
        other_texts=others,
        other_before=before,
        other_after=after,
    )


def _other_wordings(
    records: SearchSet, columns: list[int], score: TextScorer, old: Calibration, new: Calibration
) -> tuple[int, Assessment | None, Assessment | None]:
    """Assess both curves on wordings that training does not use."""
    asked = [
        (c, wording.text)
        for c in columns
        if (key := records.findings[c]) is not None
        for wording in findings()[key].held_out
    ]
    if not asked:
        return 0, None, None
    similarity = score([text for _, text in asked])
    labels = records.labels[:, np.array([c for c, _ in asked])]
    return len(asked), assess(old.score(similarity), labels), assess(new.score(similarity), labels)


def write_calibration(bundle: Path, calibration: Calibration) -> Path:
    """Put a curve into a bundle; the file is either the old or the new one, never half of it.

    Returns:
        The file.
    """
    file = bundle / CALIBRATION_NAME
    write_json(file, asdict(calibration))
    return file
