"""Read records and make them ready for a model."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgclep.preprocessing import EcgProcessor, StoredBatch, StoredStack
from fgclep.record import EcgRecord, RecordInfo, RecordReject
from fgclep.signal import StoredEcg
from indexer.rows import record_row
from indexer.sources import Sources
from indexer.staging import as_lines

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chunk:
    """A stretch of one shard, read and encoded together: `items` are (key, record)."""

    shard: int
    items: Sequence[tuple[int, RecordInfo]]
    last: bool


@dataclass(frozen=True)
class PreparedChunk:
    """A chunk after reading: n records and the rejects.

    Attributes:
        as_stored: bool, shape (n,): which records are in `stored`; the others are in `waveforms`, both in order.
        stored: records for the model's device to prepare; None: none is.
        waveforms: model inputs, float32 (others, 12, samples).
        keys: int64, shape (n,).
        records: their rows, as of `indexer.staging.as_lines`.
    """

    as_stored: NDArray[np.bool_]
    stored: StoredBatch | None
    waveforms: NDArray[np.float32]
    keys: NDArray[np.int64]
    records: bytes
    rejects: list[dict[str, str]]


@dataclass(frozen=True)
class Reader:
    """Reads and prepares records; travels to every worker process once.

    Attributes:
        as_stored: leave preparing to the model's device where most records of a chunk are stored alike.
    """

    sources: Sources
    processor: EcgProcessor
    as_stored: bool = False

    def __call__(self, chunk: Chunk) -> PreparedChunk:
        """Read a chunk."""
        return self.prepare(chunk.items, StoredStack(self.processor, len(chunk.items)))

    def prepare(self, items: Sequence[tuple[int, RecordInfo]], stack: StoredStack) -> PreparedChunk:
        """Read a chunk of records; what cannot be used becomes a reject with its reason.

        Args:
            items: (key, record).
            stack: for so many records; its memory holds the result.
        """
        stack.clear()
        waveforms: list[NDArray[np.float32]] = []
        as_stored: list[bool] = []
        records: list[dict[str, Any]] = []
        rejects: list[dict[str, str]] = []
        for key, info in items:
            try:
                record = self._read(key, info)
                stacked = self.as_stored and stack.add(record)
                if not stacked:
                    waveforms.append(self._prepare(record))
            except RecordReject as reject:
                rejects.append(_reject_row(info, reject))
                continue
            as_stored.append(stacked)
            records.append(_row(key, record))
        others = np.stack(waveforms) if waveforms else np.empty((0, 12, 0), np.float32)
        keys = np.array([row["key"] for row in records], np.int64)
        lines = as_lines("record", records)
        return PreparedChunk(np.array(as_stored, np.bool_), stack.batch(), others, keys, lines, rejects)

    def _read(self, key: int, info: RecordInfo) -> EcgRecord:
        try:
            return self.sources.read(key, info)
        except RecordReject:
            raise
        except Exception as error:
            raise _unforeseen(info, error) from error

    def _prepare(self, record: EcgRecord) -> NDArray[np.float32]:
        try:
            prepared = self.processor.prepare(record.waveform, record.fs_hz)
        except Exception as error:
            raise _unforeseen(record.info, error) from error
        if not np.isfinite(prepared).all():
            raise RecordReject(record.info.record_id, "nan", "the prepared waveform holds NaN or infinity")
        return prepared


def _unforeseen(info: RecordInfo, error: Exception) -> RecordReject:
    """Make a reject of any error.

    One file of a kind nobody foresaw must not stop a long build; the reject list and its limit tell of it.
    """
    logger.debug("%s: reading failed", info.record_id, exc_info=True)
    return RecordReject(info.record_id, "unreadable", f"{type(error).__name__}: {error}")


def _row(key: int, record: EcgRecord) -> dict[str, Any]:
    samples = record.n_samples if isinstance(record, StoredEcg) else record.waveform.shape[1]
    return record_row(key, record.info, fs_hz=record.fs_hz, duration_s=samples / record.fs_hz, flags=record.flags)


def _reject_row(info: RecordInfo, reject: RecordReject) -> dict[str, str]:
    return {"record_id": info.record_id, "path": info.path, "reason": reject.reason, "detail": reject.detail}
