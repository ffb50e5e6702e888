"""Vectors of many records by one encoder, computed once and kept on disk."""

import hashlib
import json
import os
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from fgclep.datasets import Dataset
from fgclep.errors import DataError, FgclepError
from fgclep.evaluation.encoders import Encoder, Prepare, refuse_text
from fgclep.record import RecordInfo, RecordReject

Kind = Literal["joint", "features"]

_CACHE_VERSION = 1
_CHUNK = 64
_CHUNKS_AHEAD = 2  # per worker, so that memory does not grow with the number of records
_DAMAGE = (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error)


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
    """Encode records, or take what an earlier run kept.

    The cache is keyed by the encoder's fingerprint, the kind, the data set's root and rate, and the records' ids and
    paths; that samples changed under the same path goes unnoticed. A damaged cache file is made again.

    Args:
        encoder: the model.
        dataset: reads the records.
        infos: n records of `dataset`.
        kind: `joint` for the space of texts, `features` for probes.
        cache: folder of cached vectors; made if need be.
        workers: processes that read; 1 reads in this one.
        progress: called with records done and n after each chunk; not called when the cache serves.

    Raises:
        DataError: if not a single record could be used.
        FgclepError: if a process that reads dies.
        UsageError: if `joint` is asked of a model without a text tower.
    """
    if kind == "joint" and not encoder.joint:
        refuse_text(encoder.name)
    key = _cache_key(encoder, dataset, infos, kind)
    file = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
    cached = _read_cache(file, key)
    if cached is not None:
        return cached
    embedded = _encode_all(encoder, dataset, infos, kind, workers, progress)
    _write_cache(file, key, embedded)
    return embedded


def _encode_all(
    encoder: Encoder,
    dataset: Dataset,
    infos: Sequence[RecordInfo],
    kind: Kind,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> Embedded:
    encode = encoder.encode if kind == "joint" else encoder.features
    vectors: list[NDArray[np.float32]] = []
    kept: list[int] = []
    rejects: Counter[str] = Counter()
    done = 0
    for results in _read_all(_Reader(dataset, encoder.prepare), infos, workers):
        good = [(done + i, result) for i, result in enumerate(results) if not isinstance(result, str)]
        rejects.update(result for result in results if isinstance(result, str))
        if good:
            vectors.append(encode(np.stack([prepared for _, prepared in good])))
            kept += [position for position, _ in good]
        done += len(results)
        if progress is not None:
            progress(done, len(infos))
    if not vectors:
        why = ", ".join(f"{reason} ({count})" for reason, count in rejects.items()) or "none was given"
        raise DataError(
            f"{dataset.root}: none of {len(infos)} records could be used: {why}.", f"fgclep data scan {dataset.root}"
        )
    return Embedded(np.concatenate(vectors).astype(np.float32), np.array(kept, np.intp), dict(rejects))


class _Reader:
    """Reads and prepares a chunk of records in a worker process; a record that cannot be used becomes its reason."""

    def __init__(self, dataset: Dataset, prepare: Prepare) -> None:
        self.dataset = dataset
        self.prepare = prepare

    def __call__(self, infos: Sequence[RecordInfo]) -> list[NDArray[np.float32] | str]:
        return [self._one(info) for info in infos]

    def _one(self, info: RecordInfo) -> NDArray[np.float32] | str:
        try:
            record = self.dataset.read(info)
        except RecordReject as reject:
            return reject.reason
        prepared = self.prepare(record.waveform, record.fs_hz)
        return prepared if np.isfinite(prepared).all() else "nan"


def _read_all(reader: _Reader, infos: Sequence[RecordInfo], workers: int) -> Iterator[list[NDArray[np.float32] | str]]:
    """Yield chunks in order."""
    chunks = [infos[start : start + _CHUNK] for start in range(0, len(infos), _CHUNK)]
    if workers <= 1:
        yield from map(reader, chunks)
        return
    # forkserver: this process holds a model's threads, and forking a process that has threads can deadlock.
    waiting: deque[Future[list[NDArray[np.float32] | str]]] = deque()
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("forkserver")) as pool:
            for chunk in chunks:
                waiting.append(pool.submit(reader, chunk))
                if len(waiting) > _CHUNKS_AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise FgclepError(
            "A process that reads records died; most often the machine ran out of memory.",
            "Repeat the command with fewer --workers.",
        ) from error


def _cache_key(encoder: Encoder, dataset: Dataset, infos: Sequence[RecordInfo], kind: Kind) -> str:
    ids = hashlib.sha256("\n".join(f"{info.record_id}\t{info.path}" for info in infos).encode()).hexdigest()
    key = {
        "version": _CACHE_VERSION,
        "encoder": encoder.fingerprint,
        "kind": kind,
        "root": str(dataset.root.resolve()),
        "fs_hz": dataset.fs_hz,
        "records": len(infos),
        "ids": ids,
    }
    return json.dumps(key, sort_keys=True)


def _read_cache(file: Path, key: str) -> Embedded | None:
    """Return what the file holds; None if it does not exist, is damaged or belongs to another key."""
    try:
        with np.load(file, allow_pickle=False) as stored:  # the zip's checksums find damage
            if str(stored["key"]) != key:
                return None
            return Embedded(stored["vectors"], stored["kept"], json.loads(str(stored["rejects"])))
    except _DAMAGE:
        return None


def _write_cache(file: Path, key: str, embedded: Embedded) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            np.savez(
                stream,
                key=np.array(key),
                vectors=embedded.vectors,
                kept=embedded.kept,
                rejects=np.array(json.dumps(embedded.rejects)),
            )
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)
