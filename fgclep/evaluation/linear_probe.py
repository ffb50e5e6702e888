"""Linear probe: how much of a benchmark a simple head can read from a frozen encoder's features (METHOD A7)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgclep.datasets.base import iter_csv
from fgclep.errors import DataError, UsageError
from fgclep.evaluation.benchmarks import BenchmarkSplit, Split, benchmark, open_benchmark
from fgclep.evaluation.bootstrap import auc, bootstrap_macro, defined_columns
from fgclep.evaluation.domain import trained_in_domain
from fgclep.evaluation.encoders import Encoder, open_encoder
from fgclep.evaluation.probe_heads import (
    LabelledFeatures,
    fit_head,
    fit_neighbours,
    published_subset,
    stratified_subset,
)
from fgclep.evaluation.results import Interval, Measured, Scored, measured
from fgclep.evaluation.zero_shot import Embed

FRACTIONS = (1, 10, 100)
"""Shares of the training records that papers report, in per cent."""


@dataclass(frozen=True)
class ProbeRow:
    """Probes that learned from one training subset; numbers are macro AUC.

    Attributes:
        fraction: share of the training records in per cent.
        subset: `all`, `published` (the random draw of the published protocol) or `stratified`.
        train_records: learned from.
        absent: classes of the score without a positive among them; their AUC is luck, and part of the mean as in the
            literature.
        best_epoch: of the head, by validation.
        val: at that epoch on the validation records.
        test_at_best_val: at that epoch on the reported records.
        max_test: the best of all epochs on the reported records, which the literature prints; an upper bound.
        max_test_epoch: that epoch.
        neighbours: how many, by validation.
        knn_test_at_best_val: nearest neighbours on the reported records.
    """

    fraction: int
    subset: str
    train_records: int
    absent: tuple[str, ...]
    best_epoch: int
    val: float
    test_at_best_val: Interval
    max_test: float
    max_test_epoch: int
    neighbours: int
    knn_test_at_best_val: Interval


@dataclass(frozen=True)
class ProbeResult(Measured):
    """One encoder probed on one benchmark.

    Attributes:
        selected_on: the split that chose epochs and numbers of neighbours. Where it is `split` itself, every
            `test_at_best_val` was chosen on the records it is measured on.
        train_listed: records of the training split, of which `train_records` have files and labels and can be used.
        published_subset_exact: whether the `published` subsets are the very records of the papers, as far as they can
            be used here: only the split files tell which records, in which order, the draw went over.
        classes: those with both outcomes among the reported records.
        skipped: the others.
        in_domain: whether the encoder was trained on other records of this data set, as its card says; None: unknown.
    """

    benchmark: str
    selected_on: str
    feature_dim: int
    train_listed: int
    train_records: int
    published_subset_exact: bool
    classes: tuple[str, ...]
    skipped: tuple[str, ...]
    rows: tuple[ProbeRow, ...]
    draws: int
    seed: int
    in_domain: bool | None


@dataclass(frozen=True)
class _Part:
    """A split with the features of its usable records; `kept` are their rows among `known.infos`."""

    known: BenchmarkSplit
    kept: NDArray[np.intp]
    usable: LabelledFeatures
    rejects: dict[str, int]


def linear_probe(
    spec: str,
    name: str,
    data: Path,
    split: Split,
    *,
    embed: Embed,
    fractions: Sequence[int] = FRACTIONS,
    splits: Path | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[ProbeResult, dict[str, Scored]]:
    """Probe an encoder on a benchmark.

    Args:
        spec: the model, as `open_encoder` takes it.
        name: the benchmark.
        data: the data set's tree; its training records are learned from, its validation records choose.
        split: reported on, `test` or `val`.
        embed: turns records into frozen features.
        fractions: shares of the training records, in per cent.
        splits: folder of published split files.
        draws: of the bootstrap over subjects.
        seed: of the stratified subset, the order of training and the bootstrap.

    Returns:
        The result, and the head's scores at the best epoch by `<fraction>-<subset>`.

    Raises:
        UsageError: if `split` is the one to learn from, or a fraction is not of 1 to 100 or gives no record.
        DataError: if a split has no usable records, or no class has both outcomes.
        FgclepError: as `open_encoder` and `open_benchmark` do.
    """
    if split == "train":
        raise UsageError("a probe learns from the split train and cannot be reported on it.", "--split val")
    if not fractions or not all(1 <= fraction <= 100 for fraction in fractions):
        given = ", ".join(map(str, fractions)) or "none"
        raise UsageError(f"the fractions are {given}; expected per cents of 1 to 100.", "--fraction 100")
    encoder = open_encoder(spec)
    parts: list[Split] = ["train", "val", "test"] if split == "test" else ["train", "val"]
    # All are opened before any is encoded, so that a split that is not there is told at once.
    opened = [open_benchmark(name, data, part, splits=splits, fs_hz=encoder.fs_hz) for part in parts]
    read = [_read_part(encoder, known, embed) for known in opened]
    train, val, test = read[0], read[1], read[-1]
    for part in (val, test):
        if not defined_columns(part.usable.labels):
            raise DataError(
                f"{data}: no class of {name} has both outcomes in the split {part.known.split}.", "Use a larger tree."
            )
    blank = _scored(test, np.zeros(test.usable.labels.shape, np.float32))
    columns = defined_columns(blank.labels)
    draw_order = _draw_order(train.known, splits)
    subsets = [(fraction, *subset) for fraction in fractions for subset in _subsets(train, fraction, draw_order, seed)]
    rows: list[ProbeRow] = []
    scores: dict[str, Scored] = {}
    for fraction, subset, positions in subsets:
        learned = train.usable.take(positions)
        head = fit_head(learned, val.usable, test.usable, seed)
        neighbours = fit_neighbours(learned, val.usable, test.usable)
        of_head = scores[f"{fraction}-{subset}"] = _scored(test, head.scores)
        rows.append(
            ProbeRow(
                fraction=fraction,
                subset=subset,
                train_records=len(positions),
                absent=tuple(blank.classes[c] for c in columns if not learned.labels[:, c].any()),
                best_epoch=head.versions[head.chosen],
                val=head.val[head.chosen],
                test_at_best_val=bootstrap_macro(of_head, auc, draws, seed)[0],
                max_test=max(head.test),
                max_test_epoch=head.versions[int(np.argmax(head.test))],
                neighbours=neighbours.versions[neighbours.chosen],
                knn_test_at_best_val=bootstrap_macro(_scored(test, neighbours.scores), auc, draws, seed)[0],
            )
        )
    result = ProbeResult(
        **measured(test.known, encoder, blank.subject_ids, test.rejects),
        benchmark=name,
        selected_on="val",
        feature_dim=encoder.feature_dim,
        train_listed=train.known.listed,
        train_records=len(train.kept),
        published_subset_exact=splits is not None,
        classes=tuple(blank.classes[c] for c in columns),
        skipped=tuple(name for c, name in enumerate(blank.classes) if c not in columns),
        rows=tuple(rows),
        draws=draws,
        seed=seed,
        in_domain=trained_in_domain(spec, test.known.dataset.kind),
    )
    return result, scores


def _read_part(encoder: Encoder, known: BenchmarkSplit, embed: Embed) -> _Part:
    embedded = embed(encoder, known.dataset, known.infos)
    usable = LabelledFeatures(embedded.vectors, known.labels[embedded.kept])
    return _Part(known, embedded.kept, usable, embedded.rejects)


def _scored(part: _Part, scores: NDArray[np.float32]) -> Scored:
    infos = [part.known.infos[row] for row in part.kept]
    return Scored(
        labels=part.usable.labels,
        scores=scores,
        classes=part.known.classes,
        record_ids=tuple(info.record_id for info in infos),
        subject_ids=tuple(info.subject_id for info in infos),
    )


def _draw_order(train: BenchmarkSplit, splits: Path | None) -> list[str]:
    """Return the training records' study ids in the order that the published draw went over them."""
    if splits is None:
        return [info.study_id for info in train.infos]
    definition = benchmark(train.name)
    file = min(splits.rglob(definition.split_file("train")))
    return [definition.parse_row(row)[0] for row in iter_csv(file, definition.split_columns)]


def _subsets(train: _Part, fraction: int, draw_order: list[str], seed: int) -> Iterator[tuple[str, NDArray[np.intp]]]:
    """Yield the training subsets of a fraction: name and positions among the usable records."""
    size = len(train.kept) * fraction // 100
    if not size or not len(draw_order) * fraction // 100:
        raise UsageError(
            f"{fraction} % of {len(train.kept):,} training records is less than one.", "give a larger --fraction"
        )
    if fraction == 100:
        yield "all", np.arange(size)
        return
    drawn = {draw_order[row] for row in published_subset(len(draw_order), fraction)}
    published = [i for i, row in enumerate(train.kept) if train.known.infos[row].study_id in drawn]
    if published:  # a partial tree may have none of them
        yield "published", np.array(published, np.intp)
    yield "stratified", stratified_subset(train.usable.labels, size, seed)
