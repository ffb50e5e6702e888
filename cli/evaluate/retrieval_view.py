"""How `fgclep evaluate retrieval` prints its results: one table for each side of search."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cli.evaluate.tables import cell, describe, intervals_told, table, value
from cli.output import console

if TYPE_CHECKING:
    from rich.console import Console

    from fgclep.evaluation.report_retrieval import Direction
    from fgclep.evaluation.retrieval import RetrievalResult

_METRICS = {
    "average_precision": "mAP",
    "r_precision": "R-precision",
    "precision_at_1": "P@1",
    "precision_at_5": "P@5",
    "precision_at_10": "P@10",
}
_RECALLS = {"recall_at_1": "R@1", "recall_at_5": "R@5", "recall_at_10": "R@10", "mrr": "MRR"}


def print_results(results: "Sequence[RetrievalResult]") -> None:
    """Print everything but the single compound, lead-wise and reworded queries, which are in --json."""
    first = results[0]
    shown = console()
    shown.print(f"Retrieval on {first.dataset}, split {first.split}. Labels and split: {first.source}.")
    for result in results:
        shown.print(_describe(result))
    if first.draws:
        shown.print(intervals_told(first))
    _print_labels(shown, results)
    _print_reports(shown, results)
    _print_compound(shown, results)
    _print_leads(shown, results)
    _print_wordings(shown, results)


def _describe(result: "RetrievalResult") -> str:
    """Say what was measured, what it knew and on how many of the records."""
    if result.encoder == "bm25":
        return f"bm25 ({result.fingerprint}). {result.note}"
    return describe(result, result.in_domain)


def _print_labels(shown: "Console", results: "Sequence[RetrievalResult]") -> None:
    labels = results[0].labels
    if not labels.queries:
        shown.print("\nLabel retrieval: no class has both positives and negatives.")
        return
    rows = table("model", "queries", *_METRICS.values(), names=1)
    for result in results:
        cells = (cell(result.labels.macro[name]) for name in _METRICS)
        rows.add_row(result.encoder, str(len(result.labels.queries)), *cells)
    rows.add_row("perfect order", "", "1.000", "1.000", *(value(best) for best in labels.best.values()))
    rows.add_row("random order", "", *[value(labels.chance)] * len(_METRICS))
    shown.print("\nLabel retrieval: each class by its plain name; means over classes.")
    shown.print(f"Skipped, for want of positives or negatives: {', '.join(labels.skipped) or 'no class'}.")
    shown.print(rows)
    queries = table("class", "text", "positives", *(f"AP, {result.encoder}" for result in results), names=2)
    by_model = [{query.name: query.values["average_precision"] for query in each.labels.queries} for each in results]
    for query in labels.queries:
        found = (cell(values[query.name]) if query.name in values else "-" for values in by_model)
        queries.add_row(query.name, query.text, f"{query.positives:,}", *found)
    shown.print(queries)


def _print_reports(shown: "Console", results: "Sequence[RetrievalResult]") -> None:
    with_reports = [(result.encoder, result.reports) for result in results if result.reports is not None]
    if not with_reports:
        shown.print("Report retrieval: the records have no two different reports.")
        return
    reports = with_reports[0][1]
    shown.print(
        f"Report retrieval: {reports.queries:,} records with {reports.distinct:,} different reports, the commonest "
        f"shared by {reports.largest:,}; {reports.without_report:,} records have none."
    )
    for title, pick in (("report -> ECG", "report_to_ecg"), ("ECG -> report", "ecg_to_report")):
        rows = table(f"{title}: counted as found", "model", *_RECALLS.values(), names=2)
        for name, found in with_reports:
            direction: Direction = getattr(found, pick)
            rows.add_row("equal report", name, *(cell(direction.equal[key]) for key in _RECALLS))
        common: Direction = getattr(reports, pick)
        rows.add_row("", "random order", *_numbers(common.equal_chance, _RECALLS))
        for name, found in with_reports:
            direction = getattr(found, pick)
            rows.add_row("own pair only", name, *(cell(direction.own[key]) for key in _RECALLS))
        rows.add_row("", "best possible", *_numbers(common.own_best, _RECALLS))
        rows.add_row("", "random order", *_numbers(common.own_chance, _RECALLS))
        shown.print(rows)
    shown.print("BM25 has no row here: it would search the reports for themselves.")


def _print_compound(shown: "Console", results: "Sequence[RetrievalResult]") -> None:
    rows = table("query", "asked by", "model", "queries", "AP", "AUC", "AUC, near misses", names=3)
    for kind in results[0].compound.count:
        for way in results[0].compound.mean[kind]:
            for result in results:
                if kind not in result.compound.mean:  # its usable records were others
                    continue
                mean = result.compound.mean[kind][way]
                numbers = (mean.average_precision, mean.auc, mean.auc_near_misses)
                rows.add_row(kind, way, result.encoder, str(result.compound.count[kind]), *map(value, numbers))
        rows.add_row(kind, "", "chance", "", value(results[0].compound.prevalence[kind]), "0.500", "0.500")
    if not rows.row_count:
        shown.print("Compound queries: no two classes are common enough together and apart.")
        return
    shown.print(
        'Compound queries: "A and B", "A without B", "no A". Near misses fail the query by one word: 0.5 means that '
        "the word was not understood."
    )
    shown.print(rows)


def _print_leads(shown: "Console", results: "Sequence[RetrievalResult]") -> None:
    rows = table(
        "finding",
        "model",
        "AUC",
        "AUC, elsewhere",
        "the same without naming the lead",
        "AP among shown",
        "chance",
        names=2,
    )
    for result in results:
        if result.leads is None:
            continue
        for kind, mean in {**result.leads.by_kind, "all": result.leads.mean}.items():
            rows.add_row(
                kind,
                result.encoder,
                *(
                    value(mean[name])
                    for name in (
                        "auc", "auc_elsewhere", "auc_elsewhere_without_lead", "average_precision", "prevalence",
                    )
                ),
            )  # fmt: skip
    if not rows.row_count:
        shown.print("Queries about one lead: the truth of this data set does not name leads.")
        return
    shown.print('Queries about one lead, such as "T wave inversion in lead V4"; elsewhere: records that show it in')
    shown.print("other leads only.")
    shown.print(rows)


def _print_wordings(shown: "Console", results: "Sequence[RetrievalResult]") -> None:
    rows = table(
        "wordings",
        "kind",
        "model",
        "findings",
        "texts",
        "loss of AUC",
        "loss of AP",
        "loss of AUC, worst wording",
        names=3,
    )
    for result in results:
        if result.wordings is None:
            continue
        for seen, drops in result.wordings.drop.items():
            for kind, drop in drops.items():
                losses = (value(loss) for loss in (drop.auc, drop.average_precision, drop.worst_auc))
                rows.add_row(seen, kind, result.encoder, str(drop.findings), f"{drop.phrasings:,}", *losses)
    if not rows.row_count:
        shown.print("Other words: no class with enough positives is a finding of the catalogue.")
        return
    shown.print(
        "Other words: loss against the plain name, means over findings; seen: wordings that fgclep's training uses."
    )
    plain = (
        f"{result.encoder} AUC {result.wordings.plain_auc:.3f}, AP {result.wordings.plain_average_precision:.3f}"
        for result in results
        if result.wordings is not None
    )
    shown.print(f"By plain name: {'; '.join(plain)}.")
    shown.print(rows)


def _numbers(values: dict[str, float], names: Iterable[str]) -> list[str]:
    return [value(values[name]) for name in names]
