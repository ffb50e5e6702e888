"""Prepared waveforms of a data set: mapped from a pack, or read once and kept as int16 on disk."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgclep.datasets import Dataset
from fgclep.datasets.pack import Pack
from fgclep.datasets.pack_format import PackedRow
from fgclep.durable import write_durably
from fgclep.errors import FgclepError
from fgclep.pool import map_in_order
from fgclep.preprocessing import CLIP_MV, EcgProcessor
from fgclep.record import RecordInfo, RecordReject

UNITS_PER_MV = 2000
"""int16 units: 0.5 uV steps, +-16 mV, wider than what `EcgProcessor.prepare` lets through."""

_CHUNK = 64

Rows = NDArray[np.intp]


class Waveforms:
    """Prepared waveforms of n records, int16 with `UNITS_PER_MV` per mV, read from where they are when indexed.

    Args:
        row: gives the waveform of a source row, int16 (12, samples).
        n_samples: per lead.
        rows: n source rows.
    """

    def __init__(self, row: Callable[[int], NDArray[np.int16]], n_samples: int, rows: Rows) -> None:
        self._row = row
        self._rows = rows
        self.shape = (len(rows), 12, n_samples)

    @classmethod
    def of_array(cls, array: NDArray[np.int16]) -> "Waveforms":
        """Wrap an array or memory-mapped file, int16 (n, 12, samples)."""
        return cls(array.__getitem__, array.shape[2], np.arange(len(array)))

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[NDArray[np.int16]]:
        return (self._row(int(row)) for row in self._rows)

    def __getitem__(self, key: int | slice | Rows) -> NDArray[np.int16]:
        """Return one waveform (12, samples), or those of a slice or array of row numbers, (k, 12, samples)."""
        rows = self._rows[key]
        if rows.ndim == 0:
            return self._row(int(rows))
        out = np.empty((len(rows), *self.shape[1:]), np.int16)
        for place, row in enumerate(rows):
            out[place] = self._row(int(row))
        return out

    def select(self, rows: Rows) -> "Waveforms":
        """Return some of the records, without reading anything."""
        return Waveforms(self._row, self.shape[2], self._rows[rows])


@dataclass(frozen=True)
class WaveformSet:
    """Records with their prepared waveforms, in the same order."""

    infos: list[RecordInfo]
    waveforms: Waveforms

    def select(self, rows: Rows) -> "WaveformSet":
        """Return some of the records, without reading anything."""
        return WaveformSet([self.infos[row] for row in rows], self.waveforms.select(rows))


def to_units(prepared: NDArray[np.float32]) -> NDArray[np.int16]:
    """Convert mV to int16 units."""
    return np.round(prepared * UNITS_PER_MV).astype(np.int16)


def to_mv(units: NDArray[np.int16]) -> NDArray[np.float32]:
    """Convert int16 units to mV."""
    return units.astype(np.float32) / np.float32(UNITS_PER_MV)


def read_waveforms(
    dataset: Dataset, processor: EcgProcessor, cache: Path, workers: int, report: Callable[[str], None]
) -> WaveformSet:
    """Prepare the waveforms of a whole data set.

    A pack whose records a model takes as they are (its rate, no filter, no centring) is read where it is, record by
    record, when a batch asks for it. Anything else is prepared once and kept in `cache`, keyed by the data set's root
    and rate, the records' ids and stamps (`Dataset.stamp`), and the processor. Rejected records are told and left out.

    Args:
        dataset: what to read.
        processor: the model's input.
        cache: folder of the prepared waveforms, made if need be.
        workers: processes that read; 1 reads in this one.
        report: told one line per rejected record.

    Raises:
        FgclepError: if the cache cannot be written.
    """
    if isinstance(dataset, Pack) and (mapped := _map_pack(dataset, processor, report)) is not None:
        return mapped
    infos = list(dataset.iter_infos())
    known = "\n".join(f"{info.record_id} {dataset.stamp(info)}" for info in infos)
    records = hashlib.sha256(known.encode()).hexdigest()[:16]
    key = {"root": str(dataset.root), "fs_hz": dataset.fs_hz, "records": records, "processor": repr(processor)}
    stamp = cache / "waveforms.json"
    if not stamp.is_file() or json.loads(stamp.read_text(encoding="utf-8"))["key"] != key:
        try:
            _fill_cache(dataset, processor, infos, cache, workers, report, key)
        except OSError as error:
            raise FgclepError(
                f"{cache}, which keeps the prepared waveforms, could not be written: {error.strerror}.",
                "Free some space or choose another --out, and repeat the command.",
            ) from error
    rows = json.loads(stamp.read_text(encoding="utf-8"))["rows"]
    shape = (len(rows), 12, processor.n_samples)
    array = np.memmap(cache / "waveforms.i16", "<i2", "r", shape=shape) if rows else np.empty(shape, np.int16)
    return WaveformSet([infos[row] for row in rows], Waveforms.of_array(array))


def _map_pack(pack: Pack, processor: EcgProcessor, report: Callable[[str], None]) -> WaveformSet | None:
    """Return a pack's records where preparation would only cut, pad and clip them; None where it does more."""
    if processor.lowpass_hz is not None or processor.center != "none":
        return None
    infos: list[RecordInfo] = []
    rows: list[PackedRow] = []
    for info, row in pack.iter_rows():
        if row is None:
            _tell_reject(pack, info, report)
        elif row.fs_hz != processor.fs_hz:
            return None
        else:
            infos.append(info)
            rows.append(row)

    def waveform(number: int) -> NDArray[np.int16]:
        row = rows[number]
        limit = np.int16(min(CLIP_MV * row.units_per_mv, np.iinfo(np.int16).max))
        units = np.clip(pack.units(row)[:, : processor.n_samples], -limit, limit)
        factor = UNITS_PER_MV / row.units_per_mv
        out = np.zeros((12, processor.n_samples), np.int16)
        out[:, : units.shape[1]] = units * np.int16(factor) if factor.is_integer() else np.rint(units * factor)
        return out

    return WaveformSet(infos, Waveforms(waveform, processor.n_samples, np.arange(len(rows))))


def _tell_reject(dataset: Dataset, info: RecordInfo, report: Callable[[str], None]) -> None:
    try:
        dataset.read(info)
    except RecordReject as reject:
        report(f"rejected {reject.record_id}: {reject.reason}")


class _Reader:
    """Reads and prepares a chunk of records in a worker process."""

    def __init__(self, dataset: Dataset, processor: EcgProcessor) -> None:
        self.dataset = dataset
        self.processor = processor

    def __call__(self, infos: list[RecordInfo]) -> list[NDArray[np.int16] | RecordReject]:
        return [self._one(info) for info in infos]

    def _one(self, info: RecordInfo) -> NDArray[np.int16] | RecordReject:
        try:
            record = self.dataset.read(info)
        except RecordReject as reject:
            return reject
        return to_units(self.processor.prepare(record.waveform, record.fs_hz))


def _fill_cache(
    dataset: Dataset,
    processor: EcgProcessor,
    infos: list[RecordInfo],
    cache: Path,
    workers: int,
    report: Callable[[str], None],
    key: Mapping[str, object],
) -> None:
    """Write waveforms.i16 and, when it is whole, waveforms.json: the key and the positions of the usable records."""
    cache.mkdir(parents=True, exist_ok=True)
    stamp = cache / "waveforms.json"
    stamp.unlink(missing_ok=True)  # from here on the stamp would describe other waveforms
    chunks = (infos[start : start + _CHUNK] for start in range(0, len(infos), _CHUNK))
    rows: list[int] = []
    read = 0
    part = cache / "waveforms.part"
    with part.open("wb") as file:
        for _, results in map_in_order(_Reader(dataset, processor), chunks, 0 if workers <= 1 else workers):
            for result in results:
                if isinstance(result, RecordReject):
                    report(f"rejected {result.record_id}: {result.reason}")
                else:
                    file.write(result.astype("<i2", copy=False).tobytes())
                    rows.append(read)
                read += 1
        file.flush()
        os.fsync(file.fileno())  # the stamp must not outlive what it describes
    os.replace(part, cache / "waveforms.i16")
    write_durably(stamp, json.dumps({"key": dict(key), "rows": rows}).encode())


def synthetic_waveforms(seed: int, n: int, processor: EcgProcessor) -> WaveformSet:
    """Generate synthetic records at the model's rate."""
    from fgclep.datasets.synthetic import generate

    infos: list[RecordInfo] = []
    waveforms = np.empty((n, 12, processor.n_samples), np.int16)
    for row, synthetic in enumerate(generate(seed, n, fs_hz=processor.fs_hz)):
        infos.append(synthetic.record.info)
        waveforms[row] = to_units(processor.prepare(synthetic.record.waveform, synthetic.record.fs_hz))
    return WaveformSet(infos, Waveforms.of_array(waveforms))
