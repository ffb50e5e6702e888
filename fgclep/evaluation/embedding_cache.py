"""Vectors kept on disk record by record, so that sets of records that overlap share them."""

import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

Entry = NDArray[np.float32] | str
"""What is kept of a record: its vector, float32 (D,), or the reason code why it cannot be used."""

_DAMAGE = (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error)


class EmbeddingCache:
    """The vectors of one encoder over one data set, in files that are each written once, in one step.

    Two processes that fill it at once do no harm: at worst both compute the same vectors. A damaged file counts as
    absent and is removed.

    Args:
        folder: of all caches.
        facts: what all vectors depend on, as JSON values; each set of facts has a folder of its own.
    """

    def __init__(self, folder: Path, facts: dict[str, object]) -> None:
        self._folder = folder / _digest(json.dumps(facts, sort_keys=True))

    def read(self) -> dict[str, Entry]:
        """Return everything kept, by the records' keys."""
        entries: dict[str, Entry] = {}
        for file in sorted(self._folder.glob("*.npz")):
            try:
                with np.load(file, allow_pickle=False) as stored:  # the zip's checksums find damage
                    keys, reasons, vectors = stored["keys"].tolist(), stored["reasons"].tolist(), stored["vectors"]
                rows = iter(vectors)
                entries |= {key: reason or next(rows) for key, reason in zip(keys, reasons, strict=True)}
            except _DAMAGE:
                file.unlink(missing_ok=True)
        return entries

    def add(self, keys: Sequence[str], entries: Sequence[Entry]) -> None:
        """Keep the entries of some records in a new file."""
        vectors = [entry for entry in entries if not isinstance(entry, str)]
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / f"{_digest(' '.join(keys))}.npz"
        part = file.with_suffix(f".{os.getpid()}.part")
        try:
            with part.open("wb") as stream:
                np.savez(
                    stream,
                    keys=np.array(keys, np.str_),
                    reasons=np.array([entry if isinstance(entry, str) else "" for entry in entries], np.str_),
                    vectors=np.array(vectors, np.float32),
                )
            os.replace(part, file)
        finally:
            part.unlink(missing_ok=True)


def record_key(*facts: object) -> str:
    """Return 32 hex digits that change with any of the facts (JSON values) about a record."""
    return _digest(json.dumps(facts))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
