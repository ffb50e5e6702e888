"""Search measured from all sides: by label, by report, by compound and lead-wise queries, in other words."""

from dataclasses import dataclass
from pathlib import Path

from fgclep.evaluation.benchmark_base import Split
from fgclep.evaluation.compound_queries import CompoundQueries, compound_queries
from fgclep.evaluation.domain import trained_in_domain
from fgclep.evaluation.encoders import open_encoder, refuse_text
from fgclep.evaluation.label_retrieval import LabelRetrieval, label_retrieval
from fgclep.evaluation.lead_queries import LeadQueries, lead_queries
from fgclep.evaluation.paraphrases import Paraphrases, paraphrases
from fgclep.evaluation.report_retrieval import ReportRetrieval, report_retrieval
from fgclep.evaluation.results import Measured, Scored, measured
from fgclep.evaluation.retrievers import Retriever, dense_retriever
from fgclep.evaluation.search_set import SYNTHETIC, SearchSet, open_search_set
from fgclep.evaluation.zero_shot import Embed

MIN_POSITIVES = 10
"""Records that a finding needs on each side to be asked for in a compound or lead-wise query or in other words."""


@dataclass(frozen=True)
class RetrievalResult(Measured):
    """One retriever on one set.

    Attributes:
        dataset: one of `SEARCH_SETS`.
        note: what must be known to read the numbers, or "".
        in_domain: whether the model was trained on other records of this data set, as its card says; None: unknown.
        labels: each class by its plain name.
        reports: None where reports are lacking, or the retriever reads them and would find each by itself.
        compound: conjunctions and negations.
        leads: None where the truth does not name leads.
        wordings: None where no class is a finding of the catalogue with enough positives.
    """

    dataset: str
    note: str
    in_domain: bool | None
    draws: int
    seed: int
    min_positives: int
    labels: LabelRetrieval
    reports: ReportRetrieval | None
    compound: CompoundQueries
    leads: LeadQueries | None
    wordings: Paraphrases | None


def open_model(
    spec: str, name: str, data: Path, split: Split | None, *, splits: Path | None = None, embed: Embed
) -> tuple[SearchSet, Retriever, dict[str, int]]:
    """Open a model by its spec and encode the records of a set.

    Args:
        spec: see `open_encoder`.
        name: one of `SEARCH_SETS`.
        data: the data set's tree.
        split: which part, see `open_search_set`.
        splits: folder of published split files.
        embed: encodes records into the space of texts.

    Returns:
        The set without the records that could not be used, what searches it, and how many were rejected why.

    Raises:
        FgclepError: as `open_encoder` and `open_search_set` do, and if the model knows no text.
    """
    encoder = open_encoder(spec)
    if not encoder.joint:
        refuse_text(encoder.name)
    search_set = open_search_set(name, data, split, splits=splits, fs_hz=encoder.fs_hz)
    embedded = embed(encoder, search_set.dataset, search_set.infos)
    in_domain = trained_in_domain(spec, SYNTHETIC if name == SYNTHETIC else search_set.dataset.kind)
    retriever = dense_retriever(encoder, embedded.vectors, in_domain)
    return search_set.keep(embedded.kept), retriever, embedded.rejects


def evaluate_retrieval(
    search_set: SearchSet, retriever: Retriever, rejected: dict[str, int], *, draws: int = 1000, seed: int = 0
) -> tuple[RetrievalResult, Scored]:
    """Measure a retriever.

    Args:
        search_set: the records that it scores.
        retriever: what is measured.
        rejected: records that were left out of the set, by reason.
        draws: resamples of subjects for the intervals; 0 for none.
        seed: of the resampling.

    Returns:
        The result, and the scores of the classes asked for by plain name.
    """
    score = retriever.score
    labels, scored = label_retrieval(search_set, score, draws=draws, seed=seed)
    reports = None if retriever.reads_reports else report_retrieval(search_set, score, draws=draws, seed=seed)
    result = RetrievalResult(
        **measured(search_set, retriever, search_set.subject_ids, rejected),
        dataset=search_set.name,
        note=retriever.note,
        in_domain=retriever.in_domain,
        draws=draws,
        seed=seed,
        min_positives=MIN_POSITIVES,
        labels=labels,
        reports=reports,
        compound=compound_queries(search_set, score, min_positives=MIN_POSITIVES),
        leads=lead_queries(search_set, score, min_positives=MIN_POSITIVES),
        wordings=paraphrases(search_set, score, min_positives=MIN_POSITIVES),
    )
    return result, scored
