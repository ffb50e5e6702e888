"""Queries about one lead: "T wave inversion in lead V4" against T inversion elsewhere (METHOD G4).

Needs truth lead by lead, which only synthetic ECGs have. Telling records with the change in V4 from normal ones takes
no reading of leads; telling them from records that have it in other leads does. The same finding asked for without a
lead shows how much of that can be had from its extent alone: what is seen in many leads is more often seen in V4 too.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgclep.evaluation.bootstrap import auc, average_precision
from fgclep.evaluation.retrievers import TextScorer
from fgclep.evaluation.search_set import SearchSet
from fgclep.findings.catalog import LEAD_KINDS


@dataclass(frozen=True)
class LeadQuery:
    """One finding in one lead.

    Attributes:
        finding: for example `TINV@V4`.
        positives: records that show it in this lead.
        elsewhere: records that show it in other leads only.
        auc: against all other records.
        auc_elsewhere: against `elsewhere` only.
        auc_elsewhere_without_lead: the same when the lead is left out of the query.
        average_precision: among the records that show it in any lead; chance is `prevalence`.
    """

    finding: str
    text: str
    positives: int
    elsewhere: int
    auc: float
    auc_elsewhere: float
    auc_elsewhere_without_lead: float
    average_precision: float
    prevalence: float


@dataclass(frozen=True)
class LeadQueries:
    """All lead queries; `mean` holds the means of the numbers over queries, `by_kind` over those of STE, TINV, ..."""

    queries: tuple[LeadQuery, ...]
    mean: dict[str, float]
    by_kind: dict[str, dict[str, float]]


_NUMBERS = ("auc", "auc_elsewhere", "auc_elsewhere_without_lead", "average_precision", "prevalence")


def lead_queries(search_set: SearchSet, score: TextScorer, *, min_positives: int = 10) -> LeadQueries | None:
    """Ask for every finding in every lead that has enough records both with it and with it elsewhere.

    Returns:
        None if there is no such finding, as in sets whose truth does not name leads.
    """
    columns = search_set.columns(min_positives, by_lead=True)
    kind_of = {c: search_set.classes[c].partition("@")[0] for c in columns}
    kinds = list(dict.fromkeys(kind_of.values()))
    shown = {kind: _shown(search_set, kind) for kind in kinds}
    asked = [c for c in columns if (shown[kind_of[c]] & ~search_set.labels[:, c]).sum() >= min_positives]
    if not asked:
        return None
    scores = score([search_set.texts[c] for c in asked] + [LEAD_KINDS[kind][0] for kind in kinds])
    queries = tuple(
        _measure(
            search_set,
            c,
            shown[kind_of[c]],
            scores[:, k],
            without_lead=scores[:, len(asked) + kinds.index(kind_of[c])],
        )
        for k, c in enumerate(asked)
    )
    return LeadQueries(
        queries=queries,
        mean=_means(queries),
        by_kind={
            kind: _means(of_kind)
            for kind in kinds
            if (of_kind := tuple(query for query in queries if query.finding.startswith(f"{kind}@")))
        },
    )


def _shown(search_set: SearchSet, kind: str) -> NDArray[np.bool_]:
    """Return which records show a kind of finding in any lead, bool (n,)."""
    columns = [c for c, name in enumerate(search_set.classes) if name.startswith(f"{kind}@")]
    shown: NDArray[np.bool_] = np.asarray(search_set.labels[:, columns].any(axis=1))
    return shown


def _measure(
    search_set: SearchSet,
    column: int,
    shown: NDArray[np.bool_],
    scores: NDArray[np.float32],
    without_lead: NDArray[np.float32],
) -> LeadQuery:
    labels = search_set.labels[:, column]
    return LeadQuery(
        finding=search_set.classes[column],
        text=search_set.texts[column],
        positives=int(labels.sum()),
        elsewhere=int((shown & ~labels).sum()),
        auc=auc(labels, scores),
        auc_elsewhere=auc(labels[shown], scores[shown]),
        auc_elsewhere_without_lead=auc(labels[shown], without_lead[shown]),
        average_precision=average_precision(labels[shown], scores[shown]),
        prevalence=float(labels[shown].mean()),
    )


def _means(queries: tuple[LeadQuery, ...]) -> dict[str, float]:
    return {name: float(np.mean([getattr(query, name) for query in queries])) for name in _NUMBERS}
