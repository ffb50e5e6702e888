"""Prepared waveforms of a data set, read once and kept as int16 on disk."""

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgclep.datasets import Dataset
from fgclep.preprocessing import EcgProcessor
from fgclep.record import RecordInfo, RecordReject

UNITS_PER_MV = 2000
"""int16 units: 0.5 uV steps, +-16 mV, wider than what `EcgProcessor.prepare` lets through."""


@dataclass(frozen=True)
class WaveformSet:
    """Records with their prepared waveforms.

    Attributes:
        infos: n records.
        waveforms: int16, shape (n, 12, n_samples), `UNITS_PER_MV` per mV.
    """

    infos: list[RecordInfo]
    waveforms: NDArray[np.int16]


def to_units(prepared: NDArray[np.float32]) -> NDArray[np.int16]:
    """Convert mV to int16 units."""
    return np.round(prepared * UNITS_PER_MV).astype(np.int16)


def to_mv(units: NDArray[np.int16]) -> NDArray[np.float32]:
    """Convert int16 units to mV."""
    return units.astype(np.float32) / np.float32(UNITS_PER_MV)


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


def read_waveforms(
    dataset: Dataset, processor: EcgProcessor, cache: Path, workers: int, report: Callable[[str], None]
) -> WaveformSet:
    """Read a whole data set, or reuse what an earlier run left in `cache`.

    The cache is keyed by the data set's root, rate, size and the processor; rejected records are told and left out.
    """
    infos = list(dataset.iter_infos())
    key = {"root": str(dataset.root), "fs_hz": dataset.fs_hz, "records": len(infos), "processor": repr(processor)}
    stamp = cache / "waveforms.json"
    if stamp.is_file() and (stored := json.loads(stamp.read_text(encoding="utf-8")))["key"] == key:
        return _cached(cache, infos, stored["rows"])
    cache.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)  # from here on the stamp would describe other waveforms
    shape = (len(infos), 12, processor.n_samples)
    array = np.lib.format.open_memmap(cache / "waveforms.part.npy", "w+", np.int16, shape)
    rows: list[int] = []
    for position, result in enumerate(_read_all(_Reader(dataset, processor), infos, workers)):
        if isinstance(result, RecordReject):
            report(f"rejected {result.record_id}: {result.reason}")
        else:
            array[len(rows)] = result
            rows.append(position)
    array.flush()
    os.replace(cache / "waveforms.part.npy", cache / "waveforms.npy")
    part = cache / "waveforms.part.json"
    part.write_text(json.dumps({"key": key, "rows": rows}), encoding="utf-8")
    os.replace(part, stamp)
    return _cached(cache, infos, rows)


def _cached(cache: Path, infos: list[RecordInfo], rows: list[int]) -> WaveformSet:
    waveforms = np.load(cache / "waveforms.npy", mmap_mode="r")
    return WaveformSet([infos[i] for i in rows], waveforms[: len(rows)])


def _read_all(reader: _Reader, infos: list[RecordInfo], workers: int) -> Iterator[NDArray[np.int16] | RecordReject]:
    chunks = [infos[start : start + 64] for start in range(0, len(infos), 64)]
    if workers <= 1:
        for chunk in chunks:
            yield from reader(chunk)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("forkserver")) as pool:
        for results in pool.map(reader, chunks):
            yield from results


def synthetic_waveforms(seed: int, n: int, processor: EcgProcessor) -> WaveformSet:
    """Generate synthetic records at the model's rate."""
    from fgclep.datasets.synthetic import generate

    infos: list[RecordInfo] = []
    waveforms = np.empty((n, 12, processor.n_samples), np.int16)
    for row, synthetic in enumerate(generate(seed, n, fs_hz=processor.fs_hz)):
        infos.append(synthetic.record.info)
        waveforms[row] = to_units(processor.prepare(synthetic.record.waveform, synthetic.record.fs_hz))
    return WaveformSet(infos, waveforms)
