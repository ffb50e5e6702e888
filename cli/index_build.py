"""`fgclep index build`, `add` and `rebuild`: the three ways to a new version, and what each would take."""

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.index_words import Json, OwnIndex, OwnName, counts_line, own_index, size_bytes
from cli.output import print_json, say

if TYPE_CHECKING:
    from fgclep.datasets import Dataset
    from indexer.estimate import Estimate
    from indexer.plan import Plan


class Dtype(StrEnum):
    """How vectors are stored."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


_NUMPY_DTYPES = {Dtype.FP32: "float32", Dtype.FP16: "float16", Dtype.INT8: "int8"}

Data = Annotated[Path | None, typer.Option("--data", help="Folder of a data set (FGCLEP_DATA).")]
Precision = Annotated[
    Dtype,
    typer.Option(
        "--dtype",
        help="Of the stored vectors. fp16 halves the index; int8 adds bytes to that, which are searched first: "
        "less memory is read, the hits stay exact.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=0, help="Processes that read and, on a CPU, encode; one a core unless given, 0: none."
    ),
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", min=1, help="Records read and encoded together; as suits the device.")
]
Restart = Annotated[bool, typer.Option("--restart", help="Discard an unfinished run.")]
MaxRejectRate = Annotated[
    float, typer.Option("--max-reject-rate", min=0, max=1, help="Publish nothing above this share of rejects.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only measure a sample and tell time, memory and disk; write nothing.")
]


def build(
    name: Annotated[str, typer.Option("--name", help="Name of the index; an existing one gets a new version.")],
    data: Data = None,
    model: Annotated[str | None, typer.Option("--model", help="Name or path; the shipped one unless given.")] = None,
    workers: Workers = None,
    batch_size: BatchSize = None,
    dtype: Precision = Dtype.FP32,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Index the first N records only.")] = None,
    restart: Restart = False,
    max_reject_rate: MaxRejectRate = 0.2,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Index the ECGs of a data set; goes on with an unfinished build of the same command."""
    from cli import settings
    from indexer.build import open_for_model, plan_build
    from indexer.embed import load_embedder
    from indexer.home import index_dir

    index_dir(settings.home(), name)  # refuses a bad name before anything is loaded
    folder = _data_folder(data, f"fgclep index build --data PATH --name {name}")
    embedder = load_embedder(settings.text("model", model), _device())
    plan = plan_build(
        dataset := open_for_model(folder, embedder),
        embedder,
        name,
        home=settings.home(),
        workers=workers,
        batch_size=batch_size,
        dtype=_NUMPY_DTYPES[dtype],
        limit=limit,
        resume=not restart,
        max_reject_rate=max_reject_rate,
    )
    doing = "Going on with" if plan.continues else "Building"
    _carry_out(plan, f"{doing} index {name}: {plan.total:,} records of {_told(dataset)}", dry_run, as_json)


def add(
    name: OwnName = None,
    data: Data = None,
    only_new: Annotated[
        bool, typer.Option("--only-new", help="Leave out records that are in the index; else they are refused.")
    ] = False,
    model: Annotated[str | None, typer.Option("--model", help="Where the index's own model is now.")] = None,
    workers: Workers = None,
    batch_size: BatchSize = None,
    restart: Restart = False,
    max_reject_rate: MaxRejectRate = 0.2,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Add the new records of a folder, encoded by the index's own model; nothing else is encoded again."""
    from cli import settings
    from indexer.add import plan_add
    from indexer.build import open_for_model
    from indexer.embed import load_embedder
    from indexer.home import current_version, index_dir
    from indexer.manifest import read_manifest
    from indexer.open import matching_model

    name = own_index(name)
    folder = _data_folder(data, f"fgclep index add --data PATH --name {name}")
    manifest = read_manifest(current_version(index_dir(settings.home(), name)))
    embedder = load_embedder(str(matching_model(manifest, model)), _device())
    plan = plan_add(
        dataset := open_for_model(folder, embedder),
        embedder,
        name,
        home=settings.home(),
        only_new=only_new,
        workers=workers,
        batch_size=batch_size,
        resume=not restart,
        max_reject_rate=max_reject_rate,
    )
    doing = "Going on adding" if plan.continues else "Adding"
    _carry_out(plan, f"{doing} to index {name}: {plan.total:,} new records of {_told(dataset)}", dry_run, as_json)


def rebuild(
    model: Annotated[str, typer.Option("--model", help="Name or path of the new model.")],
    name: OwnIndex = None,
    activate: Annotated[
        bool, typer.Option("--activate", help="Search the new version from then on; else it waits beside the old one.")
    ] = False,
    workers: Workers = None,
    batch_size: BatchSize = None,
    restart: Restart = False,
    max_reject_rate: MaxRejectRate = 0.2,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Encode the same records with another model, beside the version in use; what is known of them is kept."""
    from cli import settings
    from indexer.embed import load_embedder
    from indexer.rebuild import plan_rebuild

    name = own_index(name)
    plan = plan_rebuild(
        load_embedder(model, _device()),
        name,
        home=settings.home(),
        activate=activate,
        workers=workers,
        batch_size=batch_size,
        resume=not restart,
        max_reject_rate=max_reject_rate,
    )
    doing = "Going on rebuilding" if plan.continues else "Rebuilding"
    version = _carry_out(plan, f"{doing} index {name}: {plan.total:,} records in {plan.roots}", dry_run, as_json)
    if version is not None and not activate:
        say(f"Try it: fgclep search TEXT --index {version}")
        say(f"Use it: fgclep index use {name} --version {version.name}")


def _carry_out(plan: "Plan", announcement: str, dry_run: bool, as_json: bool) -> Path | None:
    """Tell what a plan would take, or run it and tell what came of it; return the new version."""
    from dataclasses import asdict

    from cli.progress import record_progress
    from indexer.build import run_build
    from indexer.manifest import read_manifest

    if dry_run:
        _tell_estimate(plan, announcement, as_json)
        return None
    reference = plan.embedder.model
    say(
        f"{announcement}; model {reference.name} [{reference.fingerprint}], {plan.embed.workers} worker processes, "
        f"up to {plan.disk_bytes / 1e6:,.1f} MB of disk in {plan.directory}."
    )
    with record_progress(plan.name) as progress:
        version_dir = run_build(plan, progress)
    manifest = read_manifest(version_dir)
    say(f"Done: {counts_line(manifest)}, {size_bytes(manifest) / 1e6:,.1f} MB.")
    if plan.activates:
        say(f'Next: fgclep search "low QRS voltage" --index {plan.name}')
    if as_json:
        print_json({"schema": 1, "name": plan.name, "path": str(version_dir), "counts": asdict(manifest.counts)})
    else:
        typer.echo(version_dir)
    return version_dir


def _tell_estimate(plan: "Plan", announcement: str, as_json: bool) -> None:
    from dataclasses import asdict

    from indexer.estimate import estimate
    from indexer.resources import usable_cores

    found = estimate(plan, usable_cores())
    if as_json:
        print_json({"schema": 1, "name": plan.name, "dry_run": True, "estimate": asdict(found)})
        return
    say(f"{announcement}. This is a dry run: nothing is written.")
    for label, value in _estimate_lines(plan, found):
        typer.echo(f"{label:<10} {value}")


def _estimate_lines(plan: "Plan", found: "Estimate") -> list[tuple[str, str]]:
    workers = plan.embed.workers
    reading = f"{workers} worker process{'' if workers == 1 else 'es'}" if workers else "all in one process"
    return [
        ("records", f"{found.records:,}"),
        (
            "sample",
            f"{found.sampled:,} of them: {found.read_ms:.2f} ms to read, {found.encode_ms:.2f} ms to encode, "
            f"{found.store_ms:.2f} ms to store each; {found.rejected:,} rejected",
        ),
        ("time", f"about {timedelta(seconds=max(1, round(found.seconds)))}, {reading}"),
        ("memory", f"about {found.memory_bytes / 1e6:,.0f} MB"),
        ("disk", f"up to {found.disk_bytes / 1e6:,.1f} MB in {plan.directory}; {found.free_bytes / 1e6:,.0f} MB free"),
    ]


def _data_folder(given: Path | None, command: str) -> Path:
    from cli import settings
    from fgclep.errors import UsageError

    folder = given or settings.text("data")
    if folder is None:
        raise UsageError("No data was given.", command)
    return Path(folder)


def _device() -> str:
    """Return where the model runs: what FGCLEP_DEVICE says, else CUDA where it works."""
    import torch

    from cli import settings
    from fgclep.errors import UsageError

    asked = settings.text("device") or "auto"
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=asked)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UsageError(f"The device {asked!r} cannot be used: {reason}.", "FGCLEP_DEVICE=auto") from error
    return asked


def _told(dataset: "Dataset") -> str:
    rate = f" at {dataset.fs_hz} Hz" if dataset.fs_hz else ""
    missing = f"; the files of {len(dataset.missing):,} listed records are missing" if dataset.missing else ""
    return f"{dataset.name}{rate} in {dataset.root}{missing}"
