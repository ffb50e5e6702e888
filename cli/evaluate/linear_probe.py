"""`fgclep evaluate linear-probe`: what a simple head reads from frozen features."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.evaluate import options
from cli.evaluate.tables import cell, describe, intervals_told, table, value
from cli.output import console, print_json, say

if TYPE_CHECKING:
    from rich.table import Table

    from fgclep.evaluation.linear_probe import ProbeResult


def linear_probe(
    dataset: options.Benchmark,
    data: options.Data = None,
    split: options.SplitChoice = "val",
    model: options.Models = None,
    random_init: Annotated[
        bool,
        typer.Option(
            "--random-init/--no-random-init",
            help="Add the first bundle with fresh weights: what the architecture alone gives.",
            rich_help_panel="Input",
        ),
    ] = True,
    fraction: Annotated[
        list[int] | None,
        typer.Option(
            "--fraction",
            min=1,
            max=100,
            help="Share of the training records in per cent; repeatable. 1, 10 and 100 unless given.",
            rich_help_panel="Input",
        ),
    ] = None,
    splits: options.Splits = None,
    draws: options.Draws = 1000,
    seed: options.Seed = 0,
    workers: options.Workers = 1,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Fit a linear head and nearest neighbours to frozen features, and measure them.

    Learns from the benchmark's training split, or from shares of it: the random
    subset of the papers and a stratified one. The validation split chooses the
    epoch and the number of neighbours. Prints macro AUC on --split: at that
    choice (test@best_val), and at the best of all epochs as papers do (max_test).

    Features are computed once and kept in the home's cache.
    """
    from fgclep.evaluation.linear_probe import FRACTIONS
    from fgclep.evaluation.linear_probe import linear_probe as measure
    from fgclep.evaluation.results import plain, provenance, write_json

    folder = options.data_folder(data, f"fgclep evaluate linear-probe --dataset {dataset} --data PATH")
    specs = options.model_specs(model)
    fractions = fraction or list(FRACTIONS)
    asked = {"dataset": dataset, "data": folder, "split": split, "model": specs, "no_random_init": not random_init}
    command = options.command_words("linear-probe", **asked, fraction=fractions, splits=splits, draws=draws, seed=seed)
    facts = provenance(command, seed=seed)
    results: list[ProbeResult] = []
    for spec in _with_random(specs) if random_init else specs:
        with options.embedding(spec, "features", workers) as embed:
            result, scores = measure(
                spec, dataset, folder, split,
                embed=embed, fractions=fractions, splits=splits, draws=draws, seed=seed,
            )  # fmt: skip
        results.append(result)
        if out is not None:
            stem = f"linear-probe-{dataset}-{split}-{result.encoder}-{result.fingerprint[:8]}"
            write_json(out / f"{stem}.json", {**facts, "results": [result]})
            for subset, scored in scores.items():
                scored.save(out / f"{stem}-{subset}.npz")
            say(f"Wrote {out / stem}.json and {len(scores)} .npz")
    if as_json:
        print_json({**facts, "results": plain(results)})
    else:
        _print(results)


def _with_random(specs: list[str]) -> list[str]:
    """Add the first bundle, or the shipped one beside foreign models only, with fresh weights."""
    from fgclep.pretrained import SHIPPED_MODEL

    bundle = next((spec for spec in specs if ":" not in spec), SHIPPED_MODEL)
    return list(dict.fromkeys([*specs, f"random:{bundle}"]))


def _print(results: "list[ProbeResult]") -> None:
    first = results[0]
    shown = console()
    shown.print(f"Linear probe and nearest neighbours on {first.benchmark}, split {first.split}: macro AUC")
    shown.print(f"Labels and split: {first.source}.")
    for result in results:
        shown.print(_describe(result))
    for skipped in dict.fromkeys(result.skipped for result in results):
        shown.print(f"Skipped, for want of positives or negatives: {', '.join(skipped) or 'no class'}.")
    for row in first.rows:
        if row.absent:
            subset = f"{row.fraction} % {row.subset}"
            shown.print(f"Counted, but without a positive to learn from ({subset}): {', '.join(row.absent)}.")
    if first.selected_on == first.split:
        shown.print(
            f"Epoch and neighbours were chosen on {first.split}, the very records that are scored: "
            "test@best_val and max_test are the same here, and both are optimistic."
        )
    else:
        shown.print(
            f"test@best_val: epoch and neighbours chosen on {first.selected_on}. "
            f"max_test: the best epoch on {first.split} itself, as papers print it; an upper bound."
        )
    if not first.published_subset_exact:
        shown.print("The published subset is drawn over the records at hand, not over the papers' full list.")
    if first.draws:
        shown.print(intervals_told(first))
    shown.print(_table(results))


def _describe(result: "ProbeResult") -> str:
    learned = f"Training records: {result.train_records:,} of {result.train_listed:,} listed."
    return f"{describe(result, result.in_domain, more=f'; {result.feature_dim:,} features')} {learned}"


def _table(results: "list[ProbeResult]") -> "Table":
    titles = ("records", "test@best_val", "epoch", "max_test", "kNN test@best_val", "k")
    rows = table("model", "learned from", *titles, names=2)
    for result in results:
        for row in result.rows:
            rows.add_row(
                result.encoder,
                f"{row.fraction} %, {row.subset}",
                f"{row.train_records:,}",
                cell(row.test_at_best_val),
                str(row.best_epoch),
                value(row.max_test),
                cell(row.knn_test_at_best_val),
                str(row.neighbours),
            )
    return rows
