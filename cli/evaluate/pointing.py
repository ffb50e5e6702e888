"""`fgclep evaluate pointing`: does a model point at the leads that show a finding?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.evaluate import options
from cli.output import console, print_json, say

if TYPE_CHECKING:
    from rich.table import Table

    from fgclep.evaluation.pointing import Pointing
    from fgclep.evaluation.results import Interval

_SEED = 4242


def pointing(
    model: Annotated[
        str | None,
        typer.Option("--model", help="A bundle's name or path; the shipped one unless given.", rich_help_panel="Input"),
    ] = None,
    records: Annotated[
        int, typer.Option("--records", min=1, help="Synthetic ECGs to draw.", rich_help_panel="Input")
    ] = 300,
    draws: options.Draws = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the ECGs; not one that the model trained on.")] = _SEED,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write the results (.json).", rich_help_panel="Output")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Play the pointing game on synthetic ECGs, whose leads are known.

    Asks for a finding without naming a lead, takes the lead with the most
    evidence, and counts how often it shows the finding. Beside the model stand
    the same model with random weights, occlusion where a tag head answers, and
    chance: the same evidence everywhere.
    """
    from cli import settings
    from fgclep.evaluation.pointing import play_with_bundle
    from fgclep.evaluation.results import plain, provenance, write_json
    from fgclep.pretrained import bundle_fingerprint, resolve_model

    name = model or settings.text("model")
    bundle = resolve_model(name)
    fingerprint = bundle_fingerprint(bundle)
    command = options.command_words("pointing", model=name, records=records, draws=draws, seed=seed)
    facts = {**provenance(command, seed=seed), "model": str(name or "shipped"), "fingerprint": fingerprint}
    with options.encoding_progress("pointing") as progress:
        results = play_with_bundle(bundle, records, seed=seed, draws=draws, progress=progress)
    document = {**facts, "records": records, "results": plain(results)}
    if out is not None:
        file = out / f"pointing-{bundle.name}-{fingerprint[:8]}.json"
        write_json(file, document)
        say(f"Wrote {file}")
    if as_json:
        print_json(document)
        return
    shown = console()
    shown.print(f"Pointing game, model {name or 'shipped'} (fingerprint {fingerprint}), {records:,} synthetic ECGs")
    shown.print("Share of queries whose lead with the most evidence shows the finding; uniform: what chance gives.")
    if draws:
        shown.print(f"In brackets: 95 % intervals, bootstrap over subjects, {draws:,} draws.")
    shown.print(_table(results))


def _table(results: "tuple[Pointing, ...]") -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("group")
    table.add_column("asked for", overflow="fold")
    for title in ("queries", *results[0].shares):
        table.add_column(title, justify="right", overflow="fold")
    for each in results:
        cells = (_cell(share) for share in each.shares.values())
        table.add_row(each.group, each.text or "all of them", f"{each.queries:,}", *cells)
    return table


def _cell(interval: "Interval") -> str:
    known = interval.low == interval.low  # NaN: no interval was computed
    return f"{interval.value:.3f}" + (f" [{interval.low:.3f}, {interval.high:.3f}]" if known else "")
