"""The evaluation sets that papers use, built from the original releases by name (METHOD F)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgclep.datasets import Dataset, open_for_rate
from fgclep.datasets.base import iter_csv
from fgclep.errors import DataError, NotSetUpError, UsageError
from fgclep.evaluation.benchmark_base import SPLITS, Benchmark, Split
from fgclep.evaluation.benchmark_challenge import CHALLENGE_BENCHMARKS
from fgclep.evaluation.benchmark_ptbxl import PTBXL_BENCHMARKS
from fgclep.record import RecordInfo

__all__ = ["BENCHMARKS", "SPLITS", "BenchmarkSplit", "Split", "benchmark", "open_benchmark"]

_ALL = {known.name: known for known in (*PTBXL_BENCHMARKS, *CHALLENGE_BENCHMARKS)}

BENCHMARKS: tuple[str, ...] = tuple(_ALL)
"""The names of all benchmarks."""


@dataclass(frozen=True)
class BenchmarkSplit:
    """The records of one split with what is true of them; listed = missing + unlabelled + len(infos).

    Attributes:
        name: of the benchmark.
        dataset: reads the records.
        classes: of the C columns, in the published order, whether they have positives here or not.
        infos: the n records that take part and have files.
        labels: bool, shape (n, C).
        listed: records that the data set's table, or the split file, has for this split.
        missing: those of them that have no files here.
        unlabelled: those of them that have files and take no part, having no class.
        source: where labels and split come from, for people.
    """

    name: str
    split: Split
    dataset: Dataset
    classes: tuple[str, ...]
    infos: list[RecordInfo]
    labels: NDArray[np.bool_]
    listed: int
    missing: int
    unlabelled: int
    source: str


def benchmark(name: str) -> Benchmark:
    """Return a benchmark's definition.

    Raises:
        UsageError: if there is none of that name.
    """
    if name not in _ALL:
        raise UsageError(f"there is no benchmark {name!r}; known: {', '.join(BENCHMARKS)}.", "Give one of these names.")
    return _ALL[name]


def open_benchmark(
    name: str, data: Path, split: Split, *, splits: Path | None = None, fs_hz: float, may_be_empty: bool = False
) -> BenchmarkSplit:
    """Find the records and labels of a benchmark in a tree, complete or not.

    Args:
        name: one of `BENCHMARKS`.
        data: the data set's tree.
        split: which part.
        splits: folder that holds the published split files, at any depth; labels and split are then theirs. Without
            it both follow from the release itself.
        fs_hz: rate wanted; the tree is read at the rate that suits it (`open_for_rate`).
        may_be_empty: whether a split without records is an answer and not an error.

    Raises:
        UsageError: if the benchmark or the split is unknown.
        NotSetUpError: if the tree, the folder or the split file does not exist.
        DataError: if the tree is another data set or has no record of the split, or a file is damaged.
    """
    definition = benchmark(name)
    if split not in SPLITS:
        raise UsageError(f"there is no split {split!r}; known: {', '.join(SPLITS)}.", "Give one of these names.")
    dataset = open_for_rate(data, fs_hz)
    if dataset.kind != definition.kind:
        raise DataError(
            f"{data} is {dataset.name} ({dataset.kind}); {name} is made of {definition.data_name}.",
            f"fgclep data scan {data}",
        )
    if splits is None:
        infos = [info for info in dataset.iter_infos() if definition.split_of(info) == split]
        classes_of = {info.study_id: found for info in infos if (found := definition.classes_of(info)) is not None}
        listed = definition.count_listed(dataset, split)
        source = f"the release's codes, split by {definition.split_rule}"
    else:
        file = _find_split_file(splits, definition.split_file(split))
        classes_of = _read_split_file(file, definition)
        infos = [info for info in dataset.iter_infos() if info.study_id in classes_of]
        listed = len(classes_of)
        source = f"the split file {file.name}"
    labelled = [info for info in infos if info.study_id in classes_of]
    if not labelled and not may_be_empty:
        raise DataError(
            f"{data} has no record of {name}, split {split} ({listed:,} listed, {len(infos):,} with files).",
            f"fgclep data scan {data}",
        )
    rows = [[c in classes_of[info.study_id] for c in definition.classes] for info in labelled]
    labels = np.array(rows, dtype=bool).reshape(len(rows), len(definition.classes))
    return BenchmarkSplit(
        name=name,
        split=split,
        dataset=dataset,
        classes=definition.classes,
        infos=labelled,
        labels=labels,
        listed=listed,
        missing=listed - len(infos),
        unlabelled=len(infos) - len(labelled),
        source=source,
    )


def _find_split_file(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise NotSetUpError(f"{folder} is no folder; expected the folder of the published split files.")
    found = sorted(folder.rglob(name))
    if not found:
        raise NotSetUpError(
            f"{folder} holds no {name}, at any depth.",
            "Leave out --splits to split by the release's own codes, or give the folder data_split of MERL.",
        )
    return found[0]


def _read_split_file(file: Path, definition: Benchmark) -> dict[str, frozenset[str]]:
    """Return the classes by record, by column name."""
    classes_of: dict[str, frozenset[str]] = {}
    for row in iter_csv(file, definition.split_columns):
        try:
            study_id, classes = definition.parse_row(row)
        except ValueError as error:
            raise DataError(f"{file}: {error}.", "Use the published file.") from None
        if study_id in classes_of:
            raise DataError(f"{file} lists the record {study_id} twice; expected once.", "Use the published file.")
        classes_of[study_id] = classes
    return classes_of
