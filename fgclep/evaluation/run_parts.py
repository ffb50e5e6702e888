"""Long runs in parts: each is kept with a key of its inputs, and what is kept under the same key is not run again."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgclep.errors import FgclepError
from fgclep.evaluation.results import SCHEMA, plain, write_json


@dataclass(frozen=True)
class Product:
    """What a part brings forth.

    Attributes:
        result: a dataclass or JSON values; None where the files are all.
        files: written, as paths below the run's folder.
    """

    result: object
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """One piece of work.

    Attributes:
        name: of its files.
        kind: what it measures or draws, such as `zero-shot`.
        inputs: everything its outcome follows from, as JSON values.
        run: given the run's folder, into which it may write files.
    """

    name: str
    kind: str
    inputs: dict[str, Any]
    run: Callable[[Path], Product]

    @property
    def key(self) -> str:
        """16 hex digits that change with the inputs."""
        text = json.dumps({"schema": SCHEMA, "kind": self.kind, **plain(self.inputs)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Outcome:
    """What became of a part.

    Attributes:
        result: in JSON values; None of a part that failed or only draws.
        files: paths below the run's folder.
        seconds: that it took when it was run.
        error: why it failed.
        resumed: whether an earlier run's outcome was taken.
    """

    name: str
    kind: str
    key: str
    inputs: dict[str, Any]
    result: Any
    files: tuple[str, ...]
    seconds: float
    error: str | None = None
    resumed: bool = False


def run_parts(parts: Sequence[Part], folder: Path, say: Callable[[str], None]) -> list[Outcome]:
    """Run parts one after the other, or take what an earlier run kept of them.

    A part that ends in an error that is told to users is put down with it, and the others go on; it is tried again the
    next time.

    Args:
        parts: with different names.
        folder: of the run; each part is kept as `parts/<name>.json`.
        say: told a line per part.
    """
    return [_run_one(part, folder, say) for part in parts]


def _run_one(part: Part, folder: Path, say: Callable[[str], None]) -> Outcome:
    kept = folder / "parts" / f"{part.name}.json"
    outcome = _read_kept(kept, part, folder)
    if outcome is not None:
        say(f"{part.name}: as kept")
        return outcome
    inputs = plain(part.inputs)
    started = time.monotonic()
    try:
        product = part.run(folder)
    except FgclepError as error:
        told = f"{error.message} {error.hint}".strip()
        say(f"{part.name}: failed, {told}")
        return Outcome(part.name, part.kind, part.key, inputs, None, (), time.monotonic() - started, error=told)
    seconds = round(time.monotonic() - started, 1)
    result = plain(product.result)
    content = {"key": part.key, "inputs": inputs, "seconds": seconds, "files": product.files, "result": result}
    write_json(kept, content)
    say(f"{part.name}: {seconds:.1f} s")
    return Outcome(part.name, part.kind, part.key, inputs, result, product.files, seconds)


def _read_kept(kept: Path, part: Part, folder: Path) -> Outcome | None:
    """Return what an earlier run kept; None if there is nothing whole of the same key."""
    try:
        content = json.loads(kept.read_text(encoding="utf-8"))
        files = tuple(content["files"])
        if content["key"] != part.key or not all((folder / name).is_file() for name in files):
            return None
        return Outcome(
            part.name, part.kind, part.key, content["inputs"], content["result"], files, content["seconds"],
            resumed=True,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):  # a damaged file is run again
        return None
