"""What retrieval and calibration are measured on: records, and which classes are true of each.

Any benchmark (`fgclep.evaluation.benchmarks`) serves, asked for by its plain class texts. Two more sets exist for
search: `ptbxl-all`, the 71 statements of PTB-XL on every record of a split, and `synthetic`, a tree written by
`fgclep data synth`, whose truth is exact for all findings the generator makes, also lead by lead.
"""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgclep.datasets import Dataset, open_for_rate
from fgclep.datasets.base import iter_csv
from fgclep.errors import DataError, UsageError
from fgclep.evaluation.benchmark_base import SPLITS, Split
from fgclep.evaluation.benchmark_ptbxl import PTBXL_BENCHMARKS
from fgclep.evaluation.benchmarks import BENCHMARKS, open_benchmark
from fgclep.evaluation.bootstrap import defined_columns
from fgclep.evaluation.prompts import prompts_for
from fgclep.evaluation.text_search import TASKS, task_labels
from fgclep.findings.catalog import findings, fold_wording
from fgclep.record import RecordInfo
from fgclep.training.labels import finding_ids, synthetic_labels

PTBXL_ALL = "ptbxl-all"
SYNTHETIC = "synthetic"
SEARCH_SETS = (PTBXL_ALL, SYNTHETIC, *BENCHMARKS)
"""The names of all sets that retrieval can be measured on."""

_TRUTH = "synthetic_truth.csv"


@dataclass(frozen=True)
class SearchSet:
    """Records with their truth; listed = missing + unlabelled + len(infos) until records are left out with `keep`.

    Attributes:
        name: one of `SEARCH_SETS`.
        split: `train`, `val`, `test`, or `all` where there are no splits.
        source: where labels and split come from, for people.
        classes: names of the C columns.
        texts: the plain name that each class is asked for by.
        findings: the finding of the catalogue that each class is, None where it is none.
        labels: bool, shape (n, C).
    """

    name: str
    split: str
    source: str
    dataset: Dataset
    infos: tuple[RecordInfo, ...]
    classes: tuple[str, ...]
    texts: tuple[str, ...]
    findings: tuple[str | None, ...]
    labels: NDArray[np.bool_]
    listed: int
    missing: int
    unlabelled: int

    @property
    def subject_ids(self) -> tuple[str, ...]:
        """The subjects of the records."""
        return tuple(info.subject_id for info in self.infos)

    def keep(self, rows: NDArray[np.intp]) -> "SearchSet":
        """Return the set with these records only."""
        return replace(self, infos=tuple(self.infos[row] for row in rows), labels=self.labels[rows])

    def columns(self, min_positives: int = 1, *, by_lead: bool = False) -> list[int]:
        """Return the columns with both outcomes and at least so many positives.

        Args:
            by_lead: return findings that are stated lead by lead, or all others.
        """
        counts = self.labels.sum(axis=0)
        return [
            c for c in defined_columns(self.labels) if counts[c] >= min_positives and self._is_by_lead(c) == by_lead
        ]

    def skipped(self, min_positives: int = 1) -> tuple[str, ...]:
        """Name the classes that `columns` leaves out, but for those that are stated lead by lead."""
        asked = set(self.columns(min_positives))
        return tuple(name for c, name in enumerate(self.classes) if c not in asked and not self._is_by_lead(c))

    def _is_by_lead(self, column: int) -> bool:
        key = self.findings[column]
        return key is not None and findings()[key].group == "lead"


def open_search_set(
    name: str, data: Path, split: Split | None = None, *, splits: Path | None = None, fs_hz: float
) -> SearchSet:
    """Find the records of a set in a tree, complete or not, with their truth.

    Args:
        name: one of `SEARCH_SETS`.
        data: the data set's tree.
        split: which part; the validation part unless told. Synthetic trees have none.
        splits: folder of published split files, for benchmarks.
        fs_hz: rate wanted; the tree is read at the rate that suits it (`open_for_rate`).

    Raises:
        UsageError: if the name or split is unknown, or does not go with the other.
        NotSetUpError: if a folder or file does not exist.
        DataError: if the tree is another data set or has no record of the split.
    """
    if name not in SEARCH_SETS:
        raise UsageError(f"there is no data set {name!r} to search; known: {', '.join(SEARCH_SETS)}.", "Give a name.")
    if splits is not None and name not in BENCHMARKS:
        raise UsageError(f"--splits does not go with {name}: no split files of it were published.", "Leave it out.")
    if split is not None and split not in SPLITS:
        raise UsageError(f"there is no split {split!r}; known: {', '.join(SPLITS)}.", "Give one of these names.")
    if name == SYNTHETIC:
        if split is not None:
            raise UsageError("a synthetic tree has no splits; all its records are used.", "Leave --split out.")
        return _open_synthetic(data, fs_hz)
    if name == PTBXL_ALL:
        return _open_ptbxl_all(data, split or "val", fs_hz)
    return _open_benchmark(name, data, split or "val", splits, fs_hz)


def _open_benchmark(name: str, data: Path, split: Split, splits: Path | None, fs_hz: float) -> SearchSet:
    found = open_benchmark(name, data, split, splits=splits, fs_hz=fs_hz)
    plain = prompts_for(name, "plain")
    texts = tuple(plain[c][0] for c in found.classes)
    return SearchSet(
        name=name,
        split=split,
        source=found.source,
        dataset=found.dataset,
        infos=tuple(found.infos),
        classes=found.classes,
        texts=texts,
        findings=tuple(_finding_called().get(fold_wording(text)) for text in texts),
        labels=found.labels,
        listed=found.listed,
        missing=found.missing,
        unlabelled=found.unlabelled,
    )


def _open_ptbxl_all(data: Path, split: Split, fs_hz: float) -> SearchSet:
    definition = PTBXL_BENCHMARKS[0]  # the four share data set and folds
    dataset = open_for_rate(data, fs_hz)
    if dataset.kind != definition.kind:
        raise DataError(
            f"{data} is {dataset.name} ({dataset.kind}); {PTBXL_ALL} is made of {definition.data_name}.",
            f"fgclep data scan {data}",
        )
    infos = [info for info in dataset.iter_infos() if definition.split_of(info) == split]
    listed = definition.count_listed(dataset, split)
    if not infos:
        raise DataError(f"{data} has none of the {listed:,} records of split {split}.", f"fgclep data scan {data}")
    classes = TASKS["all"]
    return SearchSet(
        name=PTBXL_ALL,
        split=split,
        source=f"the release's codes, split by {definition.split_rule}",
        dataset=dataset,
        infos=tuple(infos),
        classes=classes,
        texts=tuple(findings()[key].name for key in classes),
        findings=classes,
        labels=task_labels(infos, "all")[1],
        listed=listed,
        missing=listed - len(infos),
        unlabelled=0,
    )


def _open_synthetic(data: Path, fs_hz: float) -> SearchSet:
    dataset = open_for_rate(data, fs_hz)
    if not (data / _TRUTH).is_file():
        raise DataError(f"{data} has no {_TRUTH}; expected a tree of synthetic ECGs.", "fgclep data synth DIR -n 1000")
    truth: dict[str, list[str]] = {}
    for row in iter_csv(data / _TRUTH, ("study_id", "finding")):
        truth.setdefault(row["study_id"], []).append(row["finding"])
    infos = tuple(replace(info, tags=tuple(truth.get(info.study_id, ()))) for info in dataset.iter_infos())
    if not infos:
        raise DataError(f"{data} has none of its {dataset.listed:,} records.", f"fgclep data scan {data}")
    known = synthetic_labels(infos)
    columns = np.flatnonzero((known != 0).all(axis=0))
    classes = tuple(finding_ids()[c] for c in columns)
    return SearchSet(
        name=SYNTHETIC,
        split="all",
        source="the generator's own truth",
        dataset=dataset,
        infos=infos,
        classes=classes,
        texts=tuple(findings()[key].name for key in classes),
        findings=classes,
        labels=known[:, columns] == 1,
        listed=dataset.listed,
        missing=len(dataset.missing),
        unlabelled=0,
    )


@cache
def _finding_called() -> dict[str, str]:
    """Return which finding a text names; texts that are wordings of several findings name none."""
    by_name = {fold_wording(finding.name): key for key, finding in findings().items()}
    by_wording: dict[str, set[str]] = {}
    for key, finding in findings().items():
        for wording in (*finding.wordings, *finding.held_out):
            if wording.kind in ("plain", "synonym", "shorthand"):
                by_wording.setdefault(fold_wording(wording.text), set()).add(key)
    return {text: next(iter(keys)) for text, keys in by_wording.items() if len(keys) == 1} | by_name
