"""`fgclep evaluate compare`: whether the difference between two models is real."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.evaluate import options
from cli.output import console, print_json


def compare(
    a: Annotated[Path, typer.Argument(help="Scores (.npz) of one model, or a folder of --out with its results.")],
    b: Annotated[Path, typer.Argument(help="The same of another model.")],
    metric: Annotated[
        Literal["auc", "average_precision"], typer.Option("--metric", help="What to compare, as a mean over classes.")
    ] = "auc",
    draws: Annotated[int, typer.Option("--draws", min=1, help="Draws of the paired bootstrap over subjects.")] = 2000,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Tell whether the difference between two results is real.

    Both are measured on the same draws of subjects, on the records that both
    have. The p value is two-sided; of several comparisons it is corrected by
    Holm's method, and below 0.05 the difference counts as real.
    """
    from dataclasses import asdict

    from rich import box
    from rich.table import Table

    from fgclep.evaluation.compare import compare as measure
    from fgclep.evaluation.compare import pair_up
    from fgclep.evaluation.results import plain, provenance

    found = measure(pair_up(a, b), metric, draws, seed)
    if as_json:
        words = ["fgclep", "evaluate", "compare", str(a), str(b), "--metric", metric, "--draws", str(draws)]
        facts = provenance([*words, "--seed", str(seed)], seed=seed)
        results = [{**asdict(each), "real": each.real} for each in found]
        print_json(plain({**facts, "a": a, "b": b, "draws": draws, "results": results}))
        return
    shown = console()
    shown.print(f"A: {a}\nB: {b}\n{metric}, mean over classes, A minus B; {draws:,} draws over subjects, seed {seed}.")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("measured on", "records", "A - B [95 % interval]", "p", "p corrected", "verdict"):
        table.add_column(title, overflow="fold")
    for each in found:
        d = each.difference
        verdict = ("A is better" if d.value > 0 else "B is better") if each.real else "no difference shown"
        interval = f"{d.value:+.4f} [{d.low:+.4f}, {d.high:+.4f}]"
        table.add_row(each.name, f"{each.records:,}", interval, f"{each.p_value:.4f}", f"{each.corrected:.4f}", verdict)
    shown.print(table)
