"""What every run directory holds beside its checkpoints: its settings, pinned, and its log."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fgclep.durable import write_durably
from fgclep.errors import UsageError

_FREE = {"checkpoint_steps", "concurrency", "key_file", "retries", "threads", "timeout", "url"}
"""Settings that do not change a result, so that a run may go on with others; those of its steps too."""


def read_settings(file: Path) -> dict[str, Any]:
    """Return what was saved with a run, nothing if there is no such file.

    Raises:
        UsageError: if it cannot be read.
    """
    if not file.is_file():
        return {}
    try:
        settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{file} is not a readable JSON file: {error}.", "Choose a new --out.") from error
    return settings


def save_settings(file: Path, settings: Mapping[str, Any]) -> None:
    """Write settings as JSON; the file is as it was or whole."""
    write_durably(file, (json.dumps(dict(settings), indent=2) + "\n").encode())


def pin_settings(file: Path, settings: Mapping[str, Any]) -> None:
    """Save settings and sources with the run; refuse to go on with others.

    Raises:
        UsageError: if the directory holds a run with other settings, or cannot be read.
    """
    plain = json.loads(json.dumps(dict(settings)))  # tuples become lists, as they come back from the file
    if earlier := read_settings(file):
        then, now = _bound(earlier), _bound(plain)
        changed = [key for key in {**then, **now} if then.get(key) != now.get(key)]
        if changed:
            raise UsageError(
                f"{file.parent} holds a run with another {', '.join(changed)}.",
                "Repeat the settings or choose a new --out.",
            )
    save_settings(file, plain)


def _bound(settings: Mapping[str, Any], table: str = "") -> dict[str, Any]:
    """Return the settings that a run must repeat, those of tables by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            found |= _bound(value, f"{table}{key}.")
        elif key not in _FREE:
            found[table + key] = value
    return found


def logged(out: Path, report: Callable[[str], None]) -> Callable[[str], None]:
    """Return a `report` that also appends each line to the run's train.log."""

    def both(line: str) -> None:
        with (out / "train.log").open("a", encoding="utf-8") as log:
            log.write(line + "\n")
        report(line)

    return both
