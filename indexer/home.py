"""Where indexes live, and which one a name, a path or nothing at all means.

`<home>/indexes/<name>/CURRENT` names the version in use; `<home>/indexes/DEFAULT` names the index used when none is
asked for.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from fgclep.durable import write_durably
from fgclep.errors import CorruptionError, NotSetUpError, UsageError
from indexer.manifest import MANIFEST

CURRENT = "CURRENT"
DEFAULT = "DEFAULT"
VERSIONS = "versions"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_BUILD = "fgclep index build --data PATH --name NAME"


@dataclass(frozen=True)
class IndexEntry:
    """One published index of the home: its name, its directory, and whether it is the default."""

    name: str
    directory: Path
    default: bool

    @property
    def version_dir(self) -> Path:
        """The current version's directory; see `current_version` for the errors."""
        return current_version(self.directory)


def indexes_dir(home: Path) -> Path:
    """Return the directory that holds all indexes of a home; it need not exist."""
    return home / "indexes"


def index_dir(home: Path, name: str) -> Path:
    """Return the directory of one index by name; it need not exist.

    Raises:
        UsageError: if the name could not be a directory name everywhere.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of an index.",
            "Use letters, digits, dot, underscore and hyphen, beginning with a letter or digit.",
        )
    if name in (CURRENT, DEFAULT):
        raise UsageError(f"{name} is a reserved word and cannot be the name of an index.", "Choose another --name.")
    return indexes_dir(home) / name


def list_indexes(home: Path) -> list[IndexEntry]:
    """List the published indexes of a home, by name; unfinished ones have no CURRENT and are left out."""
    default = default_index(home)
    directories = sorted(path.parent for path in indexes_dir(home).glob(f"*/{CURRENT}"))
    return [IndexEntry(path.name, path, path.name == default) for path in directories]


def default_index(home: Path) -> str | None:
    """Return the name of the index used when none is asked for, or None."""
    try:
        return (indexes_dir(home) / DEFAULT).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def use_index(home: Path, name: str) -> Path:
    """Make an index the default and return its current version's directory.

    Raises:
        NotSetUpError: if there is no such index.
    """
    version_dir = resolve_index(name, home)
    if version_dir.parent.parent != index_dir(home, name):
        raise UsageError(f"{name} is not the name of an index of {indexes_dir(home)}.", "fgclep index list")
    replace_line(indexes_dir(home) / DEFAULT, name)
    return version_dir


def current_version(directory: Path) -> Path:
    """Return the version directory that an index's CURRENT names.

    Raises:
        NotSetUpError: if the index was never published.
        CorruptionError: if CURRENT names a version that is not there.
    """
    pointer = directory / CURRENT
    try:
        version = pointer.read_text(encoding="utf-8").strip()
    except FileNotFoundError as error:
        raise NotSetUpError(f"The index {directory.name} has no published version.", _BUILD) from error
    version_dir = directory / VERSIONS / version
    if not version or "/" in version or not version_dir.is_dir():
        kept = sorted(path.name for path in (directory / VERSIONS).glob("[!.]*"))
        raise CorruptionError(
            f"{pointer} names version {version!r}, which does not exist; there are {', '.join(kept) or 'none'}.",
            f"fgclep index use {directory.name} --version {kept[-1]}" if kept else f"Build the index again: {_BUILD}",
        )
    return version_dir


def resolve_index(name_or_path: str | Path | None, home: Path) -> Path:
    """Find the version directory of an index.

    Args:
        name_or_path: a name below `home`, the path of an index or version directory, or None for the default index
            (the only one, if none was chosen).
        home: the directory of settings and indexes.

    Raises:
        NotSetUpError: if there is no such index, or none at all.
        UsageError: if several exist and none is the default.
    """
    if name_or_path is None:
        return _resolve_default(home)
    asked = str(name_or_path)
    if _NAME.fullmatch(asked) and (indexes_dir(home) / asked).is_dir():
        return current_version(indexes_dir(home) / asked)
    path = Path(name_or_path).expanduser()
    if (path / MANIFEST).is_file():
        return path.resolve()
    if (path / CURRENT).is_file():
        return current_version(path.resolve())
    names = ", ".join(entry.name for entry in list_indexes(home)) or "none"
    raise NotSetUpError(
        f"There is no index {asked!r} in {indexes_dir(home)} (there: {names}), and it is not the path of one.",
        f"fgclep index list, or {_BUILD}",
    )


def _resolve_default(home: Path) -> Path:
    entries = list_indexes(home)
    chosen = [entry for entry in entries if entry.default] or entries
    if not chosen:
        raise NotSetUpError(f"There is no index in {indexes_dir(home)} yet.", _BUILD)
    if len(chosen) > 1:
        names = ", ".join(entry.name for entry in entries)
        raise UsageError(f"There are several indexes and none is the default: {names}.", "fgclep index use NAME")
    return chosen[0].version_dir


def replace_line(path: Path, line: str) -> None:
    """Replace a one-line file atomically: a reader, or a crash, sees the old line or the new one."""
    write_durably(path, f"{line}\n".encode())
