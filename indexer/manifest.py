"""The manifest: the one JSON file that makes a directory an index version.

It says which model, data and options made the vectors, counts that add up, and the checksum of every file.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgclep.errors import CompatibilityError, CorruptionError

SCHEMA = 2  # 1 had no additions
_READABLE = (1, SCHEMA)
MANIFEST = "manifest.json"
STORED = {"float32": "float32", "float16": "float16", "int8": "float16"}
"""How the exact vectors are stored, by the choice of a build; `int8` has bytes beside them, which are read first."""
_REBUILD = "Build the index again with `fgclep index build`, or restore the file from a copy."


@dataclass(frozen=True)
class ModelRef:
    """The model that made the vectors; the fingerprint decides, name and path help to find it."""

    name: str
    path: str
    fingerprint: str
    dim: int


@dataclass(frozen=True)
class DatasetRef:
    """The data that was indexed; `fs_hz` is the tree that was read, None where the data set has no choice."""

    kind: str
    name: str
    root: str
    fs_hz: int | None


@dataclass(frozen=True)
class Counts:
    """Where every listed record went: listed = missing + beyond_limit + read, read = indexed + rejected."""

    listed: int
    missing: int
    beyond_limit: int
    read: int
    indexed: int
    rejected: int
    rejected_by_reason: Mapping[str, int]

    def problem(self) -> str | None:
        """Return the sum that does not add up, or None."""
        if self.listed != self.missing + self.beyond_limit + self.read:
            return f"listed {self.listed} != missing {self.missing} + limit {self.beyond_limit} + read {self.read}"
        if self.read != self.indexed + self.rejected:
            return f"read {self.read} != indexed {self.indexed} + rejected {self.rejected}"
        if self.rejected != sum(self.rejected_by_reason.values()):
            return f"rejected {self.rejected} != by reason {dict(self.rejected_by_reason)}"
        return None


@dataclass(frozen=True)
class Addition:
    """Records that `index add` brought: those with keys from `first_key` up to the next addition's."""

    dataset: DatasetRef
    first_key: int
    indexed: int


@dataclass(frozen=True)
class FileRef:
    """Size and checksum of one file of the version."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class IndexManifest:
    """Everything an index version says about itself.

    Attributes:
        version: the directory's name below `versions/`.
        created: ISO 8601, UTC.
        dataset: the data of the first build.
        counts: of all data together.
        dtype: `float32` or `float16`, of the stored vectors, or `int8` for halves with bytes beside them (`STORED`).
        options: of the command that made this version; `base` is the version it started from.
        calibration: copy of the model bundle's calibration.json.
        self_test: measured recall and latency of the finished index.
        files: path below the version directory -> size and checksum; every file but the manifest.
        additions: what came after the first build, in the order of their keys.
    """

    name: str
    version: str
    created: str
    fgclep_version: str
    model: ModelRef
    dataset: DatasetRef
    counts: Counts
    dtype: str
    options: Mapping[str, Any]
    calibration: Mapping[str, Any]
    self_test: Mapping[str, Any]
    files: Mapping[str, FileRef]
    additions: tuple[Addition, ...] = ()
    schema: int = SCHEMA

    @property
    def sources(self) -> tuple[tuple[int, DatasetRef], ...]:
        """Every stretch of keys that was read from one place: its first key and the data."""
        return ((0, self.dataset), *((addition.first_key, addition.dataset) for addition in self.additions))


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def describe_files(directory: Path) -> dict[str, FileRef]:
    """Measure every file below a version directory, the manifest apart."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(directory).as_posix(): FileRef(path.stat().st_size, sha256_file(path)) for path in paths}


def manifest_json(manifest: IndexManifest) -> str:
    """Serialise a manifest; its own checksum stands last, so that an edited or damaged one is noticed."""
    return _rendered(dataclasses.asdict(manifest))


def read_manifest(directory: Path) -> IndexManifest:
    """Read and check the manifest of a version directory.

    Raises:
        CorruptionError: if it is missing, not JSON, altered, or its counts do not add up.
        CompatibilityError: if a newer fgclep wrote it.
    """
    path = directory / MANIFEST
    try:
        return parse_manifest(path.read_bytes(), path)
    except FileNotFoundError as error:
        raise CorruptionError(f"{directory} has no {MANIFEST}, so it is not a finished index.", _REBUILD) from error
    except OSError as error:
        raise CorruptionError(f"{path} cannot be read: {error}", _REBUILD) from error


def parse_manifest(data: bytes, path: Path) -> IndexManifest:
    """Parse and check a manifest's bytes; `path` is for messages, errors are those of `read_manifest`."""
    try:
        text = data.decode()
        content = json.loads(text)
    except ValueError as error:
        raise CorruptionError(f"{path} cannot be read: {error}", _REBUILD) from error
    if not isinstance(content, dict) or "schema" not in content:
        raise CorruptionError(f"{path} is not an index manifest.", _REBUILD)
    if content["schema"] not in _READABLE:
        raise CompatibilityError(
            f"{path} has schema {content['schema']}; this fgclep reads schemas up to {SCHEMA}.",
            "Install the fgclep that wrote it, or build the index again with `fgclep index build`.",
        )
    digest = content.pop("sha256", None)
    # Compared as text: JSON would take a damaged space or an odd spelling of a number for the same content.
    if digest != _digest(content) or text != _rendered(content):
        raise CorruptionError(f"{path} was altered after it was written: its own checksum does not match.", _REBUILD)
    manifest = _from_content(content, path)
    if problem := manifest.counts.problem():
        raise CorruptionError(f"{path}: the counts do not add up: {problem}.", _REBUILD)
    return manifest


def _from_content(content: dict[str, Any], path: Path) -> IndexManifest:
    try:
        return IndexManifest(
            **{
                **content,
                "model": ModelRef(**content["model"]),
                "dataset": DatasetRef(**content["dataset"]),
                "counts": Counts(**content["counts"]),
                "files": {name: FileRef(**entry) for name, entry in content["files"].items()},
                "additions": tuple(
                    Addition(**{**entry, "dataset": DatasetRef(**entry["dataset"])})
                    for entry in content.get("additions", ())
                ),
            }
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptionError(f"{path} lacks a field or has an unknown one: {error}", _REBUILD) from error


def _rendered(content: Mapping[str, Any]) -> str:
    return json.dumps({**content, "sha256": _digest(content)}, indent=1, ensure_ascii=False) + "\n"


def _digest(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
