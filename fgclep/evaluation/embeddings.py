"""Vectors of many records by one encoder, computed once and kept on disk."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fgclep import __version__
from fgclep.datasets import Dataset
from fgclep.errors import DataError
from fgclep.evaluation.embedding_cache import EmbeddingCache, Entry, record_key
from fgclep.evaluation.encoders import Encoder, Prepare, refuse_text
from fgclep.pool import map_in_order
from fgclep.record import RecordInfo, RecordReject

Kind = Literal["joint", "features"]

_CHUNK = 64
_KEPT_TOGETHER = 32 * _CHUNK  # records in a file of the cache: at most so many are computed again after a kill


@dataclass(frozen=True)
class Embedded:
    """Vectors of those records that could be read.

    Attributes:
        vectors: float32, shape (m, D).
        kept: intp, shape (m,): the position of each vector's record among the infos asked for, ascending.
        rejects: reason code -> how many records could not be used for it.
    """

    vectors: NDArray[np.float32]
    kept: NDArray[np.intp]
    rejects: dict[str, int]


def embed(
    encoder: Encoder,
    dataset: Dataset,
    infos: Sequence[RecordInfo],
    kind: Kind,
    cache: Path,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Embedded:
    """Encode records, or take what was kept of them by earlier calls, whichever records these were about.

    What is kept depends on the encoder's fingerprint, the kind, the data set's root and rate and fgclep's version, and
    for each record on its id, path and `Dataset.stamp`: a record whose files changed is encoded again.

    Args:
        encoder: the model.
        dataset: reads the records.
        infos: n records of `dataset`.
        kind: `joint` for the space of texts, `features` for probes.
        cache: folder of kept vectors; made if need be.
        workers: processes that read; 1 reads in this one.
        progress: called with records done and n after each chunk; not called when all were kept.

    Raises:
        DataError: if not a single record could be used.
        FgclepError: if a process that reads dies.
        UsageError: if `joint` is asked of a model without a text tower.
    """
    if kind == "joint" and not encoder.joint:
        refuse_text(encoder.name)
    facts = {"encoder": encoder.fingerprint, "kind": kind, "fgclep": __version__}
    kept = EmbeddingCache(cache, {**facts, "root": str(dataset.root.resolve()), "fs_hz": dataset.fs_hz})
    keys = [record_key(info.record_id, info.path, dataset.stamp(info)) for info in infos]
    known = kept.read()
    lacking = {key: info for key, info in zip(keys, infos, strict=True) if key not in known}
    encode = encoder.encode if kind == "joint" else encoder.features
    tell = None if progress is None else lambda done: progress(len(infos) - len(lacking) + done, len(infos))
    known |= _encode_all(encode, _Reader(dataset, encoder.prepare), lacking, kept, workers, tell)
    entries = [known[key] for key in keys]
    vectors = [entry for entry in entries if not isinstance(entry, str)]
    rejects = dict(Counter(entry for entry in entries if isinstance(entry, str)))
    if not vectors:
        why = ", ".join(f"{reason} ({count})" for reason, count in rejects.items()) or "none was given"
        raise DataError(
            f"{dataset.root}: none of {len(infos)} records could be used: {why}.", f"fgclep data scan {dataset.root}"
        )
    usable = [row for row, entry in enumerate(entries) if not isinstance(entry, str)]
    return Embedded(np.stack(vectors), np.array(usable, np.intp), rejects)


def _encode_all(
    encode: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    reader: "_Reader",
    infos: dict[str, RecordInfo],
    kept: EmbeddingCache,
    workers: int,
    tell: Callable[[int], None] | None,
) -> dict[str, Entry]:
    """Encode records and keep them, some at a time."""
    done: dict[str, Entry] = {}
    waiting: dict[str, Entry] = {}
    keys = list(infos)
    chunks = (keys[start : start + _CHUNK] for start in range(0, len(keys), _CHUNK))
    asked = ([(key, infos[key]) for key in chunk] for chunk in chunks)
    for chunk, prepared in map_in_order(reader, asked, workers if workers > 1 else 0):
        good = [one for one in prepared if not isinstance(one, str)]
        vectors = iter(encode(np.stack(good)).astype(np.float32) if good else ())
        waiting |= {
            key: one if isinstance(one, str) else next(vectors) for (key, _), one in zip(chunk, prepared, strict=True)
        }
        done |= waiting
        if len(waiting) >= _KEPT_TOGETHER or len(done) == len(keys):
            kept.add(list(waiting), list(waiting.values()))
            waiting = {}
        if tell is not None:
            tell(len(done))
    return done


class _Reader:
    """Reads and prepares a chunk of records in a worker process; a record that cannot be used becomes its reason."""

    def __init__(self, dataset: Dataset, prepare: Prepare) -> None:
        self.dataset = dataset
        self.prepare = prepare

    def __call__(self, chunk: Sequence[tuple[str, RecordInfo]]) -> list[NDArray[np.float32] | str]:
        return [self._one(info) for _, info in chunk]

    def _one(self, info: RecordInfo) -> NDArray[np.float32] | str:
        try:
            record = self.dataset.read(info)
        except RecordReject as reject:
            return reject.reason
        prepared = self.prepare(record.waveform, record.fs_hz)
        return prepared if np.isfinite(prepared).all() else "nan"
