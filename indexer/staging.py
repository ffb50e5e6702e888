"""The staging directory of a build: finished shards survive any interruption, half-written ones never count.

A shard holds a fixed stretch of the data set's listing. Its three files are written and made durable first, its
JSON entry with their checksums last: the entry is the commit.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from fgclep.durable import write_durably
from fgclep.errors import UsageError
from indexer.backends.base import Vectors
from indexer.manifest import sha256_file

_FILES = ("vectors.npy", "keys.npy", "rows.jsonl")
_AS_LINE = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY  # numpy's floats count as floats, as for `json`


@dataclass(frozen=True)
class ShardEntry:
    """What a finished shard says about itself.

    Attributes:
        listing: digest of the record ids it covers, indexed or rejected, in order.
        sha256: checksum by file.
    """

    listing: str
    indexed: int
    rejected_by_reason: Mapping[str, int]
    sha256: Mapping[str, str]


@dataclass(frozen=True)
class ShardContent:
    """One shard's results: vectors (n, D), keys int64 (n,), the n record rows as of `as_lines`, and the rejects."""

    listing: str
    vectors: Vectors
    keys: NDArray[np.int64]
    records: bytes
    rejects: Sequence[Mapping[str, Any]]


def as_lines(kind: str, rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Write `record` or `reject` rows as lines of JSON."""
    return b"".join([orjson.dumps({"kind": kind, **row}, option=_AS_LINE) for row in rows])


def rows_of(lines: Iterable[bytes], kind: str) -> Iterator[dict[str, Any]]:
    """Give the rows of a kind in lines of `as_lines`."""
    for line in lines:
        row = orjson.loads(line)
        if row.pop("kind") == kind:
            yield row


class Staging:
    """An unfinished build on disk.

    Args:
        directory: `<index>/staging`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.version_dir = directory / "version"
        self._shards = directory / "shards"
        self._plan = directory / "plan.json"

    def prepare(self, plan: Mapping[str, Any], version: str, *, resume: bool) -> str:
        """Start afresh or go on with an unfinished build of the same settings.

        Args:
            plan: everything that decides the vectors.
            version: the version's name, used if this is a new build.
            resume: False discards what is there.

        Returns:
            The version's name, an unfinished build's own if it goes on.

        Raises:
            UsageError: if the unfinished build there has other settings.
        """
        if resume and (found := self._read_plan()) is not None:
            if differences := self.differences(plan):
                raise UsageError(
                    f"{self.directory} holds an unfinished build with other settings: {', '.join(differences)}.",
                    "Repeat the earlier command to finish it, or add --restart to discard it.",
                )
            return str(found["version"])
        self.discard()  # shards without a plan are the rest of another run's removal, perhaps of another model
        self._shards.mkdir(parents=True)
        write_durably(self._plan, json.dumps({"version": version, "plan": plan}, indent=1).encode())
        return version

    def differences(self, plan: Mapping[str, Any]) -> list[str]:
        """Say in which settings a plan differs from the unfinished build; nothing without one."""
        found = self._read_plan()
        if found is None:
            return []
        then = found["plan"]
        wanted = json.loads(json.dumps(plan))
        return [f"{key} {then.get(key)!r}, now {value!r}" for key, value in wanted.items() if then.get(key) != value]

    @property
    def unfinished(self) -> bool:
        """Tell whether an unfinished build is there."""
        return self._read_plan() is not None

    def planned(self, key: str) -> Any:
        """Return one setting of the unfinished build, or `version`, its version's name; None without one."""
        found = self._read_plan()
        return None if found is None else {**found["plan"], "version": found["version"]}.get(key)

    def size_bytes(self) -> int:
        """Measure what lies here: finished shards, and leftovers that make room when they are replaced."""
        return sum(path.stat().st_size for path in self.directory.rglob("*") if path.is_file())

    def discard(self) -> None:
        """Remove everything; the plan goes first, so that half a removal is no resumable build."""
        self._plan.unlink(missing_ok=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def commit(self, number: int, content: ShardContent) -> ShardEntry:
        """Write one shard durably.

        Raises:
            OSError: if it cannot be written; nothing of it counts then.
        """
        vectors, keys, table = (self._path(number, name) for name in _FILES)
        write_durably(vectors, content.vectors)
        write_durably(keys, content.keys)
        write_durably(table, content.records + as_lines("reject", content.rejects))
        reasons = [str(row["reason"]) for row in content.rejects]
        entry = ShardEntry(
            listing=content.listing,
            indexed=len(content.keys),
            rejected_by_reason={reason: reasons.count(reason) for reason in sorted(set(reasons))},
            sha256={name: sha256_file(self._path(number, name)) for name in _FILES},
        )
        write_durably(self._path(number, "json"), json.dumps(asdict(entry)).encode())
        return entry

    def entry(self, number: int) -> ShardEntry | None:
        """Return a finished shard's entry, or None if it is unfinished or damaged and must be made again."""
        entry = _read_entry(self._path(number, "json"))
        try:
            sound = entry is not None and all(
                sha256_file(self._path(number, name)) == entry.sha256[name] for name in _FILES
            )
        except (OSError, KeyError):
            return None
        return entry if sound else None

    def covered(self) -> int:
        """Count the records of the finished shards by their entries alone; `entry` also looks at the files."""
        entries = map(_read_entry, self._shards.glob("*.json"))
        return sum(entry.indexed + sum(entry.rejected_by_reason.values()) for entry in entries if entry is not None)

    def vectors(self, number: int) -> Vectors:
        """Load a shard's vectors (n, D)."""
        vectors: Vectors = np.load(self._path(number, "vectors.npy"), allow_pickle=False)
        return vectors

    def keys(self, number: int) -> NDArray[np.int64]:
        """Load a shard's keys, int64 (n,)."""
        keys: NDArray[np.int64] = np.load(self._path(number, "keys.npy"), allow_pickle=False)
        return keys

    def iter_rows(self, shards: int, kind: str) -> Iterator[dict[str, Any]]:
        """Stream the `record` or `reject` rows of the first `shards` shards, in order."""
        for number in range(shards):
            with self._path(number, "rows.jsonl").open("rb") as lines:
                yield from rows_of(lines, kind)

    def _path(self, number: int, name: str) -> Path:
        return self._shards / f"{number:06d}.{name}"

    def _read_plan(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self._plan.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and {"version", "plan"} <= found.keys() else None


def _read_entry(path: Path) -> ShardEntry | None:
    try:
        return ShardEntry(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
