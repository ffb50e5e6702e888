"""Whether a proposed feature is true of a record, where the data set can tell.

A feature is read as findings, by the tagger or as a wording of the catalogue. It is true of a record if every finding
it asserts holds, false if one is known not to, and unknown otherwise. Conduction disturbances do not count: the tagger
takes any wide QRS for one, which is what a report means by these words and not what a feature does.

Synthetic trees know everything their generator produces; of PTB-XL only findings with annotators' codes are judged, and
by the codes only, so that a report is no witness for itself.
"""

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgclep.datasets import Dataset
from fgclep.datasets.base import iter_csv
from fgclep.findings.catalog import findings, fold_wording
from fgclep.findings.tagger import PARENTS, tag_statement
from fgclep.record import RecordInfo
from fgclep.training.labels import Labels, finding_ids, ptbxl_labels, synthetic_labels

_SYNTHETIC_TRUTH = "synthetic_truth.csv"
_UNJUDGED = ("conduction", "superclass")


@functools.lru_cache(maxsize=65536)
def feature_terms(feature: str) -> tuple[tuple[str, int], ...]:
    """Return what a feature asserts: (finding id, +1 present or -1 absent) pairs, empty if nothing is recognised.

    What another of its findings implies is left out, and so are single leads where a territory is meant: "T wave
    inversion in V1 to V4" is inversion in the anterior leads.
    """
    asserted = {(a.finding, 1 if a.present else -1) for a in tag_statement(feature)}
    if not asserted:
        asserted = {(key, 1) for key in _by_wording().get(fold_wording(feature), ())}
    asserted = {(key, sign) for key, sign in asserted if findings()[key].group not in _UNJUDGED}
    implied = {parent for key, _ in asserted for parent in PARENTS.get(key, ())}
    own = {(key, sign) for key, sign in asserted if key not in implied}
    whole = {(key, sign) for key, sign in own if "@" not in key}
    if len(whole or own) > 1 and " or " in feature:
        return ()  # "flat, inverted or tall": no one of them is asserted
    return tuple(sorted(whole or own))


@functools.cache
def _by_wording() -> dict[str, tuple[str, ...]]:
    """Return the finding of each wording that belongs to one finding only."""
    found: dict[str, set[str]] = {}
    for key, finding in findings().items():
        for wording in (*finding.wordings, *finding.held_out):
            found.setdefault(fold_wording(wording.text), set()).add(key)
    return {text: tuple(keys) for text, keys in found.items() if len(keys) == 1}


def known_labels(dataset: Dataset, infos: Sequence[RecordInfo]) -> Labels | None:
    """Return what is known of records, int8 (n, findings): +1 present, -1 absent, 0 unknown; None: nothing."""
    if dataset.kind == "ptb-xl":
        codable = np.array([bool(finding.scp) for finding in findings().values()], np.int8)
        by_codes = [ptbxl_labels(replace(info, report_lines=())) for info in infos]
        rows = np.array(by_codes, np.int8).reshape(len(infos), len(codable))
        return rows * codable
    truth_file = dataset.root / _SYNTHETIC_TRUTH
    if _SYNTHETIC_TRUTH in dataset.side_tables and truth_file.is_file():  # a pack's folder may hold another one's
        truth = _read_synthetic_truth(truth_file)
        return synthetic_labels([replace(info, tags=tuple(truth.get(info.study_id, ()))) for info in infos])
    return None


def _read_synthetic_truth(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in iter_csv(path, ("study_id", "finding")):
        found.setdefault(row["study_id"], []).append(row["finding"])
    return found


def pair_truth(
    features: Sequence[str], rows: NDArray[np.intp], columns: NDArray[np.intp], labels: Labels
) -> NDArray[np.int8]:
    """Return the truth of (record, feature) pairs.

    Args:
        features: m features.
        rows, columns: p pairs: row of `labels` and position in `features`.
        labels: int8, shape (n, findings), in the order of `finding_ids`.

    Returns:
        int8, shape (p,): +1 true, -1 false, 0 unknown.
    """
    position = {key: index for index, key in enumerate(finding_ids())}
    terms = [feature_terms(feature) for feature in features]
    width = max(map(len, terms), default=0) or 1
    always = labels.shape[1]  # a column of +1 fills rows of fewer terms
    indices = np.full((len(terms), width), always)
    signs = np.ones((len(terms), width), np.int8)
    for row, of_feature in enumerate(terms):
        for place, (key, sign) in enumerate(of_feature):
            indices[row, place], signs[row, place] = position[key], sign
    padded = np.concatenate([labels, np.ones((len(labels), 1), np.int8)], axis=1)
    truth = np.asarray((padded[rows[:, None], indices[columns]] * signs[columns]).min(axis=1, initial=1), np.int8)
    recognised = np.array([bool(of_feature) for of_feature in terms], bool)
    truth[~recognised[columns]] = 0
    return truth
