"""Embed the records of an index again with another model, side by side; what is known about them is reused."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgclep.datasets import open_for_rate
from fgclep.errors import CompatibilityError, DataError
from fgclep.record import RecordInfo
from indexer.assemble import Content
from indexer.base import Base, open_base
from indexer.embed import Embedder, Listing, Tally
from indexer.home import index_dir
from indexer.manifest import Counts, IndexManifest
from indexer.open import STORE
from indexer.plan import EMPTY_BYTES, MAX_REJECT_RATE, SHARD_SIZE, Plan, check_space, embed_options
from indexer.sources import Sources, open_sources
from indexer.staging import Staging
from indexer.store_update import recount, reduce_store

_STAGED_ROW_BYTES = 1000  # a staged row without report and measurements


@dataclass(frozen=True)
class RebuildPlan(Plan):
    """A new version of an index with the same records, keys and store, and the vectors of another model.

    Attributes:
        base: the version whose records are embedded again.
        sources: where they are.
    """

    base: Base
    sources: Sources

    @property
    def listing(self) -> Listing:
        """The records of the base, with their keys."""
        return Listing(self.base.manifest.counts.indexed, self._pairs, self.sources)

    @property
    def roots(self) -> str:
        """The folders that the index was read from."""
        return ", ".join(dict.fromkeys(reference.root for _, reference in self.base.manifest.sources))

    def whole_bytes(self) -> int:
        """Return the space of shards, joined vectors, the derived index, and the store if it cannot be shared."""
        return (
            self.total * (3 * self.vector_bytes + _STAGED_ROW_BYTES)
            + self.base.manifest.files[STORE].bytes
            + EMPTY_BYTES
        )

    def identity(self) -> dict[str, Any]:
        """Return base, model and grouping."""
        return {
            "base": self.base.path.name,
            "data": None,
            "model": self.embedder.model.fingerprint,
            "dtype": self.embed.dtype,
            "batch_size": self.embed.batch_size,
            "shard_size": self.embed.shard_size,
        }

    def check_base(self) -> None:
        """Refuse a base that is no longer the current version."""
        self.base.check_current()

    def content(self, staging: Staging, tally: Tally) -> Content:
        """Describe the version; records that can no longer be read are rejects in it."""
        self.base.check(STORE)
        base = self.base.manifest
        if tally.done != base.counts.indexed:
            raise DataError(
                f"{self.base.store_path} gave {tally.done:,} records; the manifest says {base.counts.indexed:,}.",
                f"fgclep index verify {base.name}",
            )

        def write(path: Path) -> Counts:
            reduce_store(path, self.base.store_path, staging.iter_rows(tally.shards, "reject"))
            return recount(path, base.counts.beyond_limit)

        return Content(
            vectors=map(staging.vectors, range(tally.shards)),
            keys=map(staging.keys, range(tally.shards)),
            write_store=write,
            dataset=base.dataset,
            options={**self.options, "base": self.base.path.name},
            additions=base.additions,
        )

    def _pairs(self) -> Iterator[tuple[int, RecordInfo]]:
        with self.base.open_store() as store:
            yield from store.iter_infos()


def plan_rebuild(
    embedder: Embedder,
    name: str,
    *,
    home: Path,
    activate: bool = False,
    workers: int | None = None,
    batch_size: int | None = None,
    resume: bool = True,
    max_reject_rate: float = MAX_REJECT_RATE,
    shard_size: int = SHARD_SIZE,
) -> RebuildPlan:
    """Check what a rebuild needs before it starts. Writes nothing.

    Args:
        embedder: the new model.
        name: of the index.
        home: the directory of settings and indexes.
        activate: make the new version the current one once it is complete.
        workers, batch_size, resume, max_reject_rate, shard_size: as in `indexer.build.plan_build`.

    Raises:
        NotSetUpError: if there is no such index, or its data is gone.
        CompatibilityError: if the model wants files at a rate that the index was not read from.
        DataError: if a folder holds another data set now.
        FgclepError: if there is too little space.
    """
    base = open_base(home, name, resume=resume)
    with base.released_on_error():
        sources = open_sources(base.manifest)
        for dataset in sources.datasets:
            suited = open_for_rate(dataset.root, embedder.processor.fs_hz)
            if suited.fs_hz != dataset.fs_hz:
                raise CompatibilityError(
                    f"Index {name} was read from the {dataset.fs_hz} Hz files of {dataset.root}; model "
                    f"{embedder.model.name} wants those at {suited.fs_hz} Hz, so the store cannot be reused.",
                    _build_anew(base.manifest, embedder),
                )
        embed = embed_options(
            embedder,
            index_dir(home, name),
            base.manifest.counts.indexed,
            shard_size=shard_size,
            batch_size=batch_size,
            dtype=base.manifest.dtype,
            limit=None,
            workers=workers,
            resume=resume,
        )
        plan = RebuildPlan(embedder, name, home, embed, max_reject_rate, resume, activate, base, sources)
        check_space(plan)
        return plan


def _build_anew(manifest: IndexManifest, embedder: Embedder) -> str:
    """Return the commands that make an index of all its folders again; a build alone takes one."""
    first, *others = dict.fromkeys(reference.root for _, reference in manifest.sources)
    build = f"fgclep index build --data {first} --model {embedder.model.path} --name {manifest.name}"
    return "; then ".join([build, *(f"fgclep index add --data {root} --name {manifest.name}" for root in others)])
