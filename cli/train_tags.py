"""`fgclep train tags`: give a model bundle a tag head, which tells where in an ECG a text is seen."""

from pathlib import Path
from typing import Annotated

import typer

from cli.output import say


def tags(
    data: Annotated[Path, typer.Option("--data", help="A PTB-XL tree or pack; folds 1-8 train, fold 9 is scored.")],
    out: Annotated[Path, typer.Option("--out", help="Run directory; repeat the command to go on after a stop.")],
    model: Annotated[
        str | None, typer.Option("--model", help="A bundle's name or path; the shipped one unless given.")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps.")] = 1000,
    alignment: Annotated[str, typer.Option("--alignment", help="transport or attention.")] = "transport",
    synthetic: Annotated[int, typer.Option("--synthetic", min=0, help="Synthetic ECGs to add.")] = 4000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything.")] = 7,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that read records.")] = 2,
) -> None:
    """Train a tag head on a finished bundle: which leads and windows speak for a text.

    Writes OUT/bundle: the same model, whose vectors do not change, with the head.
    """
    from fgclep.pretrained import resolve_model
    from fgclep.training.tag_run import train_tags
    from fgclep.training.tag_side import TagSettings

    settings = TagSettings(steps=steps, alignment=alignment, seed=seed)
    bundle = train_tags(resolve_model(model), data, out, settings, synthetic, workers, say)
    typer.echo(str(bundle))
    say(f"Next: fgclep evaluate pointing --model {bundle}")
