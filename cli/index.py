"""`fgclep index`: list, inspect, verify and choose indexes; building and versions are in modules of their own."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.demo import find_published_index
from cli.index_build import add, build, rebuild
from cli.index_versions import collect, export, import_, relocate, rollback
from cli.index_words import Index, Json, counts_line, size_bytes
from cli.output import OutputFormat, console, print_json, print_rows, say, with_output_flags

if TYPE_CHECKING:
    from indexer.home import IndexEntry
    from indexer.manifest import IndexManifest

app = typer.Typer(help="Build, list, inspect, verify and choose indexes.", invoke_without_command=True)


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
    from indexer.store_read import open_store

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
    full: Annotated[bool, typer.Option("--full", help="Look at every vector, and compare with the data.")] = False,
    as_json: Json = False,
) -> None:
    """Check every byte, counts, vectors, store and search; exit 6 if anything is wrong."""
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
def use(
    name: Annotated[str, typer.Argument(help="Name of an index.")],
    version: Annotated[
        str | None, typer.Option("--version", help="One of its versions, to become its current one.")
    ] = None,
) -> None:
    """Make an index the default; with --version, make that version its current one too."""
    from cli.settings import home
    from indexer.home import index_dir, use_index
    from indexer.versions import activate

    if version is not None:
        activate(index_dir(home(), name), version)
    path = use_index(home(), name)
    say(f"{name} is the default index now, in version {path.name}.")


@app.command("path")
def path_(name: Index = None) -> None:
    """Print the directory of an index's current version."""
    typer.echo(find_published_index(name))


app.command("build")(build)
app.command("add")(add)
app.command("rebuild")(rebuild)
app.command("rollback")(rollback)
app.command("gc")(collect)
app.command("export")(export)
app.command("import")(import_)
app.command("relocate")(relocate)

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
        "bytes": size_bytes(manifest),
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
    from indexer.versions import list_versions

    in_home = path.parent.name == VERSIONS
    model, dataset, test = manifest.model, manifest.dataset, manifest.self_test
    rate = f" at {dataset.fs_hz} Hz" if dataset.fs_hz else ""
    added = [("added", f"{one.indexed:,} of {one.dataset.name}; {one.dataset.root}") for one in manifest.additions]
    reasons = [f"{number:,} {reason}" for reason, number in manifest.counts.rejected_by_reason.items()]
    kept = [sibling.name for sibling in list_versions(path.parents[1]) if sibling != path] if in_home else []
    return [
        ("name", f"{manifest.name} ({manifest.version})"),
        ("created", f"{manifest.created} by fgclep {manifest.fgclep_version}"),
        ("model", f"{model.name} [{model.fingerprint}], {model.dim} dimensions, {manifest.dtype}; {model.path}"),
        ("data", f"{dataset.name}{rate}; {dataset.root}"),
        *added,
        ("counts", counts_line(manifest)),
        ("rejects", ", ".join(reasons) or "none"),
        ("size", f"{size_bytes(manifest) / 1e6:,.1f} MB"),
        ("search", ", ".join(f"{key} {value}" for key, value in test.items())),
        ("path", str(path)),
        ("others", ", ".join(kept) or "none"),
    ]
