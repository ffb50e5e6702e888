"""Tables of classification beside published numbers: zero-shot and linear probe."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgclep.evaluation.anchors import Anchor, anchors
from fgclep.evaluation.benchmarks import BENCHMARKS
from fgclep.evaluation.report_table import Cell, Column, Row, Table
from fgclep.evaluation.results import Interval

Result = Mapping[str, Any]
"""The JSON form of one result, such as of `ZeroShotResult`."""

PERCENT = 100.0
IN_DOMAIN = (
    "Trained in-domain: the model's card names this data set among those it was trained on (other records of it), so "
    "this is no zero-shot number in the strict sense."
)
_FEATURES_IN_DOMAIN = (
    "The features were learned with the labels of this data set's training records, all of them: neither a 1 % nor a "
    "10 % probe of this encoder tells what few labels can do. Its random start is the row to compare it with."
)
_MEAN = "mean"
_SIX = tuple(name for name in BENCHMARKS if name != "csn-strict")
_FRACTIONS = (1, 10, 100)  # per cent of the training records, of the published probes


def interval_of(value: Mapping[str, float | None] | None, scale: float = 1.0) -> Interval | None:
    """Return the interval that a JSON object stands for, times `scale`."""
    if value is None:
        return None
    parts = (value["value"], value["low"], value["high"])
    return Interval(*(float("nan") if part is None else part * scale for part in parts))


def intervals_told(results: Sequence[Result]) -> str:
    """Say what the brackets of a table are."""
    draws = {result["draws"] for result in results}
    if draws == {0}:
        return "No intervals were computed."
    return f"In brackets: 95 % interval, bootstrap over subjects, {max(draws):,} draws."


def zero_shot_tables(results: Sequence[Result]) -> list[Table]:
    """Return the table beside published numbers, the one with all metrics, and one by class for each benchmark."""
    if not results:
        return []
    names = [name for name in BENCHMARKS if any(result["benchmark"] == name for result in results)]
    tables = [_beside_published(results, names), _all_metrics(results)]
    return tables + [_by_class([result for result in results if result["benchmark"] == name]) for name in names]


def _beside_published(results: Sequence[Result], names: Sequence[str]) -> Table:
    found = {(r["encoder"], r["fingerprint"], r["prompts"], r["benchmark"]): r for r in results}
    rows = []
    for encoder, fingerprint, prompts in dict.fromkeys(key[:3] for key in found):
        cells = [Cell(encoder), Cell(Path(prompts).stem)]
        values = []
        for name in names:
            result = found.get((encoder, fingerprint, prompts, name))
            value = interval_of(result["macro"]["auc"], PERCENT) if result else None
            values.append(None if value is None else value.value)
            cells.append(Cell(value, (IN_DOMAIN,) if result and result["in_domain"] else ()))
        of_six = [value for name, value in zip(names, values, strict=True) if name in _SIX and value is not None]
        cells.append(Cell(sum(of_six) / len(of_six) if len(of_six) == len(_SIX) else None))
        rows.append(Row(tuple(cells)))
    columns = (*names, _MEAN)
    rows += [_published(anchor, columns, prompts="") for anchor in anchors("zero-shot") if _has(anchor, columns)]
    rows += [
        _published(anchor, columns, prompts="supervised") for anchor in anchors("supervised") if _has(anchor, columns)
    ]
    return Table(
        name="zero-shot",
        title="Zero-shot classification, beside published numbers",
        lead=f"Macro AUC in percent on the split {_splits(results)}. {intervals_told(results)} Our rows come first.",
        columns=(Column("model"), Column("prompts"), *map(Column, names), Column("mean of six")),
        rows=tuple(rows),
    )


def _has(anchor: Anchor, columns: Sequence[str]) -> bool:
    return any(column in anchor.values for column in columns)


def _published(anchor: Anchor, columns: Sequence[str], prompts: str) -> Row:
    cells = [Cell(f"{anchor.model} ({anchor.source})", anchor.notes), Cell(prompts)]
    for column in columns:
        numbers = anchor.values.get(column)
        value = None if numbers is None else Interval(*numbers)
        cells.append(Cell(value, (anchor.cells[column],) if column in anchor.cells else ()))
    return Row(tuple(cells), published=True)


def _all_metrics(results: Sequence[Result]) -> Table:
    rows = []
    for result in results:
        note = "In-sample: the thresholds are fitted on the records that F1 is measured on."
        f1_notes = (note,) if result["thresholds"] == "in-sample" else ()
        total = len(result["classes"]) + len(result["skipped"])
        skipped = f"Skipped for want of positives or negatives: {', '.join(result['skipped'])}."
        cells = (
            Cell(f"{result['benchmark']}: {result['encoder']}"),
            Cell(Path(result["prompts"]).stem),
            Cell(f"{result['records']:,} of {result['listed']:,}"),
            Cell(f"{len(result['classes'])} of {total}", (skipped,) if result["skipped"] else ()),
            Cell(interval_of(result["macro"]["auc"])),
            Cell(interval_of(result["macro"]["average_precision"])),
            Cell(result["chance"]["average_precision"]),
            Cell(interval_of(result["macro"]["f1"]), f1_notes),
            Cell(result["chance"]["f1"]),
        )
        rows.append(Row(cells))
    numbers = ("AUC", "AP", "AP by chance", "F1", "F1 by chance")
    texts = ("measured", "prompts", "records", "classes")
    return Table(
        name="zero-shot-metrics",
        title="Zero-shot classification, all metrics",
        lead=f"Means over classes on the split {_splits(results)}. AP by chance is the prevalence; F1 by chance flags "
        f"every record. {intervals_told(results)}",
        columns=(*map(Column, texts), *(Column(name, 3) for name in numbers)),
        rows=tuple(rows),
    )


def _by_class(results: Sequence[Result]) -> Table:
    first = results[0]
    rows = []
    for known in first["classes"]:
        cells = [Cell(known["name"]), Cell(float(known["positives"]))]
        for result in results:
            same = next((row for row in result["classes"] if row["name"] == known["name"]), None)
            cells.append(Cell(interval_of(same["auc"]) if same else None))
        rows.append(Row(tuple(cells)))
    skipped = f" Skipped for want of positives or negatives: {', '.join(first['skipped'])}." if first["skipped"] else ""
    return Table(
        name=f"zero-shot-{first['benchmark']}-classes",
        title=f"Zero-shot classification of {first['benchmark']}, by class",
        lead=f"AUC on the split {first['split']}, {first['records']:,} records.{skipped} {intervals_told(results)} "
        "Where positives are few it is too narrow: it knows no others.",
        columns=(
            Column("class"),
            Column("positives", 0),
            *(Column(f"{result['encoder']}, {Path(result['prompts']).stem}", 3) for result in results),
        ),
        rows=tuple(rows),
    )


def linear_probe_tables(results: Sequence[Result]) -> list[Table]:
    """Return one table per benchmark."""
    names = [name for name in BENCHMARKS if any(result["benchmark"] == name for result in results)]
    return [_probe_table([result for result in results if result["benchmark"] == name]) for name in names]


def _probe_table(results: Sequence[Result]) -> Table:
    first = results[0]
    fractions = sorted({row["fraction"] for result in results for row in result["rows"]})
    rows = [row for result in results for row in _probe_rows(result, fractions)]
    for anchor in anchors("linear-probe"):
        if first["benchmark"] in anchor.values:
            numbers = dict(zip(_FRACTIONS, anchor.values[first["benchmark"]], strict=True))
            notes = (*anchor.notes, *([anchor.cells[first["benchmark"]]] if first["benchmark"] in anchor.cells else []))
            cells = [Cell(f"{anchor.model} ({anchor.source})", notes), Cell("as published")]
            rows.append(Row((*cells, *(Cell(numbers.get(fraction)) for fraction in fractions)), published=True))
    learned = {f"{row['fraction']} %: {row['train_records']:,}" for result in results for row in result["rows"]}
    return Table(
        name=f"linear-probe-{first['benchmark']}",
        title=f"Linear probe and nearest neighbours on {first['benchmark']}, beside published numbers",
        lead=f"Macro AUC in percent on the split {first['split']} by the share of training records learned from "
        f"({', '.join(sorted(learned, key=lambda text: int(text.split()[0])))} records). {intervals_told(results)}",
        columns=(Column("model"), Column("what"), *(Column(f"{fraction} %") for fraction in fractions)),
        rows=tuple(rows),
    )


def _probe_rows(result: Result, fractions: Sequence[int]) -> list[Row]:
    """Return the rows of one encoder: both choices of the epoch and the neighbours, for each kind of subset."""
    by_subset: dict[str, dict[int, Result]] = {}
    for row in result["rows"]:
        kinds = ("published", "stratified") if row["subset"] == "all" else (row["subset"],)
        for kind in kinds:  # everything there is, is both the random and the stratified subset
            by_subset.setdefault(kind, {})[row["fraction"]] = row
    if all(row["subset"] == "all" for row in result["rows"]):
        by_subset = {"": by_subset["published"]}
    same = (f"Chosen on the split {result['selected_on']} itself, so both choices are the same and optimistic.",)
    notes = same if result["selected_on"] == result["split"] else ()
    inexact = (
        "The published random subset could not be told exactly here; this is the same draw over the records at hand.",
    )
    rows = []
    for kind, found in by_subset.items():
        about = inexact if kind == "published" and not result["published_subset_exact"] else ()
        name = Cell(result["encoder"], (*about, *((_FEATURES_IN_DOMAIN,) if result["in_domain"] else ())))
        said = f", {kind} subset" if kind else ""
        ways: tuple[tuple[str, str, tuple[str, ...]], ...] = (
            ("test at best val", "test_at_best_val", notes),
            ("max test", "max_test", ("The best of all epochs on the reported records, as the literature prints it.",)),
            ("nearest neighbours", "knn_test_at_best_val", notes),
        )
        for way, key, of_way in ways:
            cells = [Cell(_percent(found[each][key])) if each in found else Cell(None) for each in fractions]
            rows.append(Row((name, Cell(way + said, of_way), *cells)))
    return rows


def _percent(value: Mapping[str, float | None] | float | None) -> float | Interval | None:
    if isinstance(value, Mapping):
        return interval_of(value, PERCENT)
    return None if value is None else value * PERCENT


def _splits(results: Sequence[Result]) -> str:
    return ", ".join(dict.fromkeys(result["split"] for result in results))
