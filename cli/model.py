"""`fgclep model`: the model bundles at hand."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.output import OutputFormat, print_rows, with_output_flags

app = typer.Typer(no_args_is_help=True, help="Look at model bundles.")


@app.callback()
def model() -> None:
    """Look at model bundles."""


@app.command("list")
@with_output_flags
def list_models(output: OutputFormat = OutputFormat.TABLE) -> None:
    """List the bundles that come with fgclep."""
    from fgclep.pretrained import bundle_fingerprint, resolve_model, shipped_models

    rows: list[dict[str, Any]] = [
        {"name": name, "fingerprint": bundle_fingerprint(resolve_model(name)), "path": str(resolve_model(name))}
        for name in shipped_models()
    ]
    if output is OutputFormat.TABLE:
        for row in rows:
            typer.echo(f"{row['name']}  {row['fingerprint']}  {row['path']}")
    else:
        print_rows(output, {"models": rows}, rows, ["name", "fingerprint", "path"], "name")


@app.command()
def info(name: Annotated[str, typer.Argument(help="Shipped name or directory of a bundle.")] = "small") -> None:
    """Print a bundle's card: what it was trained on and what it scores."""
    from fgclep.pretrained import bundle_fingerprint, resolve_model

    path = resolve_model(name)
    typer.echo(f"path: {path}\nfingerprint: {bundle_fingerprint(path)}\n")
    card = path / "README.md"
    typer.echo(card.read_text(encoding="utf-8") if card.is_file() else "The bundle has no card.")


@app.command()
def path(name: Annotated[str, typer.Argument(help="Shipped name or directory of a bundle.")] = "small") -> None:
    """Print where a bundle is."""
    from fgclep.pretrained import resolve_model

    typer.echo(str(resolve_model(name)))


@app.command()
def score(
    data: Annotated[Path, typer.Option("--data", help="A PTB-XL tree.")],
    name: Annotated[str, typer.Argument(help="Shipped name or directory of a bundle.")] = "small",
    fold: Annotated[int, typer.Option("--fold", min=1, max=10, help="Fold to score on.")] = 9,
    fs_hz: Annotated[
        int | None, typer.Option("--fs-hz", help="Rate of the files to read, 100 or 500; else the one that suits.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure how well text finds the records of a PTB-XL fold: the tables of the card."""
    import json
    from dataclasses import asdict

    from fgclep.evaluation.score import score_ptbxl_fold
    from fgclep.evaluation.tables import score_tables
    from fgclep.pretrained import resolve_model

    scores, records, rate = score_ptbxl_fold(resolve_model(name), data, fold, fs_hz)
    if as_json:
        typer.echo(json.dumps(asdict(scores)))
    else:
        typer.echo(score_tables(scores, f"PTB-XL fold {fold}, {records:,} records, {rate} Hz files"))


@app.command()
def check(directory: Annotated[Path, typer.Argument(help="Directory of a bundle.")]) -> None:
    """Load a bundle and encode one ECG and one text with it."""
    import numpy as np

    from fgclep.errors import CorruptionError
    from fgclep.preprocessing import EcgProcessor
    from fgclep.pretrained import bundle_fingerprint, load_calibration, load_model, resolve_model

    path = resolve_model(directory)
    model = load_model(path)
    processor = EcgProcessor.from_pretrained(path)
    load_calibration(path)
    flat = processor.prepare(np.zeros((12, 5000), np.float32), 500)
    vectors = np.concatenate([model.encode_ecg(flat[None]), model.encode_text(["sinus rhythm"])])
    if not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
        raise CorruptionError(f"{path} encodes to vectors that are not of length 1.", "train or copy the bundle again.")
    typer.echo(f"{path}: works, fingerprint {bundle_fingerprint(path)}, {model.dim} dimensions")
