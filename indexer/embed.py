"""From records to embedding shards in a staging directory; resumable, in constant memory."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import DataError, FgclepError
from fgclep.preprocessing import EcgProcessor
from fgclep.record import RecordInfo
from indexer.manifest import ModelRef
from indexer.reading import Chunk, PreparedChunk, Reader, iter_prepared
from indexer.sources import Sources
from indexer.staging import ShardContent, ShardEntry, Staging

_NORM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Embedder:
    """A model as an index needs it.

    Attributes:
        encode: prepared float32 (B, 12, samples) -> float32 (B, dim), unit rows.
        calibration: content of the bundle's calibration.json.
    """

    model: ModelRef
    processor: EcgProcessor
    encode: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    calibration: Mapping[str, Any]


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


def load_embedder(model: str | None, device: str = "cpu") -> Embedder:
    """Load a model bundle for embedding.

    Args:
        model: name or path; None means the shipped bundle.
        device: where to run it.
    """
    from fgclep.pretrained import bundle_fingerprint, load_calibration, load_model, resolve_model

    path = resolve_model(model)
    loaded = load_model(path, device)
    reference = ModelRef(path.name, str(path), bundle_fingerprint(path), int(loaded.dim))
    return Embedder(reference, EcgProcessor.from_pretrained(path), loaded.encode_ecg, asdict(load_calibration(path)))


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
    prepared = iter_prepared(Reader(listing.sources, embedder.processor), chunks, options.workers)
    parts: list[tuple[Chunk, PreparedChunk, NDArray[np.float32]]] = []
    try:
        for chunk, content in prepared:
            parts.append((chunk, _without_waveforms(content), encode_chunk(embedder, content)))
            tally.done += len(chunk.items)
            tally.indexed += len(content.records)
            tally.rejected_by_reason.update(row["reason"] for row in content.rejects)
            if chunk.last:
                staging.commit(chunk.shard, _shard_content(parts, options.dtype))
                parts = []
                if stop_requested():
                    break
            progress(tally)
    finally:
        prepared.close()
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


def encode_chunk(embedder: Embedder, content: PreparedChunk) -> NDArray[np.float32]:
    """Encode a chunk's waveforms; float32 (n, dim).

    Raises:
        FgclepError: if the model gives no unit vectors.
    """
    dim = embedder.model.dim
    if not content.records:
        return np.empty((0, dim), np.float32)
    vectors = np.asarray(embedder.encode(content.waveforms), np.float32)
    norms = np.linalg.norm(vectors, axis=1)
    if vectors.shape != (len(content.records), dim) or not (np.abs(norms - 1) < _NORM_TOLERANCE).all():
        raise FgclepError(
            f"Model {embedder.model.name} gave vectors of shape {vectors.shape} with norms "
            f"{norms.min():.3f} to {norms.max():.3f}; expected {(len(content.records), dim)} with norm 1.",
            f"The bundle {embedder.model.path} is damaged or not an fgclep model; choose another --model.",
        )
    return vectors


def _without_waveforms(content: PreparedChunk) -> PreparedChunk:
    """Drop the samples once they are encoded, so that a shard in progress stays small."""
    nothing = np.empty((0, 12, 0), np.float32)  # an empty slice would keep the whole array alive
    return PreparedChunk(nothing, content.records, content.rejects)


def _shard_content(parts: Sequence[tuple[Chunk, PreparedChunk, NDArray[np.float32]]], dtype: str) -> ShardContent:
    records = [row for _, content, _ in parts for row in content.records]
    return ShardContent(
        listing=_listing_digest(info.record_id for chunk, _, _ in parts for _, info in chunk.items),
        vectors=np.concatenate([vectors for _, _, vectors in parts]).astype(dtype),
        keys=np.array([row["key"] for row in records], np.int64),
        records=records,
        rejects=[row for _, content, _ in parts for row in content.rejects],
    )


def _listing_digest(record_ids: Iterator[str]) -> str:
    return hashlib.sha256("\n".join(record_ids).encode()).hexdigest()
