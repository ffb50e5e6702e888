"""`fgclep evaluate figures`: the pictures that papers show, of your model on your data."""

from pathlib import Path
from typing import Annotated

import typer

from cli.evaluate import options
from cli.evaluate.retrieval import OptionalSplit, SearchSetName
from cli.output import print_json, say


def figures(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder of the pictures.", rich_help_panel="Output")
    ],
    dataset: SearchSetName = "ptbxl-all",
    data: options.Data = None,
    split: OptionalSplit = None,
    model: options.Models = None,
    query: Annotated[
        list[str] | None,
        typer.Option(
            "--query", help="A text whose first three hits are drawn; repeatable. The paper's three by default."
        ),
    ] = None,
    finding: Annotated[
        list[str] | None,
        typer.Option("--finding", metavar="ID", help="A finding to mark on the map, such as LPR; up to six."),
    ] = None,
    splits: options.Splits = None,
    draws: options.Draws = 1000,
    seed: options.Seed = 0,
    workers: options.Workers = 1,
    as_json: options.Json = False,
) -> None:
    """Draw a model on a data set, each figure as PNG and SVG.

    ROC and precision-recall curves, reliability of scores (bundles only), the
    similarity of reports, the map of embeddings by finding, and the first three
    hits of some queries on ECG paper. All are of the first model; the map has a
    panel for each of up to three.
    """
    from fgclep.errors import DataError
    from fgclep.evaluation import figures_write
    from fgclep.evaluation.calibrate_bundle import calibrate_bundle
    from fgclep.evaluation.figures_data import finding_names
    from fgclep.evaluation.results import plain
    from fgclep.evaluation.run_config import FiguresConfig
    from fgclep.pretrained import resolve_model
    from retrieval.plates import draw_plate

    folder = options.data_folder(data, f"fgclep evaluate figures --dataset {dataset} --data PATH --out DIR")
    specs = options.model_specs(model)
    marked = finding or FiguresConfig.findings
    finding_names(marked)  # refuses unknown ones before anything is encoded
    shown = []
    for spec in specs:
        with options.embedding(spec, "joint", workers) as embed:
            shown.append(figures_write.open_shown(spec, dataset, folder, split, splits=splits, embed=embed))
    first = shown[0]
    name = f"{first.records.name}-{first.records.split}-{first.encoder.name}"
    title = f"{first.records.name}, {first.records.split} split: {first.encoder.name}"
    written: list[Path] = []

    def curves() -> list[Path]:
        return figures_write.write_curves(first.scored(), title, draws, seed, out / name)

    def reliability() -> list[Path]:
        bundle = resolve_model(specs[0])
        with options.embedding(specs[0], "joint", workers) as embed:
            result = plain(calibrate_bundle(bundle, dataset, folder, split, splits=splits, embed=embed, seed=seed))
        return figures_write.write_reliability(result["before"], result["after"], title, out / f"{name}-reliability")

    def heat_map() -> list[Path]:
        return figures_write.write_heat_map(first, seed, out / f"{name}-similarity")

    def embedding_map() -> list[Path]:
        return figures_write.write_map(shown, marked, seed, out / f"{name}-map")

    def plates() -> list[Path]:
        return figures_write.write_plates(first, query or FiguresConfig.queries, draw_plate, out / f"{name}-hits")

    every = [curves, heat_map, embedding_map, plates]
    for draw in every if ":" in specs[0] else [*every, reliability]:
        try:
            written += draw()
        except DataError as problem:  # such as a set without reports: the other figures can be drawn
            say(f"Not drawn: {problem.message}")
    if as_json:
        print_json({"files": [str(path) for path in written]})
    else:
        for path in written:
            typer.echo(str(path))
