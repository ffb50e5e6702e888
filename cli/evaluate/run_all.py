"""`fgclep evaluate all`: everything that a configuration asks for, in one folder."""

from pathlib import Path
from typing import Annotated

import typer

from cli.evaluate import options
from cli.output import print_json, say


def run_all(
    config: Annotated[Path, typer.Option("--config", help="TOML file: models, data, and what to measure.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the report; repeat the command to go on after a stop.")],
    as_json: options.Json = False,
) -> None:
    """Measure and draw everything of a configuration, beside published numbers.

    Writes OUT/index.html (one page with everything inside), results.json, and
    tables and figures as files. A part whose inputs are those of an earlier run
    into the same folder is taken from it. A part that fails is told on the page,
    and the others go on; the command then ends with an error.

    docs/examples/evaluate.toml shows all keys.
    """
    from cli.evaluate.options import cache_folder, encoding_progress
    from fgclep.errors import DataError
    from fgclep.evaluation.report import PAGE, RESULTS, write_report
    from fgclep.evaluation.run_all import Tools, evaluate_all
    from fgclep.evaluation.run_config import read_evaluate_config
    from retrieval.plates import draw_plate

    settings = read_evaluate_config(config)
    command = ["fgclep", "evaluate", "all", "--config", str(config), "--out", str(out)]
    outcomes = evaluate_all(settings, out, Tools(cache_folder(), encoding_progress, draw_plate, say))
    write_report(settings, outcomes, out, command)
    failed = [outcome.name for outcome in outcomes if outcome.error]
    if as_json:
        states = {each.name: "failed" if each.error else "kept" if each.resumed else "done" for each in outcomes}
        print_json({"page": str(out / PAGE), "results": str(out / RESULTS), "parts": states})
    else:
        typer.echo(str(out / PAGE))
    if failed:
        raise DataError(
            f"{len(failed)} of {len(outcomes)} parts failed: {', '.join(failed)}; {out / PAGE} says why.",
            f"{' '.join(command)}  (goes on with them)",
        )
