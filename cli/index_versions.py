"""`fgclep index rollback`, `gc`, `export`, `import` and `relocate`: the life of an index after it was built."""

from pathlib import Path
from typing import Annotated

import typer

from cli.index_words import Index, Json, OwnIndex, OwnName, counts_line, own_index, size_bytes
from cli.output import print_json, say


def rollback(name: OwnIndex = None) -> None:
    """Go back to the version that was current before; `use NAME --version` goes to any other."""
    from cli import settings
    from indexer.home import index_dir
    from indexer.versions import roll_back

    name = own_index(name)
    path = roll_back(index_dir(settings.home(), name))
    say(f"Index {name} is back at version {path.name}.")
    typer.echo(path)


def collect(
    name: OwnIndex = None,
    keep: Annotated[int, typer.Option("--keep", min=1, help="How many of the newest versions to keep.")] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be removed.")] = False,
    as_json: Json = False,
) -> None:
    """Remove old versions and what killed runs left; never the current version, nor one that a process has open."""
    from cli import settings
    from indexer.home import index_dir
    from indexer.versions import remove_old

    name = name if name in _never_published() else own_index(name)
    result = remove_old(index_dir(settings.home(), name), keep, dry_run=dry_run)
    for version in result.in_use:
        say(f"{version} is kept: a process has it open.")
    done = "Would remove" if dry_run else "Removed"
    if result.leftovers:
        say(f"{done} what a killed import, relocation or removal left: {', '.join(result.leftovers)}.")
    number = f"{len(result.removed)} version{'' if len(result.removed) == 1 else 's'}"
    say(f"{done} {number} of index {name}, {result.freed_bytes / 1e6:,.1f} MB.")
    if as_json:
        print_json(
            {
                "schema": 1,
                "name": name,
                "dry_run": dry_run,
                "removed": list(result.removed),
                "in_use": list(result.in_use),
                "leftovers": list(result.leftovers),
                "freed_bytes": result.freed_bytes,
            }
        )
    else:
        for version in result.removed:
            typer.echo(version)


def _never_published() -> set[str]:
    """Return the names of indexes that are nothing but what a killed import left."""
    from cli import settings
    from indexer.home import CURRENT, indexes_dir
    from indexer.versions import leftovers

    directories = indexes_dir(settings.home()).glob("*")
    return {path.name for path in directories if not (path / CURRENT).exists() and leftovers(path)}


def export(
    file: Annotated[Path, typer.Argument(help="Archive to write, such as index.tar.zst; must not exist.")],
    name: Index = None,
) -> None:
    """Write an index into one archive, verified by reading it back; the model and the ECGs are not in it."""
    from cli.demo import find_published_index
    from indexer.archive import export_version

    path = find_published_index(name)
    size = export_version(path, file)
    say(f"Exported {path} to {file}, {size / 1e6:,.1f} MB. Elsewhere: fgclep index import {file.name}")
    typer.echo(file)


def import_(
    file: Annotated[Path, typer.Argument(help="Archive written by `fgclep index export`.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the new index; the archive's unless given.")
    ] = None,
) -> None:
    """Make an index of an archive, after checking every byte of it."""
    from cli import settings
    from indexer.archive import import_version
    from indexer.manifest import read_manifest

    path = import_version(file, settings.home(), name)
    manifest = read_manifest(path)
    say(f"Imported index {manifest.name}: {counts_line(manifest)}, {size_bytes(manifest) / 1e6:,.1f} MB.")
    for root in dict.fromkeys(reference.root for _, reference in manifest.sources):
        if not Path(root).is_dir():
            say(f"Its ECGs were in {root}; pictures need them: fgclep index relocate PATH --name {manifest.name}")
    typer.echo(path)


def relocate(
    data: Annotated[Path, typer.Argument(metavar="PATH", help="Folder that holds the data now.")],
    name: OwnName = None,
    moved: Annotated[
        Path | None,
        typer.Option(
            "--moved", help="Where it was; needed if the index was read from several folders, unless only one is gone."
        ),
    ] = None,
) -> None:
    """Tell an index that its data moved; it must be the same data. Nothing is encoded again."""
    from cli import settings
    from indexer.relocate import relocate_index

    name = own_index(name)
    path = relocate_index(settings.home(), name, data, moved=moved)
    say(f"Index {name} reads its ECGs from {data.absolute()} now.")
    typer.echo(path)
