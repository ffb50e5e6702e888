"""`fgclep train`: make a model bundle from ECGs and reports."""

from pathlib import Path
from typing import Annotated

import typer

from cli.output import say

app = typer.Typer(no_args_is_help=True, help="Train the dual encoder on your ECGs and reports.")


@app.callback()
def train() -> None:
    """Train the dual encoder on your ECGs and reports."""


@app.command()
def coarse(
    data: Annotated[Path, typer.Option("--data", help="A PTB-XL tree; folds 1-8 train, fold 9 chooses the epoch.")],
    out: Annotated[Path, typer.Option("--out", help="Run directory; repeat the command to go on after a stop.")],
    config: Annotated[Path | None, typer.Option("--config", help="TOML file with settings.")] = None,
    override: Annotated[
        list[str] | None, typer.Option("-o", "--override", help="One setting as key=value; repeatable.")
    ] = None,
    statements: Annotated[
        Path | None, typer.Option("--statements", help="Report statements of another source, one per line.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of everything; the settings' own by default.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that read records.")] = 2,
) -> None:
    """Step 1 (CLEP): align ECGs with their reports and with what is true of them.

    Writes OUT/bundle, a model for `fgclep index build --model`, with its scores on the card.

    The default text tower comes with the train extra of the package.
    """
    from fgclep.training.config import parse_overrides, read_config
    from fgclep.training.run import train_coarse

    settings = read_config(config, parse_overrides(override or []) | ({} if seed is None else {"seed": seed}))
    bundle = train_coarse(data, out, settings, statements, workers, say)
    typer.echo(str(bundle))
    say(f"Next: fgclep index build --data {data} --model {bundle} --name NAME")
