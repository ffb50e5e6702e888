"""`fgclep index`: build, list, inspect, verify and choose indexes."""

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.demo import find_published_index
from cli.output import OutputFormat, console, print_json, print_rows, say, with_output_flags

if TYPE_CHECKING:
    from indexer.build import BuildPlan
    from indexer.home import IndexEntry
    from indexer.manifest import IndexManifest

app = typer.Typer(help="Build, list, inspect, verify and choose indexes.", invoke_without_command=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Index = Annotated[str | None, typer.Argument(help="Name or path; the default index unless given (FGCLEP_INDEX).")]


class Dtype(StrEnum):
    """How vectors are stored."""

    FP32 = "fp32"
    FP16 = "fp16"


_NUMPY_DTYPES = {Dtype.FP32: "float32", Dtype.FP16: "float16"}


@app.callback()
def index(ctx: typer.Context) -> None:
    """Build, list, inspect, verify and choose indexes."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_, **{f"as_{form}": False for form in OutputFormat if form is not OutputFormat.TABLE})


@app.command("list")
@with_output_flags
def list_(output: OutputFormat = OutputFormat.TABLE) -> None:
    """List the indexes; `*` marks the default one."""
    from cli.settings import home
    from indexer.home import indexes_dir, list_indexes

    rows = [_entry_row(entry) for entry in list_indexes(home())]
    if output is not OutputFormat.TABLE:
        print_rows(output, {"schema": 1, "indexes": rows}, rows, _ROW_FIELDS, "name")
    elif rows:
        _print_table(rows)
    else:
        say(f"No index in {indexes_dir(home())} yet. Make one: fgclep index build --data PATH --name NAME")


@app.command()
def info(
    name: Index = None,
    as_json: Json = False,
    rejects: Annotated[bool, typer.Option("--rejects", help="List every rejected record and why.")] = False,
) -> None:
    """Show what an index holds: model, data, counts, rejects, size."""
    from indexer.manifest import read_manifest
    from indexer.open import STORE
    from indexer.store import open_store

    path = find_published_index(name)
    manifest = read_manifest(path)
    rejected = []
    if rejects:
        with open_store(path / STORE) as store:
            rejected = store.rejects()
    if as_json:
        from dataclasses import asdict

        print_json({**asdict(manifest), "path": str(path), **({"rejects": rejected} if rejects else {})})
        return
    for label, value in _describe(manifest, path):
        typer.echo(f"{label:<10} {value}")
    for row in rejected:
        typer.echo(f"{row['record_id']}\t{row['reason']}\t{row['detail']}")


@app.command()
def verify(
    name: Index = None,
    full: Annotated[bool, typer.Option("--full", help="Read every file and vector, not only a sample.")] = False,
    as_json: Json = False,
) -> None:
    """Check counts, checksums, vectors, store and search; exit 6 if anything is wrong."""
    from dataclasses import asdict

    from fgclep.errors import CorruptionError
    from indexer.verify import verify_index

    path = find_published_index(name)
    checks = verify_index(path, full=full)
    failed = [check for check in checks if not check.passed]
    if as_json:
        print_json({"schema": 1, "path": str(path), "passed": not failed, "checks": [asdict(c) for c in checks]})
        raise typer.Exit(CorruptionError.exit_code if failed else 0)
    for check in checks:
        typer.echo(f"{'ok' if check.passed else 'FAILED':<7} {check.name:<16} {check.detail}")
    if failed:
        raise CorruptionError(
            f"{path} failed {len(failed)} of {len(checks)} checks: {', '.join(check.name for check in failed)}.",
            "Restore the index from a copy, or build it again with `fgclep index build`.",
        )


@app.command()
def use(name: Annotated[str, typer.Argument(help="Name of an index.")]) -> None:
    """Make an index the default."""
    from cli.settings import home
    from indexer.home import use_index

    use_index(home(), name)
    say(f"{name} is the default index now.")


@app.command("path")
def path_(name: Index = None) -> None:
    """Print the directory of an index's current version."""
    typer.echo(find_published_index(name))


@app.command()
def build(
    name: Annotated[str, typer.Option("--name", help="Name of the index; an existing one gets a new version.")],
    data: Annotated[Path | None, typer.Option("--data", help="Folder of a data set (FGCLEP_DATA).")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Name or path; the shipped one unless given.")] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=0, help="Reading processes; half the cores unless given, 0 reads in this one."),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Records per step of the model.")] = 64,
    dtype: Annotated[Dtype, typer.Option("--dtype", help="Of the stored vectors; fp16 halves the index.")] = Dtype.FP32,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Index the first N records only.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Discard an unfinished build.")] = False,
    max_reject_rate: Annotated[
        float, typer.Option("--max-reject-rate", min=0, max=1, help="Publish nothing above this share of rejects.")
    ] = 0.2,
    as_json: Json = False,
) -> None:
    """Index the ECGs of a data set; goes on with an unfinished build of the same command."""
    from cli import settings
    from cli.progress import record_progress
    from fgclep.errors import UsageError
    from indexer.build import open_for_model, plan_build, run_build
    from indexer.embed import load_embedder
    from indexer.home import index_dir
    from indexer.manifest import read_manifest

    index_dir(settings.home(), name)  # refuses a bad name before anything is loaded
    folder = data or settings.text("data")
    if folder is None:
        raise UsageError("No data was given.", "fgclep index build --data PATH --name NAME")
    embedder = load_embedder(settings.text("model", model), _device())
    plan = plan_build(
        open_for_model(Path(folder), embedder),
        embedder,
        name,
        home=settings.home(),
        workers=max(1, _cores() // 2) if workers is None else workers,
        batch_size=batch_size,
        dtype=_NUMPY_DTYPES[dtype],
        limit=limit,
        resume=not restart,
        max_reject_rate=max_reject_rate,
    )
    say(_announce(plan))
    with record_progress(name) as progress:
        version_dir = run_build(plan, progress)
    manifest = read_manifest(version_dir)
    say(f"Done: {_counts_line(manifest)}, {_size(manifest) / 1e6:,.1f} MB.")
    say(f'Next: fgclep search "low QRS voltage" --index {name}')
    if as_json:
        from dataclasses import asdict

        print_json({"schema": 1, "name": name, "path": str(version_dir), "counts": asdict(manifest.counts)})
    else:
        typer.echo(version_dir)


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


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _announce(plan: "BuildPlan") -> str:
    dataset, reference = plan.dataset, plan.embedder.model
    rate = f" at {dataset.fs_hz} Hz" if dataset.fs_hz else ""
    missing = f"; the files of {len(dataset.missing):,} listed records are missing" if dataset.missing else ""
    doing = "Going on with" if plan.continues else "Building"
    return (
        f"{doing} index {plan.name}: {plan.total:,} records of {dataset.name}{rate} in {dataset.root}{missing}; "
        f"model {reference.name} [{reference.fingerprint}], {plan.embed.workers} reading processes, "
        f"up to {plan.disk_bytes / 1e6:,.1f} MB of disk in {plan.directory}."
    )


_ROW_FIELDS = (
    "name", "default", "records", "rejected", "dataset", "model", "model_fingerprint", "created", "bytes", "version",
    "path", "problem",
)  # fmt: skip


def _entry_row(entry: "IndexEntry") -> dict[str, Any]:
    """Describe one index; a damaged one says so instead of hiding the others."""
    from fgclep.errors import FgclepError
    from indexer.manifest import read_manifest

    row: dict[str, Any] = dict.fromkeys(_ROW_FIELDS)
    row |= {"name": entry.name, "default": entry.default, "path": str(entry.directory)}
    try:
        manifest = read_manifest(version_dir := entry.version_dir)
    except FgclepError as error:
        return {**row, "problem": error.message}
    return row | {
        "version": version_dir.name,
        "path": str(version_dir),
        "records": manifest.counts.indexed,
        "rejected": manifest.counts.rejected,
        "dataset": manifest.dataset.kind,
        "model": manifest.model.name,
        "model_fingerprint": manifest.model.fingerprint,
        "created": manifest.created,
        "bytes": _size(manifest),
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table("", "name", "records", "data", "model", "created", "MB", "problem", box=None)
    for row in rows:
        table.add_row(
            "*" if row["default"] else "",
            row["name"],
            "" if row["records"] is None else f"{row['records']:,}",
            row["dataset"],
            row["model"],
            row["created"],
            "" if row["bytes"] is None else f"{row['bytes'] / 1e6:,.1f}",
            row["problem"],
        )
    console().print(table)


def _describe(manifest: "IndexManifest", path: Path) -> list[tuple[str, str]]:
    from indexer.home import VERSIONS

    model, dataset, test = manifest.model, manifest.dataset, manifest.self_test
    rate = f" at {dataset.fs_hz} Hz" if dataset.fs_hz else ""
    reasons = [f"{number:,} {reason}" for reason, number in manifest.counts.rejected_by_reason.items()]
    kept = sorted(sibling.name for sibling in path.parent.iterdir() if sibling != path and path.parent.name == VERSIONS)
    return [
        ("name", f"{manifest.name} ({manifest.version})"),
        ("created", f"{manifest.created} by fgclep {manifest.fgclep_version}"),
        ("model", f"{model.name} [{model.fingerprint}], {model.dim} dimensions, {manifest.dtype}; {model.path}"),
        ("data", f"{dataset.name}{rate}; {dataset.root}"),
        ("counts", _counts_line(manifest)),
        ("rejects", ", ".join(reasons) or "none"),
        ("size", f"{_size(manifest) / 1e6:,.1f} MB"),
        ("search", ", ".join(f"{key} {value}" for key, value in test.items())),
        ("path", str(path)),
        ("older", ", ".join(kept) or "none"),
    ]


def _counts_line(manifest: "IndexManifest") -> str:
    counts = manifest.counts
    limit = f" + {counts.beyond_limit:,} beyond --limit" if counts.beyond_limit else ""
    return (
        f"{counts.listed:,} listed = {counts.indexed:,} indexed + {counts.rejected:,} rejected + "
        f"{counts.missing:,} missing{limit}"
    )


def _size(manifest: "IndexManifest") -> int:
    return sum(file.bytes for file in manifest.files.values())
