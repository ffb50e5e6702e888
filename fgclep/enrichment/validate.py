"""Keep the features that the ECG bears out: the coarse model scores every (record, feature) pair (METHOD A3).

Features are embedded once each, ECGs once each; a pair costs one dot product.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgclep.datasets import open_for_rate
from fgclep.datasets.splits import Split, split_of
from fgclep.enrichment.scoring import (
    FeatureAcceptance,
    Floats,
    Rule,
    TruthScore,
    accept,
    acceptance_by_feature,
    acceptance_warning,
    score_truth,
    to_scores,
)
from fgclep.enrichment.store import EnrichmentStore
from fgclep.enrichment.truth import known_labels, pair_truth
from fgclep.enrichment.worklist import hash_of
from fgclep.errors import DataError
from fgclep.evaluation.embeddings import embed
from fgclep.evaluation.encoders import open_encoder
from fgclep.evaluation.results import plain
from fgclep.findings.catalog import fold_wording
from fgclep.findings.tagger import split_report
from fgclep.preprocessing import EcgProcessor
from fgclep.pretrained import bundle_fingerprint
from fgclep.record import RecordInfo
from fgclep.reports import clean_report

_PAIRS_AT_ONCE = 65536
_STORED_FEATURES = 500  # of the rows by feature; a language model invents tens of thousands


@dataclass(frozen=True)
class Pairs:
    """Proposed features by record: p pairs of a row and a column.

    Attributes:
        features: m unique features.
        rows: the record of each pair, ascending.
        columns: the feature of each pair.
    """

    features: tuple[str, ...]
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]


@dataclass(frozen=True)
class Rejected:
    """A feature that the ECG does not bear out; `true` is None where nobody knows."""

    record_id: str
    report: str
    feature: str
    score: float
    true: bool | None


@dataclass(frozen=True)
class Validation:
    """What became of the proposed features.

    Attributes:
        records: records with a usable ECG.
        unreadable: reason -> records without one.
        without_features: records whose report has no good answer, or none that says anything new.
        enriched: records with at least one accepted feature.
        rate: share of pairs accepted.
        truth: None where the data set cannot tell.
        by_feature: the most often proposed first.
        rejected: examples, known falsehoods first, then the lowest scores; each feature once.
        warning: not empty where the rule does not suit the model.
    """

    model: str
    rule: Rule
    records: int
    unreadable: dict[str, int]
    without_features: int
    enriched: int
    proposed: int
    accepted: int
    rate: float
    truth: TruthScore | None
    by_feature: list[FeatureAcceptance]
    rejected: list[Rejected]
    warning: str


@dataclass(frozen=True)
class Outcome:
    """A validation and the accepted (feature, score) pairs of each record that has any."""

    validation: Validation
    accepted: list[tuple[str, list[tuple[str, float]]]]


def propose_pairs(infos: Sequence[RecordInfo], features_by_hash: Mapping[str, Sequence[str]]) -> Pairs:
    """Pair each record with the features of its report, without those that the report itself says."""
    names: list[str] = []
    positions: dict[str, int] = {}  # folded feature -> its place in `names`
    by_hash: dict[str, list[int]] = {}
    rows: list[int] = []
    columns: list[int] = []
    for row, info in enumerate(infos):
        key = hash_of(info) or ""
        if key not in by_hash:
            said = {fold_wording(statement) for statement in split_report("\n".join(info.report_lines))}
            by_hash[key] = []
            for feature in features_by_hash.get(key, ()):
                folded = fold_wording(feature)
                if folded not in said:
                    by_hash[key].append(positions.setdefault(folded, len(positions)))
                    names += [feature] * (len(positions) - len(names))
        rows += [row] * len(by_hash[key])
        columns += by_hash[key]
    return Pairs(tuple(names), np.array(rows, np.intp), np.array(columns, np.intp))


def pair_cosines(ecg: Floats, text: Floats, pairs: Pairs) -> Floats:
    """Return the cosine of each pair; `ecg` (n, D) and `text` (m, D) are unit-norm, float32."""
    parts = []
    for start in range(0, len(pairs.rows), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        parts.append(np.einsum("pd,pd->p", ecg[pairs.rows[part]], text[pairs.columns[part]]))
    return np.concatenate(parts).astype(np.float32) if parts else np.empty(0, np.float32)


def validate_features(
    data: Path,
    bundle: Path,
    features_by_hash: Mapping[str, Sequence[str]],
    rule: Rule,
    *,
    cache: Path,
    split: Split | None = None,
    limit: int | None = None,
    workers: int = 1,
    examples: int = 10,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Score and filter the features proposed to every record of a tree.

    Args:
        data: a tree that `fgclep.datasets` opens.
        bundle: directory of the coarse model.
        features_by_hash: text hash -> features proposed.
        rule: what is accepted.
        cache: folder where ECG vectors are kept, so that another rule costs seconds.
        split: look at the records of this split only.
        limit: look at the first records only.
        workers: processes that read records.
        examples: rejected features to show.
        progress: called with records encoded and their number.

    Raises:
        DataError: if no record has a feature, or none can be read.
    """
    import torch

    dataset = open_for_rate(data, EcgProcessor.from_pretrained(bundle).fs_hz)
    asked = (info for info in dataset.iter_infos() if split is None or split_of(info) == split)
    infos = list(islice(asked, limit))
    if not any(hash_of(info) in features_by_hash for info in infos):
        raise DataError(
            f"none of the {len(infos)} records of {data} has a report that this run answered.",
            f"fgclep enrich run --data {data}",
        )
    encoder = open_encoder(str(bundle), "cuda" if torch.cuda.is_available() else "cpu")
    embedded = embed(encoder, dataset, infos, "joint", cache, workers, progress)
    kept = [infos[position] for position in embedded.kept]
    pairs = propose_pairs(kept, features_by_hash)
    if not pairs.features:
        raise DataError(f"every feature proposed for {data} stands in its report already.", "fgclep enrich status")
    scores = to_scores(pair_cosines(embedded.vectors, encoder.encode_text(pairs.features), pairs), rule, bundle)
    accepted = accept(scores, pairs.columns, rule)
    labels = known_labels(dataset, kept)
    truth = None if labels is None else pair_truth(pairs.features, pairs.rows, pairs.columns, labels)
    rate = float(accepted.mean())
    validation = Validation(
        model=bundle_fingerprint(bundle),
        rule=rule,
        records=len(kept),
        unreadable=embedded.rejects,
        without_features=len(kept) - len(np.unique(pairs.rows)),
        enriched=len(np.unique(pairs.rows[accepted])),
        proposed=len(scores),
        accepted=int(accepted.sum()),
        rate=rate,
        truth=None if truth is None else score_truth(truth, accepted),
        by_feature=acceptance_by_feature(pairs.features, pairs.columns, scores, accepted, truth),
        rejected=_rejected(kept, pairs, scores, accepted, truth, examples),
        warning=acceptance_warning(rate, rule),
    )
    return Outcome(validation, _by_record(kept, pairs, scores, accepted))


def store_outcome(store: EnrichmentStore, run_id: int, data: Path, outcome: Outcome) -> int:
    """Keep a validation and the features that it accepted; return its number.

    Args:
        store: holds the run's answers.
        run_id: the run whose features were validated.
        data: the tree they were validated on.
        outcome: what came of it.
    """
    report = plain(outcome.validation)
    report["by_feature"] = report["by_feature"][:_STORED_FEATURES]
    row = {"run_id": run_id, "data": str(data.absolute()), "model": outcome.validation.model}
    texts = {"rule": json.dumps(report["rule"]), "report": json.dumps(report, ensure_ascii=False)}
    return store.add_validation({**row, **texts}, outcome.accepted)


def _by_record(
    infos: Sequence[RecordInfo], pairs: Pairs, scores: Floats, accepted: NDArray[np.bool_]
) -> list[tuple[str, list[tuple[str, float]]]]:
    found: dict[str, list[tuple[str, float]]] = {}
    for pair in np.flatnonzero(accepted):
        scored = pairs.features[pairs.columns[pair]], round(float(scores[pair]), 4)
        found.setdefault(infos[pairs.rows[pair]].record_id, []).append(scored)
    return list(found.items())


def _rejected(
    infos: Sequence[RecordInfo],
    pairs: Pairs,
    scores: Floats,
    accepted: NDArray[np.bool_],
    truth: NDArray[np.int8] | None,
    examples: int,
) -> list[Rejected]:
    known = np.zeros(len(scores), np.int8) if truth is None else truth
    pairs_out = np.flatnonzero(~accepted)
    worst_first = pairs_out[np.lexsort((scores[pairs_out], known[pairs_out] >= 0))]
    found: dict[int, Rejected] = {}
    for pair in worst_first:
        if len(found) >= examples:
            break
        column = int(pairs.columns[pair])
        if column not in found:
            info = infos[pairs.rows[pair]]
            true = None if not known[pair] else bool(known[pair] > 0)
            report = clean_report(info.report_lines)
            found[column] = Rejected(info.record_id, report, pairs.features[column], float(scores[pair]), true)
    return list(found.values())
