"""`fgclep evaluate calibrate`: what a bundle's scores are worth as probabilities, and a better curve."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.evaluate import options
from cli.evaluate.retrieval import OptionalSplit, SearchSetName
from cli.evaluate.tables import rejected, table
from cli.output import console, print_json, say

if TYPE_CHECKING:
    from rich.table import Table

    from fgclep.evaluation.calibrate_bundle import CalibrationResult
    from fgclep.evaluation.calibration import Assessment


def calibrate(
    dataset: SearchSetName = "ptbxl-all",
    data: options.Data = None,
    split: OptionalSplit = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME|PATH",
            help="A bundle; the shipped one unless given (FGCLEP_MODEL).",
            rich_help_panel="Input",
        ),
    ] = None,
    splits: options.Splits = None,
    seed: options.Seed = 0,
    workers: options.Workers = 1,
    write: Annotated[
        bool,
        typer.Option("--write", help="Put the new curve into the bundle, which search uses.", rich_help_panel="Output"),
    ] = False,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Fit what turns a cosine into a score, and say how far scores are from the truth.

    A score is a probability: the share of ECGs with this cosine that have the
    finding, if 5 % of all ECGs searched have it. Every finding counts the same
    in the fit. ECE is the mean gap between score and truth; the new curve is
    assessed on subjects and findings that it was not fitted on.

    The curve is no part of the bundle's fingerprint: indexes stay valid.
    """
    from fgclep.evaluation.calibrate_bundle import calibrate_bundle, write_calibration
    from fgclep.evaluation.results import plain, provenance, write_json
    from fgclep.pretrained import resolve_model

    folder = options.data_folder(data, f"fgclep evaluate calibrate --dataset {dataset} --data PATH")
    spec = options.model_specs(None if model is None else [model])[0]
    bundle = resolve_model(spec)
    asked = {"dataset": dataset, "data": folder, "split": split, "model": spec, "splits": splits, "seed": seed}
    facts = provenance(options.command_words("calibrate", **asked, write=write), seed=seed)
    with options.embedding(spec, "joint", workers) as embed:
        result = calibrate_bundle(bundle, dataset, folder, split, splits=splits, embed=embed, seed=seed)
    if out is not None:
        file = out / f"calibrate-{result.dataset}-{result.split}-{result.encoder}-{result.fingerprint[:8]}.json"
        write_json(file, {**facts, "results": [result]})
        say(f"Wrote {file}")
    if as_json:
        print_json(plain({**facts, "results": [result]}))
    else:
        _print(result)
    if write:
        say(f"Wrote {write_calibration(bundle, result.new)}")
    else:
        say("The bundle is as it was; --write puts the new curve into it.")


def _print(result: "CalibrationResult") -> None:
    shown = console()
    shown.print(
        f"Scores of {result.encoder} (fingerprint {result.fingerprint}) on {result.dataset}, split {result.split}: "
        f"{result.records:,} of {result.listed:,} listed records of {result.subjects:,} subjects, "
        f"{result.missing:,} without files, {rejected(result)} rejected; {result.texts} findings by plain name."
    )
    shown.print(f"Not assessed, for want of positives (5) or negatives: {', '.join(result.skipped) or 'no class'}.")
    for title, curve in (("old", result.old), ("new", result.new)):
        shown.print(f"{title}: score = sigmoid({curve.slope:.3f} x cosine {curve.offset:+.3f})")
    shown.print(
        f"A new score is the share of ECGs with that cosine that have the finding if {100 * result.prevalence:.0f} % "
        "of all ECGs searched have it."
    )
    shown.print(_summary(result))
    shown.print("Reliability, every finding at that prevalence:")
    shown.print(_reliability(result.before, result.after))


def _summary(result: "CalibrationResult") -> "Table":
    rows = table("curve, assessed on", "ECE", "ECE by finding", "ECE of first 10 hits", "log loss")
    assessed = {
        "old, plain names": result.before,
        "new, plain names, cross-validated": result.after,
        f"old, {result.other_texts} other wordings": result.other_before,
        f"new, {result.other_texts} other wordings": result.other_after,
    }
    for title, found in assessed.items():
        if found is not None:
            numbers = (found.ece, found.ece_by_text, found.top_ece, found.log_loss)
            rows.add_row(title, *(f"{number:.4f}" for number in numbers))
    return rows


def _reliability(before: "Assessment", after: "Assessment") -> "Table":
    rows = table("curve", "score from", "to", "pairs", "mean score", "observed share")
    for title, found in (("old", before), ("new", after)):
        for b in found.bins:
            cells = (f"{b.low:.1f}", f"{b.high:.1f}", f"{b.pairs:,}", f"{b.score:.3f}", f"{b.observed:.3f}")
            rows.add_row(title, *cells)
    return rows
