"""`fgclep evaluate zero-shot`: classes of a benchmark asked for in words."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.evaluate import options
from cli.evaluate.tables import cell, describe, intervals_told, table, value
from cli.output import console, print_json, say

if TYPE_CHECKING:
    from rich.table import Table

    from fgclep.evaluation.zero_shot import ZeroShotResult

_METRICS = {"auc": "AUC", "average_precision": "AP", "f1": "F1"}
_TRAINED = "trained in-domain, on this data set, so not strictly zero-shot"


def zero_shot(
    dataset: options.Benchmark,
    data: options.Data = None,
    split: options.SplitChoice = "val",
    model: options.Models = None,
    random_init: Annotated[
        bool, typer.Option("--random-init", help="Add each bundle with fresh weights.", rich_help_panel="Input")
    ] = False,
    prompts: Annotated[
        str,
        typer.Option(
            "--prompts",
            metavar="KIND|FILE",
            help="plain: the class's name; ensemble: the best of that and 12 lead texts; curated: name and synonyms; "
            "or a JSON file, class to text, as CKEPE's.",
            rich_help_panel="Input",
        ),
    ] = "plain",
    splits: options.Splits = None,
    draws: options.Draws = 1000,
    seed: options.Seed = 0,
    workers: options.Workers = 1,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Ask for each class of a benchmark in words, and measure the answers.

    Prints the means over classes and every class: AUC, average precision (AP)
    and F1, with 95 % intervals by bootstrap over subjects, beside what chance
    gives. F1 is at the best threshold of the validation split; measured on that
    split itself it is an in-sample number and says so. Classes without both
    outcomes are skipped and named.
    """
    from fgclep.evaluation.results import plain, provenance, write_json
    from fgclep.evaluation.zero_shot import zero_shot as measure

    folder = options.data_folder(data, f"fgclep evaluate zero-shot --dataset {dataset} --data PATH")
    specs = options.model_specs(model)
    asked = {"dataset": dataset, "data": folder, "split": split, "model": specs, "random_init": random_init}
    command = options.command_words("zero-shot", **asked, prompts=prompts, splits=splits, draws=draws, seed=seed)
    facts = provenance(command, seed=seed)
    results: list[ZeroShotResult] = []
    for spec in [*specs, *_random(specs)] if random_init else specs:
        with options.embedding(spec, "joint", workers) as embed:
            result, scored = measure(
                spec, dataset, folder, split, prompts=prompts, embed=embed, splits=splits, draws=draws, seed=seed
            )
        results.append(result)
        if out is not None:
            stem = _stem(result)
            write_json(out / f"{stem}.json", {**facts, "results": [result]})
            scored.save(out / f"{stem}.npz")
            say(f"Wrote {out / stem}.json and .npz")
    if as_json:
        print_json(plain({**facts, "results": results}))
    else:
        _print(results)


def _random(specs: list[str]) -> list[str]:
    """Name the bundles among the models with fresh weights."""
    from fgclep.errors import UsageError

    bundles = [spec for spec in specs if ":" not in spec]
    if not bundles:
        raise UsageError("--random-init draws fresh weights for bundles, and no --model is one.", "--model small")
    return [f"random:{bundle}" for bundle in bundles]


def _stem(result: "ZeroShotResult") -> str:
    """Name the files of a result; the fingerprint keeps models of one name apart."""
    prompts = Path(result.prompts).stem
    return f"zero-shot-{result.benchmark}-{result.split}-{prompts}-{result.encoder}-{result.fingerprint[:8]}"


def _print(results: "list[ZeroShotResult]") -> None:
    first = results[0]
    shown = console()
    shown.print(f"Zero-shot on {first.benchmark}, split {first.split}, asked by prompts: {first.prompts}")
    shown.print(f"Labels and split: {first.source}.")
    for result in results:
        shown.print(describe(result, result.in_domain, trained=_TRAINED))
    for skipped in dict.fromkeys(result.skipped for result in results):
        shown.print(f"Skipped, for want of positives or negatives: {', '.join(skipped) or 'no class'}.")
    if first.thresholds == "in-sample":
        shown.print("F1 is in-sample: its thresholds are fitted on the records that it is measured on.")
    else:
        shown.print("F1 is at the best threshold of the validation split.")
    without = [row.name for row in first.classes if row.f1 is None]
    if without:
        shown.print(f"No F1, for want of positives or negatives on the validation split: {', '.join(without)}.")
    if first.draws:
        shown.print(intervals_told(first))
    shown.print(_summary(results))
    shown.print(_classes(first) if len(results) == 1 else _classes_by_model(results))


def _summary(results: "list[ZeroShotResult]") -> "Table":
    """Lay out the means over classes, a row for each model and one for chance."""
    rows = table("model", *(f"macro {title}" for title in _METRICS.values()))
    for result in results:
        rows.add_row(result.encoder, *(cell(result.macro[key]) for key in _METRICS))
    rows.add_row("chance (prevalence)", *(value(results[0].chance[key]) for key in _METRICS))
    return rows


def _classes(result: "ZeroShotResult") -> "Table":
    rows = table("class", "positives", "prevalence", *_METRICS.values())
    for row in result.classes:
        metrics = (row.auc, row.average_precision, row.f1)
        share = row.positives / result.records
        rows.add_row(row.name, f"{row.positives:,}", f"{share:.3f}", *(cell(metric) for metric in metrics))
    return rows


def _classes_by_model(results: "list[ZeroShotResult]") -> "Table":
    """Lay out AUC by class and model; everything else is in --json and --out."""
    rows = table("class", "positives", *(f"AUC, {result.encoder}" for result in results))
    by_model = [{row.name: row.auc for row in result.classes} for result in results]
    for row in results[0].classes:
        cells = (cell(aucs.get(row.name)) for aucs in by_model)
        rows.add_row(row.name, f"{row.positives:,}", *cells)
    return rows
