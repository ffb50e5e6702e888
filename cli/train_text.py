"""`fgclep train text`: teach a model bundle further wordings."""

from pathlib import Path
from typing import Annotated

import typer

from cli.output import say


def text(
    data: Annotated[Path, typer.Option("--data", help="A PTB-XL tree or pack; folds 1-8 train, fold 9 is scored.")],
    out: Annotated[Path, typer.Option("--out", help="Run directory; repeat the command to go on after a stop.")],
    model: Annotated[
        str | None, typer.Option("--model", help="A bundle's name or path; the shipped one unless given.")
    ] = None,
    statements: Annotated[
        Path | None, typer.Option("--statements", help="Report statements of another source, one per line.")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps.")] = 500,
    synthetic: Annotated[int, typer.Option("--synthetic", min=0, help="Synthetic ECGs to add.")] = 4000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything.")] = 7,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that read records.")] = 2,
) -> None:
    """Train the text side of a finished bundle further, on the catalogue's wordings as they are now.

    Writes OUT/bundle: the same model with other text vectors; those of ECGs stay as they are.

    It takes a bundle of preset small, whose memory of findings tells where texts belong.
    """
    from fgclep.pretrained import resolve_model
    from fgclep.training.config import CoarseConfig
    from fgclep.training.text_run import LEARNING_RATE, train_text

    settings = CoarseConfig(text_steps=steps, text_learning_rate=LEARNING_RATE, synthetic_records=synthetic, seed=seed)
    bundle = train_text(resolve_model(model), data, out, settings, statements, workers, say)
    typer.echo(str(bundle))
    say(f"Next: fgclep model score --data {data} {bundle}")
