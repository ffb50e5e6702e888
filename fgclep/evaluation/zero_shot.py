"""Zero-shot classification: every class of a benchmark asked for in words (METHOD A6, A8)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgclep.datasets import Dataset
from fgclep.evaluation.benchmarks import BenchmarkSplit, Split, open_benchmark
from fgclep.evaluation.bootstrap import auc, average_precision, bootstrap_macro, defined_columns, f1
from fgclep.evaluation.domain import trained_in_domain
from fgclep.evaluation.embeddings import Embedded
from fgclep.evaluation.encoders import Encoder, open_encoder, refuse_text
from fgclep.evaluation.prompts import Prompts, prompts_for
from fgclep.evaluation.results import Interval, Measured, Scored, measured
from fgclep.record import RecordInfo

Embed = Callable[[Encoder, Dataset, Sequence[RecordInfo]], Embedded]
"""Encodes records into the space of texts; `embeddings.embed` with its kind and cache filled in."""


@dataclass(frozen=True)
class ClassResult:
    """One class with both outcomes.

    Attributes:
        f1: at `threshold`; both None if the threshold's records lack an outcome.
    """

    name: str
    positives: int
    auc: Interval
    average_precision: Interval
    f1: Interval | None
    threshold: float | None


@dataclass(frozen=True)
class ZeroShotResult(Measured):
    """One model on one split of one benchmark.

    Attributes:
        prompts: what the classes were asked for by.
        classes: those with both outcomes, in the benchmark's order.
        skipped: the others.
        macro: `auc`, `average_precision` and `f1` -> mean over `classes` (f1: over those with a threshold).
        chance: the same without a model: auc 0.5; average precision = prevalence; f1 of flagging every record.
        thresholds: `val` if fitted on the validation split, `in-sample` if on the very records that F1 is of.
        in_domain: whether the model was trained on other records of this data set, as its card says; None: unknown.
    """

    benchmark: str
    prompts: str
    classes: tuple[ClassResult, ...]
    skipped: tuple[str, ...]
    macro: dict[str, Interval]
    chance: dict[str, float]
    thresholds: str
    draws: int
    seed: int
    in_domain: bool | None = None


def zero_shot(
    spec: str,
    name: str,
    data: Path,
    split: Split,
    *,
    prompts: str,
    embed: Embed,
    splits: Path | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[ZeroShotResult, Scored]:
    """Measure a model on a benchmark, with F1's thresholds from the validation split where the tree has one.

    Args:
        spec: the model, as `open_encoder` takes it.
        name: the benchmark.
        data: the data set's tree.
        split: which part.
        prompts: a kind of prompts or a file, see `prompts_for`.
        embed: encodes records.
        splits: folder of published split files.
        draws: of the bootstrap over subjects.
        seed: of the bootstrap.

    Raises:
        FgclepError: as `open_encoder`, `open_benchmark` and `prompts_for` do.
    """
    texts = prompts_for(name, prompts)
    encoder = open_encoder(spec)
    if not encoder.joint:
        refuse_text(encoder.name)
    opened = open_benchmark(name, data, split, splits=splits, fs_hz=encoder.fs_hz)
    thresholds_from = None
    if split != "val":
        validation = open_benchmark(name, data, "val", splits=splits, fs_hz=encoder.fs_hz, may_be_empty=True)
        if validation.infos:
            thresholds_from = score_by_text(encoder, validation, texts, embed)[0]
    result, scored = evaluate_zero_shot(
        encoder,
        opened,
        texts,
        prompts_name=prompts,
        embed=embed,
        thresholds_from=thresholds_from,
        draws=draws,
        seed=seed,
    )
    return replace(result, in_domain=trained_in_domain(spec, opened.dataset.kind)), scored


def score_by_text(encoder: Encoder, split: BenchmarkSplit, prompts: Prompts, embed: Embed) -> tuple[Scored, Embedded]:
    """Score every usable record for every class: the largest cosine with one of the class's texts.

    Raises:
        UsageError: if the encoder knows no text.
        DataError: if no record can be used.
    """
    embedded = embed(encoder, split.dataset, split.infos)
    texts = sorted({text for c in split.classes for text in prompts[c]})
    column = {text: number for number, text in enumerate(texts)}
    similar = embedded.vectors @ encoder.encode_text(texts).T
    scores = np.stack([similar[:, [column[text] for text in prompts[c]]].max(axis=1) for c in split.classes], axis=1)
    infos = [split.infos[row] for row in embedded.kept]
    scored = Scored(
        labels=split.labels[embedded.kept],
        scores=scores.astype(np.float32),
        classes=split.classes,
        record_ids=tuple(info.record_id for info in infos),
        subject_ids=tuple(info.subject_id for info in infos),
    )
    return scored, embedded


def evaluate_zero_shot(
    encoder: Encoder,
    split: BenchmarkSplit,
    prompts: Prompts,
    *,
    prompts_name: str,
    embed: Embed,
    thresholds_from: Scored | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[ZeroShotResult, Scored]:
    """Measure how well a model's scores by text tell the classes of a split apart.

    Args:
        encoder: a model that knows texts.
        split: records and labels.
        prompts: texts of every class.
        prompts_name: what to call them in the result.
        embed: encodes the records.
        thresholds_from: the same model's scores on the validation split, which F1's thresholds are fitted on. Without
            them they are fitted on the split itself and F1 is an in-sample number, labelled so.
        draws: of the bootstrap over subjects.
        seed: of the bootstrap.

    Raises:
        UsageError: if the encoder knows no text.
        DataError: if no record can be used.
    """
    scored, embedded = score_by_text(encoder, split, prompts, embed)
    columns = defined_columns(scored.labels)
    macro_auc, aucs = bootstrap_macro(scored, auc, draws, seed)
    macro_ap, precisions = bootstrap_macro(scored, average_precision, draws, seed)
    thresholds = best_thresholds(scored if thresholds_from is None else thresholds_from)
    macro_f1, f1s = bootstrap_macro(_decided(scored, thresholds), f1, draws, seed)
    prevalence = scored.labels[:, columns].mean(axis=0)
    result = ZeroShotResult(
        **measured(split, encoder, scored.subject_ids, embedded.rejects),
        benchmark=split.name,
        prompts=prompts_name,
        classes=tuple(
            ClassResult(
                name=name,
                positives=int(scored.labels[:, c].sum()),
                auc=aucs[name],
                average_precision=precisions[name],
                f1=f1s.get(name),
                threshold=thresholds.get(name),
            )
            for c, name in ((c, split.classes[c]) for c in columns)
        ),
        skipped=tuple(name for c, name in enumerate(split.classes) if c not in columns),
        macro={"auc": macro_auc, "average_precision": macro_ap, "f1": macro_f1},
        chance={
            "auc": 0.5,
            "average_precision": _mean(prevalence),
            "f1": _mean(2 * prevalence / (1 + prevalence)),
        },
        thresholds="in-sample" if thresholds_from is None else "val",
        draws=draws,
        seed=seed,
    )
    return result, scored


def best_thresholds(scored: Scored) -> dict[str, float]:
    """Return the threshold of the best F1 per class with both outcomes; the highest of equally good ones.

    A record is flagged if its score is no less than the threshold.
    """
    return {
        scored.classes[c]: _best_threshold(scored.labels[:, c], scored.scores[:, c])
        for c in defined_columns(scored.labels)
    }


def _best_threshold(labels: NDArray[np.bool_], scores: NDArray[np.float32]) -> float:
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # tied records are flagged together
    hits = np.cumsum(labels[order])[last]
    return float(ranked[last[np.argmax(2 * hits / (labels.sum() + last + 1))]])


def _decided(scored: Scored, thresholds: dict[str, float]) -> Scored:
    """Return decisions in place of scores, for the classes with a threshold."""
    columns = [c for c, name in enumerate(scored.classes) if name in thresholds]
    classes = tuple(scored.classes[c] for c in columns)
    limits = np.array([thresholds[name] for name in classes], np.float32)
    flags = (scored.scores[:, columns] >= limits).astype(np.float32)
    return Scored(scored.labels[:, columns], flags, classes, scored.record_ids, scored.subject_ids)


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")
