"""Tables of search: retrieval by label, report, compound query and lead, other wordings, scores, and differences."""

from collections.abc import Mapping, Sequence
from typing import Any

from fgclep.evaluation.anchors import anchors
from fgclep.evaluation.report_table import Cell, Column, Row, Table
from fgclep.evaluation.report_tables import IN_DOMAIN, PERCENT, Result, interval_of, intervals_told
from fgclep.evaluation.results import Interval

_RANKED = {
    "average_precision": "AP (mAP)", "r_precision": "R-precision", "precision_at_1": "P@1", "precision_at_5": "P@5",
    "precision_at_10": "P@10",
}  # fmt: skip
_RECALLS = {"recall_at_1": "R@1", "recall_at_5": "R@5", "recall_at_10": "R@10", "mrr": "MRR"}
_LEADS = {
    "auc": "AUC", "auc_elsewhere": "AUC, elsewhere", "auc_elsewhere_without_lead": "the same, lead not named",
    "average_precision": "AP among shown", "prevalence": "AP by chance",
}  # fmt: skip
_SCORES = {"ece": "ECE", "ece_by_text": "ECE by finding", "top_ece": "ECE of first 10 hits", "log_loss": "log loss"}


def retrieval_tables(results: Sequence[Result]) -> list[Table]:
    """Return the tables of every data set."""
    tables: list[Table | None] = []
    for name in dict.fromkeys(result["dataset"] for result in results):
        found = [result for result in results if result["dataset"] == name]
        tables += [_labels(found), _reports(found), _compound(found), _leads(found), _wordings(found)]
    return [table for table in tables if table is not None]


def _named(result: Result) -> Cell:
    notes = [note for note in (result["note"], IN_DOMAIN if result["in_domain"] else "") if note]
    return Cell(result["encoder"], tuple(notes))


def _about(results: Sequence[Result]) -> str:
    first = results[0]
    return f"{first['dataset']}, split {first['split']}, {first['records']:,} of {first['listed']:,} listed records."


def _labels(results: Sequence[Result]) -> Table | None:
    labels = results[0]["labels"]
    if not labels["queries"]:
        return None
    rows = [
        Row((_named(result), *(Cell(interval_of(result["labels"]["macro"][key])) for key in _RANKED)))
        for result in results
    ]
    rows.append(Row((Cell("perfect order"), *(Cell(labels["best"].get(key, 1.0)) for key in _RANKED))))
    rows.append(Row((Cell("random order"), *[Cell(labels["chance"])] * len(_RANKED))))
    skipped = (
        f" Skipped for want of positives or negatives: {', '.join(labels['skipped'])}." if labels["skipped"] else ""
    )
    return Table(
        name=f"retrieval-labels-{results[0]['dataset']}",
        title=f"Retrieval by label, {results[0]['dataset']}",
        lead=f"{_about(results)} Means over {len(labels['queries'])} classes, each asked for by its plain name."
        f"{skipped} {intervals_told(results)}",
        columns=(Column("model"), *(Column(title, 3) for title in _RANKED.values())),
        rows=tuple(rows),
    )


def _reports(results: Sequence[Result]) -> Table | None:
    told = [result for result in results if result["reports"]]
    if not told:
        return None
    rows = []
    directions = {"report_to_ecg": "report -> ECG", "ecg_to_report": "ECG -> report"}
    for key, title in directions.items():
        for result in told:
            found = result["reports"][key]
            for counted, kind in (("equal", "equal report"), ("own", "own pair only")):
                cells = [Cell(interval_of(found[counted][recall], PERCENT)) for recall in _RECALLS]
                rows.append(Row((_named(result), Cell(f"{title}, {kind}"), *cells)))
        common = told[0]["reports"][key]
        for row, kind, values in (
            ("random order", "equal report", common["equal_chance"]),
            ("best possible", "own pair only", common["own_best"]),
            ("random order", "own pair only", common["own_chance"]),
        ):
            cells = [Cell(_scaled(values.get(recall))) for recall in _RECALLS]
            rows.append(Row((Cell(row), Cell(f"{title}, {kind}"), *cells)))
    published = {"report-to-ecg": "report -> ECG", "ecg-to-report": "ECG -> report"}
    on_ptbxl = results[0]["dataset"].startswith("ptbxl-")
    for anchor in anchors("report-retrieval") if on_ptbxl else ():
        for key, title in published.items():
            cells = [Cell(value) for value in (*anchor.values[key], float("nan"))]
            name = Cell(f"{anchor.model} ({anchor.source})", anchor.notes)
            rows.append(Row((name, Cell(f"{title}, own pair only"), *cells), published=True))
    reports = told[0]["reports"]
    return Table(
        name=f"retrieval-reports-{results[0]['dataset']}",
        title=f"Retrieval by report, {results[0]['dataset']}{', beside published numbers' if on_ptbxl else ''}",
        lead=f"Percent. {_about(results)} {reports['queries']:,} records have a report, {reports['distinct']:,} are "
        f"different, the commonest is shared by {reports['largest']:,}. {intervals_told(results)}",
        columns=(Column("model"), Column("counted as found"), *map(Column, _RECALLS.values())),
        rows=tuple(rows),
    )


def _compound(results: Sequence[Result]) -> Table | None:
    rows = []
    for kind, count in results[0]["compound"]["count"].items():
        for way in results[0]["compound"]["mean"][kind]:
            for result in results:
                if kind not in result["compound"]["mean"]:  # its usable records were others
                    continue
                mean = result["compound"]["mean"][kind][way]
                keys = ("average_precision", "auc", "auc_near_misses")
                cells = [
                    Cell(f"{count} of kind '{kind}'"),
                    Cell(way),
                    _named(result),
                    *(Cell(mean[key]) for key in keys),
                ]
                rows.append(Row(tuple(cells)))
        chance = (Cell(results[0]["compound"]["prevalence"][kind]), Cell(0.5), Cell(0.5))
        rows.append(Row((Cell(f"{count} of kind '{kind}'"), Cell(""), Cell("chance"), *chance)))
    if not rows:
        return None
    return Table(
        name=f"retrieval-compound-{results[0]['dataset']}",
        title=f"Compound queries, {results[0]['dataset']}",
        lead=f"{_about(results)} Asked in one text ('text'), by combining the ranks of single findings ('algebra'), or "
        "by the first finding alone. Near misses fail the query by one word: 0.5 means that word was not understood.",
        columns=(
            *map(Column, ("queries", "asked by", "model")),
            *(Column(title, 3) for title in ("AP", "AUC", "AUC, near misses")),
        ),
        rows=tuple(rows),
    )


def _leads(results: Sequence[Result]) -> Table | None:
    rows = []
    for result in results:
        if result["leads"]:
            for kind, mean in {**result["leads"]["by_kind"], "all": result["leads"]["mean"]}.items():
                rows.append(Row((Cell(kind), _named(result), *(Cell(mean[key]) for key in _LEADS))))
    if not rows:
        return None
    return Table(
        name=f"retrieval-leads-{results[0]['dataset']}",
        title=f"Queries about one lead, {results[0]['dataset']}",
        lead=f"{_about(results)} Elsewhere: against records that show the finding in other leads only.",
        columns=(Column("finding"), Column("model"), *(Column(title, 3) for title in _LEADS.values())),
        rows=tuple(rows),
    )


def _wordings(results: Sequence[Result]) -> Table | None:
    rows = []
    for result in results:
        if not result["wordings"]:
            continue
        for seen, drops in result["wordings"]["drop"].items():
            for kind, drop in drops.items():
                counts = (Cell(float(drop["findings"])), Cell(float(drop["phrasings"])))
                losses = (Cell(drop[key]) for key in ("auc", "average_precision", "worst_auc"))
                rows.append(Row((_named(result), Cell(f"{seen}: {kind}"), *counts, *losses)))
    if not rows:
        return None
    plain = (
        f"{result['encoder']} AUC {result['wordings']['plain_auc']:.3f}, AP "
        f"{result['wordings']['plain_average_precision']:.3f}"
        for result in results
        if result["wordings"]
    )
    return Table(
        name=f"retrieval-wordings-{results[0]['dataset']}",
        title=f"Asked in other words, {results[0]['dataset']}",
        lead=f"{_about(results)} Loss against the plain name, mean over findings. Seen: wordings that training of our "
        f"bundles uses. By plain name: {'; '.join(plain)}.",
        columns=(
            *map(Column, ("model", "wordings")),
            Column("findings", 0),
            Column("texts", 0),
            *(Column(title, 3) for title in ("loss of AUC", "loss of AP", "loss of AUC, worst wording")),
        ),
        rows=tuple(rows),
    )


def calibration_tables(results: Sequence[Result]) -> list[Table]:
    """Return one table of all bundles."""
    rows = []
    for result in results:
        titles = {
            "before": "old curve, plain names",
            "after": "new curve, plain names, cross-validated",
            "other_before": "old curve, other wordings",
            "other_after": "new curve, other wordings",
        }
        for key, title in titles.items():
            if result[key]:
                rows.append(Row((Cell(result["encoder"]), Cell(title), *(Cell(result[key][name]) for name in _SCORES))))
    if not rows:
        return []
    curves = "; ".join(
        f"{result['encoder']}: sigmoid({result['old']['slope']:.2f} x cosine {result['old']['offset']:+.2f}) before, "
        f"sigmoid({result['new']['slope']:.2f} x cosine {result['new']['offset']:+.2f}) fitted"
        for result in results
    )
    lead = (
        f"{_about(results)} A score is the probability of the finding if {100 * results[0]['prevalence']:.0f} % of all "
        f"ECGs searched have it; ECE is its mean distance from the truth. {curves}."
    )
    columns = (Column("model"), Column("curve"), *(Column(title, 4) for title in _SCORES.values()))
    return [Table("calibration", "What scores are worth", lead, columns, tuple(rows))]


def comparison_tables(results: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Return the table of differences to the first model."""
    tables = []
    for result in results:
        rows = []
        for each in result["comparisons"]:
            difference = interval_of(each["difference"], -PERCENT)
            assert difference is not None
            turned = Interval(difference.value, difference.high, difference.low)  # seen from the other model
            verdict = "real" if each["real"] else "not shown"
            cells = (
                Cell(each["name"]),
                Cell(float(each["records"])),
                Cell(turned),
                Cell(each["corrected"]),
                Cell(verdict),
            )
            rows.append(Row(cells))
        lead = (
            f"Macro AUC in percentage points, other model minus {result['first']}, on the same records and the same "
            f"{result['draws']:,} draws of subjects. p is two-sided and corrected by Holm's method for the "
            f"{len(rows)} comparisons; below 0.05 the difference counts as real."
        )
        titles = (
            Column("measured on"),
            Column("records", 0),
            Column("difference", 1),
            Column("p", 4),
            Column("verdict"),
        )
        tables.append(Table("comparison", f"Is the difference to {result['first']} real?", lead, titles, tuple(rows)))
    return tables


def _scaled(value: float | None) -> float | None:
    return None if value is None else value * PERCENT
