"""What the `fgclep index` commands share: their common options and how they speak of counts and sizes."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from indexer.manifest import IndexManifest

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Index = Annotated[str | None, typer.Argument(help="Name or path; the default index unless given (FGCLEP_INDEX).")]
OwnIndex = Annotated[str | None, typer.Argument(help="Name; the default index unless given (FGCLEP_INDEX).")]
OwnName = Annotated[str | None, typer.Option("--name", help="Name of an index; the default one unless given.")]


def own_index(asked: str | None) -> str:
    """Return the name of an index that may be changed: one of the home, by name or by default.

    Raises:
        UsageError: if it is the built-in demo, or a path elsewhere.
        NotSetUpError: if there is no such index.
    """
    from cli import settings
    from cli.demo import find_published_index
    from fgclep.errors import UsageError
    from indexer.home import indexes_dir

    path = find_published_index(asked)
    if path.parents[2] != indexes_dir(settings.home()):
        raise UsageError(
            f"{path} is not an index of {indexes_dir(settings.home())}, so it cannot be changed.", "fgclep index list"
        )
    return path.parents[1].name


def counts_line(manifest: "IndexManifest") -> str:
    """Say where every listed record went."""
    counts = manifest.counts
    limit = f" + {counts.beyond_limit:,} beyond --limit" if counts.beyond_limit else ""
    return (
        f"{counts.listed:,} listed = {counts.indexed:,} indexed + {counts.rejected:,} rejected + "
        f"{counts.missing:,} missing{limit}"
    )


def size_bytes(manifest: "IndexManifest") -> int:
    """Return the size of all files of a version."""
    return sum(file.bytes for file in manifest.files.values())
