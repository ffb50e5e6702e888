"""What evaluations hand on: scores with their labels, values with intervals, and JSON files that say where from."""

import json
import math
import os
import platform
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from fgclep import __version__
from fgclep.errors import CorruptionError, NotSetUpError

SCHEMA = 1
"""Version of the layout of result files."""

_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError),
    *(KeyError, ValueError, TypeError, AttributeError, RuntimeError),  # what readers make of broken zip fields
)
_PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "transformers")


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval; `low` and `high` are NaN where none was computed."""

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Scored:
    """What a model said about the records of a benchmark beside what is true of them.

    Attributes:
        labels: bool, shape (n, C).
        scores: float32, shape (n, C), higher means more likely.
        classes: names of the C columns.
        record_ids: of the n rows.
        subject_ids: of the n rows; rows of one person are resampled together.

    Raises:
        ValueError: if the shapes do not fit each other.
    """

    labels: NDArray[np.bool_]
    scores: NDArray[np.float32]
    classes: tuple[str, ...]
    record_ids: tuple[str, ...]
    subject_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        expected = (len(self.record_ids), len(self.classes))
        if self.labels.shape != expected or self.scores.shape != expected or len(self.subject_ids) != expected[0]:
            raise ValueError(
                f"labels {self.labels.shape}, scores {self.scores.shape} and {len(self.subject_ids)} subjects; "
                f"expected {expected[0]} records and {expected[1]} classes"
            )

    def save(self, path: Path) -> None:
        """Write everything to one .npz file, which is either whole or not there."""

        def write(file: BinaryIO) -> None:
            np.savez_compressed(
                file,
                labels=self.labels.astype(bool),
                scores=self.scores.astype(np.float32),
                classes=np.array(self.classes, dtype=np.str_),
                record_ids=np.array(self.record_ids, dtype=np.str_),
                subject_ids=np.array(self.subject_ids, dtype=np.str_),
            )

        _write_whole(path, write)

    @classmethod
    def load(cls, path: Path) -> "Scored":
        """Read what `save` wrote.

        Raises:
            NotSetUpError: if there is no such file.
            CorruptionError: if it is damaged or no such file.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                names = ("classes", "record_ids", "subject_ids")
                classes, records, subjects = (tuple(str(name) for name in file[key]) for key in names)
                return cls(file["labels"].astype(bool), file["scores"].astype(np.float32), classes, records, subjects)
        except FileNotFoundError:
            raise NotSetUpError(f"{path} does not exist; expected the .npz of an evaluation.") from None
        except _DAMAGE as error:
            raise CorruptionError(
                f"{path} is not the .npz of an evaluation, or is damaged: {error}.", "run the evaluation again."
            ) from error


class _Listed(Protocol):
    """Records of a split, as `BenchmarkSplit` and `SearchSet` know them."""

    @property
    def split(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def listed(self) -> int: ...
    @property
    def missing(self) -> int: ...
    @property
    def unlabelled(self) -> int: ...


class _Named(Protocol):
    """A model, as `Encoder` and `Retriever` know it."""

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What every result says of the model and of the records that it was measured on.

    Attributes:
        split: of the records.
        source: where labels and split come from.
        encoder, fingerprint: the model.
        records: used; listed = missing + unlabelled + rejected + records.
        subjects: whose they are.
        rejected: reason code -> records that could not be used for it.
    """

    split: str
    source: str
    encoder: str
    fingerprint: str
    records: int
    subjects: int
    listed: int
    missing: int
    unlabelled: int
    rejected: dict[str, int]


def measured(of: _Listed, model: _Named, subject_ids: Sequence[str], rejected: dict[str, int]) -> dict[str, Any]:
    """Return the fields of `Measured`.

    Args:
        of: the records before some were rejected.
        model: what was measured.
        subject_ids: of the records used.
        rejected: see `Measured`.
    """
    return {
        "split": of.split,
        "source": of.source,
        "encoder": model.name,
        "fingerprint": model.fingerprint,
        "records": len(subject_ids),
        "subjects": len(set(subject_ids)),
        "listed": of.listed,
        "missing": of.missing,
        "unlabelled": of.unlabelled,
        "rejected": rejected,
    }


def provenance(command: Sequence[str], **facts: object) -> dict[str, Any]:
    """Return what a result file opens with: its layout, who made it when, with which versions and which command.

    Args:
        command: the words of the command line.
        facts: more to put down, such as the seed or the model's fingerprint.
    """
    return {
        "schema": SCHEMA,
        "fgclep": __version__,
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(command),
        **facts,
    }


def plain(value: object) -> Any:
    """Return a value made of JSON's types: dataclasses as objects, NaN and infinities as null.

    Raises:
        TypeError: if something in it has no such form.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def write_json(path: Path, value: object) -> None:
    """Write a value (see `plain`) as readable UTF-8 JSON to a file that is either whole or as it was."""
    text = json.dumps(plain(value), ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    _write_whole(path, lambda file: file.write(text.encode()))


def _write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        Path(part).chmod(0o644)  # mkstemp's files are for their owner alone
        os.replace(part, path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(part).unlink()
        raise


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
