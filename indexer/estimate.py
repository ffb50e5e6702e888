"""What a run will take, told before it starts: measured on a sample of the very records that it would read."""

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from fgclep.pool import map_in_order
from fgclep.record import RecordInfo
from indexer.embed import ReadAndEncode, encode_chunk
from indexer.plan import ROW_BYTES, Plan, free_bytes
from indexer.reading import Chunk, PreparedChunk, Reader
from indexer.staging import rows_of
from indexer.store import write_store

_SAMPLE = 256
_STORE_ROWS = 2000
_CHUNKS_PER_WORKER = 2  # that wait between a reading process and the device


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        records: that will be read; not those of finished shards, where a run goes on.
        sampled: records that were read and encoded to find out.
        rejected: how many of them were rejects.
        read_ms, encode_ms, store_ms: of one record in one process, measured.
        seconds: of all that is left to do, with its number of worker processes.
        memory_bytes: of all its processes at the peak.
        disk_bytes: needed at most; `free_bytes` are there.
    """

    records: int
    sampled: int
    rejected: int
    read_ms: float
    encode_ms: float
    store_ms: float
    seconds: float
    memory_bytes: int
    disk_bytes: int
    free_bytes: int


def estimate(plan: Plan, cores: int) -> Estimate:
    """Read and encode a sample, spread over the whole listing, and scale up. Writes nothing into the index.

    On a CPU each worker process reads and encodes, so they share the work as far as there are cores. On another device
    the slower of reading and encoding decides.

    Args:
        plan: of a build, an addition or a rebuild.
        cores: that the run may use.
    """
    left = max(0, plan.total - (plan.staging.covered() if plan.continues else 0))
    chunks = [Chunk(0, part, last=False) for part in _sample(plan, left)]
    reader = Reader(plan.listing.sources, plan.embedder.processor, plan.embedder.as_stored)
    started = time.perf_counter()
    prepared = [reader(chunk) for chunk in chunks]
    reading = time.perf_counter() - started
    encode_chunk(plan.embedder, prepared[0])  # the first call of a model takes longer than all others
    started = time.perf_counter()
    for content in prepared:
        encode_chunk(plan.embedder, content)
    encoding = time.perf_counter() - started
    sampled = sum(len(chunk.items) for chunk in chunks)
    storing = _store_seconds(prepared)
    workers = plan.embed.workers
    if plan.embedder.device == "cpu":
        each = (reading + encoding) / min(max(1, workers), cores) / sampled
    else:
        each = (max(reading / workers, encoding) if workers else reading + encoding) / sampled
    folder_free = free_bytes(plan.directory)[1]
    return Estimate(
        records=left,
        sampled=sampled,
        rejected=sum(len(content.rejects) for content in prepared),
        read_ms=1000 * reading / sampled,
        encode_ms=1000 * encoding / sampled,
        store_ms=1000 * storing,
        seconds=left * each + plan.total * storing,  # the store is written at the end, with the rows of all shards
        memory_bytes=_memory(plan, reader, chunks[0], prepared[0]),
        disk_bytes=plan.disk_bytes,
        free_bytes=folder_free,
    )


def _sample(plan: Plan, left: int) -> list[list[tuple[int, RecordInfo]]]:
    """Return records from everywhere in what is left of the listing, in chunks as the run makes them."""
    number = left or plan.total  # where nothing is left to read, all: something must be measured
    step = max(1, -(-number // _SAMPLE))  # rounded up, so that the last records have their share
    pairs = list(islice(plan.listing.pairs(), plan.total - number, None, step))
    size = plan.embed.batch_size
    return [pairs[start : start + size] for start in range(0, len(pairs), size)]


def _store_seconds(prepared: list[PreparedChunk]) -> float:
    """Measure how long a row takes to be written into a store, with the sample's rows over and over."""
    rows = [row for content in prepared for row in rows_of(content.records.splitlines(), "record")]
    if not rows:
        return 0.0
    many: list[dict[str, Any]] = [
        {**row, "key": key, "record_id": str(key)} for key, row in enumerate(islice(cycle(rows), _STORE_ROWS))
    ]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        write_store(Path(folder, "store.sqlite"), many, [], [])
        return (time.perf_counter() - started) / len(many)


def _memory(plan: Plan, reader: Reader, chunk: Chunk, prepared: PreparedChunk) -> int:
    """Add up this process with its model, a shard in the making, waveforms under way, and the worker processes."""
    options = plan.embed
    shard = options.shard_size * (plan.embedder.model.dim * 8 + ROW_BYTES)
    own = _peak_rss(resource.RUSAGE_SELF) + shard
    if not options.workers:
        return own
    on_cpu = plan.embedder.device == "cpu"
    work: Callable[[Chunk], object] = ReadAndEncode(reader, plan.embedder, options.batch_size) if on_cpu else reader
    for _ in map_in_order(work, [chunk], 1):
        pass
    under_way = 0 if on_cpu else (_CHUNKS_PER_WORKER * options.workers + 1) * _waveform_bytes(prepared)
    return own + under_way + options.workers * _peak_rss(resource.RUSAGE_CHILDREN)


def _waveform_bytes(prepared: PreparedChunk) -> int:
    return prepared.waveforms.nbytes + (0 if prepared.stored is None else prepared.stored.units.nbytes)


def _peak_rss(who: int) -> int:
    return resource.getrusage(who).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
