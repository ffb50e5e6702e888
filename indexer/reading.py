"""Read records in worker processes, in order, with a bounded number of them in flight."""

import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import FgclepError
from fgclep.preprocessing import EcgProcessor
from fgclep.record import EcgRecord, RecordInfo, RecordReject
from indexer.rows import record_row
from indexer.sources import Sources

CHUNKS_PER_WORKER = 2

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chunk:
    """A stretch of one shard, read and encoded together: `items` are (key, record)."""

    shard: int
    items: Sequence[tuple[int, RecordInfo]]
    last: bool


@dataclass(frozen=True)
class PreparedChunk:
    """A chunk after reading: model inputs float32 (n, 12, samples), n record rows, and the rejects."""

    waveforms: NDArray[np.float32]
    records: list[dict[str, Any]]
    rejects: list[dict[str, str]]


@dataclass(frozen=True)
class Reader:
    """Reads and prepares records; travels to every worker process once."""

    sources: Sources
    processor: EcgProcessor

    def prepare(self, items: Sequence[tuple[int, RecordInfo]]) -> PreparedChunk:
        """Read a chunk of records; what cannot be used becomes a reject with its reason."""
        waveforms, records, rejects = [], [], []
        for key, info in items:
            try:
                record, prepared = self._read(key, info)
            except RecordReject as reject:
                row = {"record_id": info.record_id, "path": info.path}
                rejects.append({**row, "reason": reject.reason, "detail": reject.detail})
                continue
            duration_s = record.waveform.shape[1] / record.fs_hz
            fields = record_row(key, record.info, fs_hz=record.fs_hz, duration_s=duration_s, flags=record.flags)
            waveforms.append(prepared)
            records.append(fields)
        stacked = np.stack(waveforms) if waveforms else np.empty((0, 12, 0), np.float32)
        return PreparedChunk(stacked, records, rejects)

    def _read(self, key: int, info: RecordInfo) -> tuple[EcgRecord, NDArray[np.float32]]:
        try:
            record = self.sources.read(key, info)
            prepared = self.processor.prepare(record.waveform, record.fs_hz)
        except RecordReject:
            raise
        except Exception as error:
            # One file of a kind nobody foresaw must not stop a long build; the reject list and its limit tell of it.
            logger.debug("%s: reading failed", info.record_id, exc_info=True)
            raise RecordReject(info.record_id, "unreadable", f"{type(error).__name__}: {error}") from error
        if not np.isfinite(prepared).all():
            raise RecordReject(info.record_id, "nan", "the prepared waveform holds NaN or infinity")
        return record, prepared


def iter_prepared(
    reader: Reader, chunks: Iterable[Chunk], workers: int
) -> Generator[tuple[Chunk, PreparedChunk], None, None]:
    """Prepare chunks in worker processes and yield them in order.

    At most a few chunks per worker are read ahead, so memory does not depend on how many there are.

    Args:
        reader: the data and preprocessing.
        chunks: what to read; consumed as needed.
        workers: processes; 0 reads in this one.

    Raises:
        FgclepError: if a worker process dies.
    """
    if workers == 0:
        for chunk in chunks:
            yield chunk, reader.prepare(chunk.items)
        return
    # spawn: the parent holds a model's threads, and forking a process that has threads can deadlock.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(reader,))
    waiting: deque[tuple[Chunk, Future[PreparedChunk]]] = deque()
    try:
        for chunk in chunks:
            with _interrupts_held_back():  # submitting may start a worker
                waiting.append((chunk, pool.submit(_prepare_in_worker, chunk.items)))
            if len(waiting) > CHUNKS_PER_WORKER * workers:
                yield _first(waiting)
        while waiting:
            yield _first(waiting)
    except BrokenProcessPool as error:
        raise FgclepError(
            "A process that reads records died; most often the machine ran out of memory.",
            "Repeat the command with fewer --workers; finished shards are kept.",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let a process that is started meanwhile inherit deaf ears: Ctrl-C would kill it before it could ignore it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _first(waiting: deque[tuple[Chunk, Future[PreparedChunk]]]) -> tuple[Chunk, PreparedChunk]:
    chunk, future = waiting.popleft()
    return chunk, future.result()


_worker_reader: Reader | None = (
    None  # set once per worker process, so that the sources are not pickled with every chunk
)


def _start_worker(reader: Reader) -> None:
    global _worker_reader
    _worker_reader = reader
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """End this worker when the parent is killed: its queue would never tell."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _prepare_in_worker(items: Sequence[tuple[int, RecordInfo]]) -> PreparedChunk:
    assert _worker_reader is not None
    return _worker_reader.prepare(items)
