"""Write a pack: one pass over a data set, shard by shard, that goes on where an earlier run was stopped or killed.

Every shard holds a fixed stretch of the source's listing. Its two files are made durable first, its entry last: the
entry is the commit. The manifest is written when all shards are; until then the folder is no pack. Nothing in a pack
depends on when, with how many processes or in how many runs it was made.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from fgclep.datasets.base import Dataset
from fgclep.datasets.pack_files import PackFolder, ShardEntry, ShardWriter
from fgclep.datasets.pack_format import (
    SHARD_RECORDS,
    Units,
    encode_line,
    id_key,
    quantise,
    read_manifest,
    record_line,
    reject_line,
)
from fgclep.datasets.pack_summary import publish
from fgclep.datasets.splits import split_of
from fgclep.errors import DataError, FgclepError, InterruptedWork
from fgclep.pool import map_in_order
from fgclep.record import EcgRecord, RecordInfo, RecordReject
from fgclep.reports import report_fault, report_hash
from fgclep.signal import resample

_CHUNK = 32  # records that travel to a worker process and back together
_SAMPLE = 32  # records read to estimate the size

logger = logging.getLogger(__name__)


@dataclass
class PackProgress:
    """Running counts; `resumed` of the `done` records were packed by an earlier run."""

    total: int
    done: int = 0
    resumed: int = 0
    rejected: int = 0


@dataclass(frozen=True)
class PackPlan:
    """A pack that was checked and can be written.

    Attributes:
        dataset: the source.
        folder: where the pack goes.
        fs_hz: rate to resample to; None keeps every record's own.
    """

    dataset: Dataset
    folder: PackFolder
    fs_hz: int | None
    restart: bool

    @property
    def total(self) -> int:
        """Records that will be read."""
        return self.dataset.listed - len(self.dataset.missing)

    @property
    def continues(self) -> bool:
        """Tell whether an earlier run began this pack."""
        return self.folder.begun and not self.restart


def plan_pack(dataset: Dataset, out: Path, *, fs_hz: int | None = None, restart: bool = False) -> PackPlan:
    """Check what packing needs before it starts; writes nothing.

    Args:
        dataset: the source, opened at the rate to read.
        out: folder of the pack: absent, empty, or an earlier run's.
        fs_hz: rate to resample to; None keeps every record's own.
        restart: discard what an earlier run made.

    Raises:
        UsageError: if `out` holds anything else.
        DataError: if the source has no records, or lists an id twice.
    """
    settings = {"source": str(dataset.root.resolve()), "kind": dataset.kind, "records": dataset.listed}
    plan = PackPlan(
        dataset, PackFolder(out, settings | {"read_at_hz": dataset.fs_hz, "resampled_to_hz": fs_hz}), fs_hz, restart
    )
    plan.folder.check(restart=restart)
    if plan.total == 0:
        raise DataError(
            f"{dataset.root} has no record to pack: {dataset.listed:,} are listed, the files of "
            f"{len(dataset.missing):,} are missing.",
            f"fgclep data scan {dataset.root}",
        )
    _check_unique(dataset)
    return plan


def _check_unique(dataset: Dataset) -> None:
    keys = np.fromiter((id_key(record_id) for record_id, _ in dataset.iter_listed()), np.uint64)
    values, counts = np.unique(keys, return_counts=True)
    if len(values) < len(keys):
        twice = set(values[counts > 1].tolist())
        example = next(record_id for record_id, _ in dataset.iter_listed() if id_key(record_id) in twice)
        raise DataError(
            f"{dataset.root} lists {len(keys) - len(values):,} record ids more than once, such as {example}; "
            "each record needs an id of its own.",
            "Remove the duplicates from its tables.",
        )


def check_space(plan: PackPlan) -> int:
    """Return the estimated size of a pack in bytes, or refuse if what is missing of it has no room.

    Raises:
        FgclepError: naming the space that is needed and the space that is free.
    """
    whole = _estimate_bytes(plan)
    folder = plan.folder.root
    there = sum(path.stat().st_size for path in folder.glob("*.i16")) if folder.is_dir() else 0
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < whole - there:
        raise FgclepError(
            f"Packing {plan.dataset.root} needs about {(whole - there) / 1e6:,.0f} MB in {folder}; "
            f"{free / 1e6:,.0f} MB are free.",
            "Free some space, choose another folder, or a lower rate with --fs.",
        )
    return whole


def _estimate_bytes(plan: PackPlan) -> int:
    """Estimate the size of samples and lines from the first readable records."""
    infos = list(islice(plan.dataset.iter_infos(), _SAMPLE))
    lines, samples = _Packer(plan.dataset, plan.fs_hz)(_Chunk(0, infos, ("", "")))
    text = sum(len(encode_line(line)) for line in lines) / len(lines)
    return round(plan.total * (sum(units.nbytes for units in samples) / max(1, len(samples)) + text))


def write_pack(plan: PackPlan, workers: int, progress: Callable[[PackProgress], None]) -> dict[str, Any]:
    """Write a pack, or go on with an unfinished one.

    Args:
        plan: from `plan_pack`.
        workers: processes that read; 0 reads in this one.
        progress: called after every few records.

    Returns:
        The manifest.

    Raises:
        DataError: if the source changed since an earlier run, or nothing of it is usable.
        InterruptedWork: if Ctrl-C was pressed; finished shards are kept.
        FgclepError: if the disk is full, the folder cannot be written or another process writes it.
    """
    counts = PackProgress(plan.total)
    folder = plan.folder
    try:
        with folder.locked():
            if folder.complete and not plan.restart:
                _check_unchanged(plan)
                folder.tidy()
            else:
                folder.start(restart=plan.restart)
                publish(folder, plan.dataset, plan.fs_hz, _write_shards(plan, workers, counts, progress))
    except KeyboardInterrupt as error:
        raise InterruptedWork(
            f"Packing into {folder.root} was stopped after {counts.done:,} of {counts.total:,} records; what is in "
            "finished shards is kept.",
            "Repeat the same command to go on.",
        ) from error
    return read_manifest(folder.root)


def _iter_shards(dataset: Dataset) -> Iterator[list[RecordInfo]]:
    infos = dataset.iter_infos()
    while shard := list(islice(infos, SHARD_RECORDS)):
        yield shard


def _check_unchanged(plan: PackPlan) -> None:
    """Refuse to take a finished pack for a source that says other things of its records now."""
    packed = [shard["listing"] for shard in read_manifest(plan.folder.root)["shards"]]
    if packed != [_listing_digest(shard) for shard in _iter_shards(plan.dataset)]:
        raise DataError(
            f"{plan.dataset.root} has changed since it was packed into {plan.folder.root}.",
            "Choose another folder, or add --restart to pack anew into this one.",
        )


@dataclass(frozen=True)
class _Chunk:
    """A few records of one shard; `digests` are the shard's listing and stamps."""

    shard: int
    infos: Sequence[RecordInfo]
    digests: tuple[str, str]


def _write_shards(
    plan: PackPlan, workers: int, counts: PackProgress, progress: Callable[[PackProgress], None]
) -> list[ShardEntry]:
    """Write the shards that are not finished; return the entries of all, in order."""
    entries: dict[int, ShardEntry] = {}
    packed = map_in_order(_Packer(plan.dataset, plan.fs_hz), _iter_chunks(plan, entries, counts), workers)
    try:
        for number, chunks in groupby(packed, key=lambda pair: pair[0].shard):
            with ShardWriter(plan.folder.root, number) as writer:
                digests = "", ""
                for chunk, (lines, samples) in chunks:
                    writer.add(lines, samples)
                    digests = chunk.digests
                    counts.done += len(lines)
                    counts.rejected += len(lines) - len(samples)
                    progress(counts)
                entries[number] = writer.finish(*digests)
            plan.folder.commit(number, entries[number])
    finally:
        packed.close()
    return [entries[number] for number in sorted(entries)]


def _iter_chunks(plan: PackPlan, entries: dict[int, ShardEntry], counts: PackProgress) -> Iterator[_Chunk]:
    """Yield what is to be read, and note the entries of finished shards instead of reading them again."""
    for number, infos in enumerate(_iter_shards(plan.dataset)):
        digests = _listing_digest(infos), _digest(json.dumps(plan.dataset.stamp(info)) for info in infos)
        entry = plan.folder.entry(number)
        if entry is None:
            for start in range(0, len(infos), _CHUNK):
                yield _Chunk(number, infos[start : start + _CHUNK], digests)
        elif (entry.listing, entry.stamps) != digests:
            raise DataError(
                f"{plan.dataset.root} has changed since shard {number} of this unfinished pack was made.",
                "Add --restart to the command to pack anew.",
            )
        else:
            entries[number] = entry
            counts.resumed += len(infos)
            counts.done += len(infos)
            counts.rejected += sum(entry.rejects.values())


def _listing_digest(infos: Iterable[RecordInfo]) -> str:
    return _digest(json.dumps(asdict(info), sort_keys=True) for info in infos)


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


@dataclass(frozen=True)
class _Packer:
    """Turns a few records into lines and samples, in a worker process."""

    dataset: Dataset
    fs_hz: int | None

    def __call__(self, chunk: _Chunk) -> tuple[list[dict[str, Any]], list[Units]]:
        """Return every record's line, and the samples of those that are not rejected."""
        lines, samples = [], []
        for info in chunk.infos:
            try:
                record = self._read(info)
            except RecordReject as reject:
                lines.append(reject_line(info, reject))
                continue
            units, gain, exact = quantise(record)
            report = "\n".join(info.report_lines)
            more = {
                "split": split_of(info),
                "report_hash": report_hash(report),
                "report_fault": report_fault(info.report_lines),
                "units_per_mv": gain,
                "exact": exact,
            }
            lines.append(record_line(record, info, more))
            samples.append(units)
        return lines, samples

    def _read(self, info: RecordInfo) -> EcgRecord:
        try:
            record = self.dataset.read(info)
            if self.fs_hz is None or self.fs_hz == record.fs_hz:
                return record
            waveform = resample(record.waveform, record.fs_hz, self.fs_hz)
        except RecordReject:
            raise
        except Exception as error:
            # One file of a kind nobody foresaw must not stop a long run; the reject list tells of it.
            logger.debug("%s: reading failed", info.record_id, exc_info=True)
            raise RecordReject(info.record_id, "unreadable", f"{type(error).__name__}: {error}") from error
        return EcgRecord(record.info, waveform, float(self.fs_hz), record.flags)
