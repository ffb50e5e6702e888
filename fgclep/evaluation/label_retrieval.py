"""Label retrieval: each class asked for by its plain name; relevant are the records that have it (METHOD G4.2)."""

from dataclasses import dataclass

import numpy as np

from fgclep.evaluation.ranking import CUTOFFS, best_precision_at, bootstrap_rank_metrics
from fgclep.evaluation.results import Interval, Scored
from fgclep.evaluation.retrievers import TextScorer
from fgclep.evaluation.search_set import SearchSet


@dataclass(frozen=True)
class QueryScore:
    """One query; `values` are those of `ranking.rank_metrics`."""

    name: str
    text: str
    positives: int
    prevalence: float
    values: dict[str, Interval]


@dataclass(frozen=True)
class LabelRetrieval:
    """Retrieval of all classes.

    Attributes:
        queries: classes with both outcomes.
        skipped: the others.
        macro: mean over queries of each metric.
        chance: the same for a random order: the mean prevalence, whatever the metric.
        best: the same for a perfect order, where that is below 1: a query with three relevant records cannot reach
            P@10 above 0.3.
    """

    queries: tuple[QueryScore, ...]
    skipped: tuple[str, ...]
    macro: dict[str, Interval]
    chance: float
    best: dict[str, float]


def label_retrieval(
    search_set: SearchSet, score: TextScorer, *, draws: int, seed: int
) -> tuple[LabelRetrieval, Scored]:
    """Ask for every class, findings stated lead by lead left aside.

    Args:
        search_set: records and truth.
        score: what is measured.
        draws: resamples of subjects for the intervals; 0 for none.
        seed: of the resampling.

    Returns:
        The result and the scores it came from.
    """
    columns = search_set.columns()
    labels = search_set.labels[:, columns]
    texts = [search_set.texts[c] for c in columns]
    scored = Scored(
        labels=labels,
        scores=score(texts) if texts else np.zeros(labels.shape, np.float32),
        classes=tuple(search_set.classes[c] for c in columns),
        record_ids=tuple(info.record_id for info in search_set.infos),
        subject_ids=search_set.subject_ids,
    )
    macro, values = bootstrap_rank_metrics(labels, scored.scores, scored.subject_ids, draws, seed)
    queries = tuple(
        QueryScore(
            name=scored.classes[k],
            text=texts[k],
            positives=int(labels[:, k].sum()),
            prevalence=float(labels[:, k].mean()),
            values=values[k],
        )
        for k in range(len(columns))
    )
    best = {
        f"precision_at_{k}": float(np.mean([best_precision_at(query.positives, k) for query in queries]))
        for k in CUTOFFS
        if queries
    }
    chance = float(np.mean([query.prevalence for query in queries])) if queries else float("nan")
    result = LabelRetrieval(queries, search_set.skipped(), macro, chance, best)
    return result, scored
