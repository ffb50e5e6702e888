"""`fgclep train`: make a model bundle from ECGs and reports."""

from pathlib import Path
from typing import Annotated

import typer

from cli.output import say
from cli.train_tags import tags
from cli.train_text import text

app = typer.Typer(no_args_is_help=True, help="Train the dual encoder on your ECGs and reports.")

Out = Annotated[Path, typer.Option("--out", help="Run directory; repeat the command to go on after a stop.")]
Config = Annotated[Path | None, typer.Option("--config", help="TOML file with settings.")]
Override = Annotated[list[str] | None, typer.Option("-o", "--override", help="One setting as key=value; repeatable.")]
Statements = Annotated[
    Path | None, typer.Option("--statements", help="Report statements of another source, one per line; preset small.")
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of everything; the settings' own by default.")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Processes that read records.")]


@app.callback()
def train() -> None:
    """Train the dual encoder on your ECGs and reports."""


@app.command()
def coarse(
    data: Annotated[Path, typer.Option("--data", help="A tree or pack; the preset small takes PTB-XL.")],
    out: Out,
    config: Config = None,
    override: Override = None,
    statements: Statements = None,
    seed: Seed = None,
    workers: Workers = 2,
) -> None:
    """Step 1 (CLEP): align ECGs with their reports and with what is true of them.

    The setting preset chooses the recipe: small (ours, on PTB-XL folds 1-8, choosing the epoch on fold 9) or
    fg-clep-v1 (the paper's, on the reports of any data set; torchrun may start it on several GPUs).

    Writes OUT/bundle, a model for `fgclep index build --model`, with its scores on the card.

    The default text tower comes with the train extra of the package.
    """
    from fgclep.training.config import read_config
    from fgclep.training.pipeline import train_step_one
    from fgclep.training.settings import parse_overrides

    settings = read_config(config, parse_overrides(override or []) | ({} if seed is None else {"seed": seed}))
    _tell(train_step_one(data, out, settings, statements, workers, say), data)


@app.command()
def fine(
    data: Annotated[Path, typer.Option("--data", help="The tree or pack whose reports were enriched.")],
    features: Annotated[Path, typer.Option("--features", help="JSONL that `fgclep enrich export` wrote.")],
    out: Out,
    source: Annotated[
        str, typer.Option("--from", help="Bundle of the coarse model, by name or path, or the run that made it.")
    ] = "small",
    config: Config = None,
    override: Override = None,
    seed: Seed = None,
    workers: Workers = 2,
) -> None:
    """Step 3 (FG-CLEP): go on from a coarse model on reports with the accepted waveform features.

    Writes OUT/bundle.
    """
    from fgclep.training.config import read_fine_config
    from fgclep.training.pair_run import train_fine
    from fgclep.training.settings import parse_overrides

    settings = read_fine_config(config, parse_overrides(override or []) | ({} if seed is None else {"seed": seed}))
    _tell(train_fine(source, data, features, out, settings, workers, say), data)


@app.command(name="run")
def run_steps(
    ctx: typer.Context,
    data: Annotated[Path, typer.Option("--data", help="A tree or pack with ECGs and reports.")],
    out: Out,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file with the tables coarse, enrich and fine.")
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option("-o", "--override", help="One setting as table.key=value; repeatable.")
    ] = None,
    statements: Statements = None,
    workers: Workers = 2,
) -> None:
    """Do all three steps: coarse model, waveform features behind the reports, fine model.

    Steps that are done are skipped; a step that was stopped goes on where it was. Settings of steps that are still to
    come may change. Writes OUT/fine/bundle.
    """
    from cli.enrich import refuse_network
    from fgclep.training.pipeline import train_all
    from fgclep.training.run_config import read_run_config
    from fgclep.training.settings import parse_overrides

    settings = read_run_config(config, parse_overrides(override or []))
    refuse_network(settings.enrich.provider(), offline=bool(ctx.find_root().params.get("offline")))
    _tell(train_all(data, out, settings, statements, workers, say), data)


app.command()(tags)
app.command()(text)


def _tell(bundle: Path, data: Path) -> None:
    """Print where the new model is; of the processes that torchrun started, one does."""
    from fgclep.training.pipeline import is_first_process, leave_processes

    if is_first_process():
        typer.echo(str(bundle))
        say(f"Next: fgclep index build --data {data} --model {bundle} --name NAME")
    leave_processes()
