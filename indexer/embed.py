"""From records to embedding shards in a staging directory; resumable, in constant memory.

On a CPU every worker process reads, prepares and encodes with one thread, so that nothing but vectors travels and the
result does not depend on how many workers there are. On another device workers read, a thread of this process feeds the
device, and this thread writes. All of it overlaps.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import DataError, FgclepError
from fgclep.pool import map_in_order
from fgclep.preprocessing import EcgProcessor, StoredBatch, StoredStack
from fgclep.record import RecordInfo
from indexer.manifest import STORED, ModelRef
from indexer.reading import Chunk, PreparedChunk, Reader
from indexer.sources import Sources
from indexer.staging import ShardContent, ShardEntry, Staging

_NORM_TOLERANCE = 1e-3
_BATCHES_UNDER_WAY = 2  # handed to the thread that feeds a device

Encode = Callable[[Any], NDArray[np.float32]]
"""Waveforms to vectors; see `Embedder`."""


@dataclass(frozen=True)
class Embedder:
    """A model as an index needs it.

    Attributes:
        encode: prepared float32 (B, 12, samples) -> float32 (B, dim), unit rows; must pickle for worker processes.
        calibration: content of the bundle's calibration.json.
        device: kind of device that `encode` runs on; on `cpu`, worker processes encode.
        arithmetic: what besides the model decides a vector's last digits.
        as_stored: `encode` takes a `StoredBatch` too.
    """

    model: ModelRef
    processor: EcgProcessor
    encode: Encode
    calibration: Mapping[str, Any]
    device: str = "cpu"
    arithmetic: str = "float32"
    as_stored: bool = False


@dataclass
class Tally:
    """Running counts of an embedding run; `resumed` of the `done` records were finished earlier."""

    total: int
    done: int = 0
    indexed: int = 0
    resumed: int = 0
    shards: int = 0
    rejected_by_reason: Counter[str] = field(default_factory=Counter)

    @property
    def rejected(self) -> int:
        """Records read and rejected so far."""
        return sum(self.rejected_by_reason.values())


@dataclass(frozen=True)
class EmbedOptions:
    """How records are grouped; both sizes decide rounding, so they are part of a build's identity."""

    shard_size: int
    batch_size: int
    dtype: str
    limit: int | None
    workers: int


def load_embedder(model: str | None, device: str = "cpu", *, exact: bool = False) -> Embedder:
    """Load a model bundle for embedding.

    Args:
        model: name or path; None means the shipped bundle.
        device: where to run it.
        exact: compute in float32 even where bfloat16 is faster, so that other machines get the same vectors.
    """
    from fgclep.models.inference import FastEcgEncoder
    from fgclep.pretrained import bundle_fingerprint, load_calibration, resolve_model

    path = resolve_model(model)
    encode = FastEcgEncoder(path, device, exact)
    reference = ModelRef(path.name, str(path), bundle_fingerprint(path), encode.load())
    return Embedder(
        reference,
        EcgProcessor.from_pretrained(path),
        encode,
        asdict(load_calibration(path)),
        device=device.partition(":")[0],
        arithmetic=encode.arithmetic,
        as_stored=True,
    )


@dataclass(frozen=True)
class Listing:
    """The records of a run, always in the same order.

    Attributes:
        total: how many there are.
        pairs: gives each record with the key it gets, keys ascending; may be called more than once.
        sources: where they are read from.
    """

    total: int
    pairs: Callable[[], Iterator[tuple[int, RecordInfo]]]
    sources: Sources


def embed_records(
    listing: Listing,
    embedder: Embedder,
    staging: Staging,
    options: EmbedOptions,
    progress: Callable[[Tally], None],
    stop_requested: Callable[[], bool],
) -> Tally:
    """Embed every record of a listing into shards, skipping the shards that are finished.

    Args:
        listing: what to read.
        embedder: the model.
        staging: a prepared staging directory.
        options: grouping; the limit is the listing's business.
        progress: called after every batch.
        stop_requested: asked after every shard; True ends the run early.

    Returns:
        The counts; `done < total` after an early end.

    Raises:
        DataError: if the data changed since the finished shards were made.
        FgclepError: if the model gives no unit vectors.
    """
    tally = Tally(total=listing.total)
    chunks = _iter_chunks(listing, staging, options, tally)
    encoded = encode_chunks(Reader(listing.sources, embedder.processor, embedder.as_stored), embedder, chunks, options)
    parts: list[tuple[Chunk, EncodedChunk]] = []
    try:
        for chunk, content in encoded:
            parts.append((chunk, content))
            tally.done += len(chunk.items)
            tally.indexed += len(content.keys)
            tally.rejected_by_reason.update(row["reason"] for row in content.rejects)
            if chunk.last:
                staging.commit(chunk.shard, _shard_content(parts, STORED[options.dtype]))
                parts = []
                if stop_requested():
                    break
            progress(tally)
    finally:
        encoded.close()
    return tally


def _iter_chunks(listing: Listing, staging: Staging, options: EmbedOptions, tally: Tally) -> Iterator[Chunk]:
    """Cut the listing into shards and those into chunks, counting finished shards instead of yielding them."""
    pairs = listing.pairs()
    while shard := list(islice(pairs, options.shard_size)):
        number = tally.shards
        if (entry := staging.entry(number)) is not None:
            _count_finished(entry, shard, number, tally)
        tally.shards += 1
        if entry is None:
            for start in range(0, len(shard), options.batch_size):
                part = shard[start : start + options.batch_size]
                yield Chunk(number, part, last=start + options.batch_size >= len(shard))


def _count_finished(entry: ShardEntry, shard: Sequence[tuple[int, RecordInfo]], number: int, tally: Tally) -> None:
    if entry.listing != _listing_digest(info.record_id for _, info in shard):
        raise DataError(
            f"The data set lists other records than when shard {number} of this unfinished build was made.",
            "Repeat the command with --restart.",
        )
    tally.done += len(shard)
    tally.resumed += len(shard)
    tally.indexed += entry.indexed
    tally.rejected_by_reason.update(entry.rejected_by_reason)


@dataclass(frozen=True)
class EncodedChunk:
    """A chunk after encoding: as in `ShardContent`, but for the vectors, float32 (n, dim)."""

    vectors: NDArray[np.float32]
    keys: NDArray[np.int64]
    records: bytes
    rejects: list[dict[str, str]]


@dataclass(frozen=True)
class ReadAndEncode:
    """All of the work on a chunk; travels to every worker process once."""

    reader: Reader
    embedder: Embedder
    batch_size: int

    def __call__(self, chunk: Chunk) -> EncodedChunk:
        """Read and encode a chunk of up to `batch_size` records."""
        return encode_chunk(self.embedder, self.reader.prepare(chunk.items, self._stack))

    @cached_property
    def _stack(self) -> StoredStack:
        return StoredStack(self.reader.processor, self.batch_size)


def encode_chunks(
    reader: Reader, embedder: Embedder, chunks: Iterator[Chunk], options: EmbedOptions
) -> Generator[tuple[Chunk, EncodedChunk], None, None]:
    """Read and encode chunks and yield them in order; errors as of `encode_chunk` and `fgclep.pool.map_in_order`."""
    if embedder.device == "cpu":
        return map_in_order(ReadAndEncode(reader, embedder, options.batch_size), chunks, options.workers)
    return _encode_beside(embedder, map_in_order(reader, chunks, options.workers))


def _encode_beside(
    embedder: Embedder, prepared: Generator[tuple[Chunk, PreparedChunk], None, None]
) -> Generator[tuple[Chunk, EncodedChunk], None, None]:
    """Encode in one thread of this process, while this one waits for readers and writes shards."""
    waiting: deque[tuple[Chunk, Future[EncodedChunk]]] = deque()
    with ThreadPoolExecutor(1) as thread:
        try:
            for chunk, content in prepared:
                waiting.append((chunk, thread.submit(encode_chunk, embedder, content)))
                del content  # the thread lets the samples go
                if len(waiting) > _BATCHES_UNDER_WAY:
                    done, future = waiting.popleft()
                    yield done, future.result()
            for done, future in waiting:
                yield done, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
            prepared.close()


def encode_chunk(embedder: Embedder, content: PreparedChunk) -> EncodedChunk:
    """Encode a chunk's waveforms.

    Raises:
        FgclepError: if the model gives no unit vectors.
    """
    dim = embedder.model.dim
    vectors = np.empty((len(content.keys), dim), np.float32)
    if content.stored is not None:
        vectors[content.as_stored] = _encoded(embedder, content.stored, len(content.stored.units))
    if len(content.waveforms):
        vectors[~content.as_stored] = _encoded(embedder, content.waveforms, len(content.waveforms))
    return EncodedChunk(vectors, content.keys, content.records, content.rejects)


def _encoded(embedder: Embedder, waveforms: NDArray[np.float32] | StoredBatch, count: int) -> NDArray[np.float32]:
    vectors = np.asarray(embedder.encode(waveforms), np.float32)
    norms = np.linalg.norm(vectors, axis=1)
    if vectors.shape != (count, embedder.model.dim) or not (np.abs(norms - 1) < _NORM_TOLERANCE).all():
        raise FgclepError(
            f"Model {embedder.model.name} gave vectors of shape {vectors.shape} with norms "
            f"{norms.min():.3f} to {norms.max():.3f}; expected {(count, embedder.model.dim)} with norm 1.",
            f"The bundle {embedder.model.path} is damaged or not an fgclep model; choose another --model.",
        )
    return vectors


def _shard_content(parts: Sequence[tuple[Chunk, EncodedChunk]], dtype: str) -> ShardContent:
    return ShardContent(
        listing=_listing_digest(info.record_id for chunk, _ in parts for _, info in chunk.items),
        vectors=np.concatenate([content.vectors for _, content in parts]).astype(dtype),
        keys=np.concatenate([content.keys for _, content in parts]),
        records=b"".join([content.records for _, content in parts]),
        rejects=[row for _, content in parts for row in content.rejects],
    )


def _listing_digest(record_ids: Iterator[str]) -> str:
    return hashlib.sha256("\n".join(record_ids).encode()).hexdigest()
