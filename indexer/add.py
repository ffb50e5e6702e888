"""Add the records of a tree to an index: a new version with the vectors that are there and those of the new records."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from fgclep.datasets import Dataset
from fgclep.datasets.wfdb_folder import PLAIN_KIND
from fgclep.errors import CompatibilityError, DataError
from fgclep.record import RecordInfo
from indexer.assemble import Content
from indexer.base import Base, open_base
from indexer.embed import Embedder, Listing, Tally
from indexer.home import index_dir
from indexer.ids import IdSet
from indexer.manifest import Addition, Counts
from indexer.open import KEYS, STORE, VECTORS
from indexer.plan import (
    EMPTY_BYTES,
    MAX_REJECT_RATE,
    ROW_BYTES,
    SHARD_SIZE,
    Plan,
    check_space,
    check_unique,
    dataset_ref,
    embed_options,
)
from indexer.sources import Sources, listed_ids
from indexer.staging import Staging
from indexer.store_read import Store
from indexer.store_update import extend_store, recount


@dataclass(frozen=True)
class AddPlan(Plan):
    """An addition to the current version of an index; what was rejected or missing there is tried again.

    Attributes:
        dataset: the tree with new records.
        base: the version to add to.
        known: ids of the records that are indexed there.
        new: how many records of the tree are not.
        rejects: ids of the records that were rejected there.
        again: how many of the new ones are among them.
    """

    dataset: Dataset
    base: Base
    known: IdSet
    new: int
    rejects: IdSet
    again: int

    @property
    def listing(self) -> Listing:
        """The records that are not indexed yet; their keys go on after the last one."""
        return Listing(self.new, self._pairs, Sources((self.dataset,)))

    @cached_property
    def first_key(self) -> int:
        """The key of the first new record."""
        return int(self.base.keys()[-1]) + 1

    @property
    def roots(self) -> str:
        """The folder of the new records."""
        return str(self.dataset.root)

    def whole_bytes(self) -> int:
        """Return the space of the new records' shards and rows, and of a whole new version."""
        indexed, files = self.base.manifest.counts.indexed, self.base.manifest.files
        vectors = (2 * indexed + 3 * self.new) * self.vector_bytes
        return vectors + files[STORE].bytes + self.new * ROW_BYTES + EMPTY_BYTES

    def identity(self) -> dict[str, Any]:
        """Return base, data, model and grouping."""
        return {
            "base": self.base.path.name,
            "data": str(Path(self.dataset.root).resolve()),
            "kind": self.dataset.kind,
            "fs_hz": self.dataset.fs_hz,
            "model": self.embedder.model.fingerprint,
            "batch_size": self.embed.batch_size,
            "shard_size": self.embed.shard_size,
        }

    def check_base(self) -> None:
        """Refuse a base that is no longer the current version."""
        self.base.check_current()

    def judged(self, staging: Staging, tally: Tally) -> Tally:
        """Leave out what the base rejected already: the limit was kept, or raised, when that was accepted."""
        rows = staging.iter_rows(tally.shards, "reject")
        repeated = Counter(row["reason"] for row in rows if row["record_id"] in self.rejects)
        return replace(tally, done=tally.done - self.again, rejected_by_reason=tally.rejected_by_reason - repeated)

    def content(self, staging: Staging, tally: Tally) -> Content:
        """Describe the version that holds the base and the new records."""
        if tally.done != self.new:
            raise DataError(
                f"{self.dataset.root} gave {tally.done:,} new records where {self.new:,} were listed.",
                f"fgclep data scan {self.dataset.root}",
            )
        self.base.check(VECTORS, KEYS, STORE)
        base, shards = self.base.manifest, range(tally.shards)
        reference = dataset_ref(self.dataset)

        def write(path: Path) -> Counts:
            records, rejects = (staging.iter_rows(tally.shards, kind) for kind in ("record", "reject"))
            extend_store(path, self.base.store_path, records, rejects, self.dataset.missing)
            # What an earlier --limit left out of the same folder was read now.
            return recount(path, 0 if reference.root == base.dataset.root else base.counts.beyond_limit)

        return Content(
            vectors=chain(self.base.iter_vectors(), map(staging.vectors, shards)),
            keys=chain([np.asarray(self.base.keys())], map(staging.keys, shards)),
            write_store=write,
            dataset=base.dataset,
            options={**self.options, "base": self.base.path.name},
            additions=(*base.additions, Addition(reference, self.first_key, tally.indexed)),
        )

    def _pairs(self) -> Iterator[tuple[int, RecordInfo]]:
        return enumerate(
            (info for info in self.dataset.iter_infos() if info.record_id not in self.known), self.first_key
        )


def plan_add(
    dataset: Dataset,
    embedder: Embedder,
    name: str,
    *,
    home: Path,
    only_new: bool = False,
    workers: int | None = None,
    batch_size: int | None = None,
    resume: bool = True,
    max_reject_rate: float = MAX_REJECT_RATE,
    shard_size: int = SHARD_SIZE,
) -> AddPlan:
    """Check what an addition needs before it starts. Writes nothing.

    Args:
        dataset: the tree with new records.
        embedder: the model that the index was built with.
        name: of the index.
        home: the directory of settings and indexes.
        only_new: leave out the records that are indexed; else any such record is refused.
        workers, batch_size, resume, max_reject_rate, shard_size: as in `indexer.build.plan_build`.

    Raises:
        NotSetUpError: if there is no such index.
        CompatibilityError: if the model is another one.
        DataError: if records are indexed already (unless `only_new`), listed twice, or none is new.
        FgclepError: if there is too little space.
    """
    base = open_base(home, name, resume=resume)
    with base.released_on_error():
        _check_fits(base, dataset, embedder)
        check_unique(dataset)
        with base.open_store() as store:
            _check_own_names(base, dataset, store)
            known, rejects = IdSet(store.record_ids()), IdSet(store.record_ids("rejects"))
        overlap = _compare(dataset, known, rejects)
        _check_new(overlap, dataset, name, only_new=only_new)
        embed = embed_options(
            embedder,
            index_dir(home, name),
            overlap.present - overlap.known,
            shard_size=shard_size,
            batch_size=batch_size,
            dtype=base.manifest.dtype,
            limit=None,
            workers=workers,
            resume=resume,
        )
        plan = AddPlan(
            embedder,
            name,
            home,
            embed,
            max_reject_rate,
            resume,
            True,
            dataset,
            base,
            known,
            overlap.present - overlap.known,
            rejects,
            overlap.rejected,
        )
        check_space(plan)
        return plan


@dataclass
class _Overlap:
    """How many records of a tree have files, how many of those an index knows or has rejected, and the first known."""

    present: int = 0
    known: int = 0
    rejected: int = 0
    example: str = ""


def _compare(dataset: Dataset, known: IdSet, rejects: IdSet) -> _Overlap:
    missing = IdSet(dataset.missing)
    overlap = _Overlap()
    for record_id in listed_ids(dataset):  # one at a time: the ids of 800,000 records take 100 MB
        if record_id not in missing:
            overlap.present += 1
            overlap.rejected += record_id in rejects
            if record_id in known:
                overlap.known += 1
                overlap.example = overlap.example or record_id
    return overlap


def _check_new(overlap: _Overlap, dataset: Dataset, name: str, *, only_new: bool) -> None:
    """Refuse a tree without new records, and one with known ones unless those are to be left out."""
    if overlap.known == overlap.present:
        raise DataError(
            f"{dataset.root} has nothing new for index {name}: all {overlap.present:,} of its records are in it.",
            f"fgclep index info {name}",
        )
    if overlap.known and not only_new:
        raise DataError(
            f"{overlap.known:,} of the {overlap.present:,} records of {dataset.root} are in index {name} already, such "
            f"as {overlap.example}; nothing was added.",
            f"Add the other {overlap.present - overlap.known:,}: "
            f"fgclep index add --data {dataset.root} --name {name} --only-new",
        )


def _check_own_names(base: Base, dataset: Dataset, store: Store) -> None:
    """Refuse a plain folder with record ids of another one: they are made of file names, so the ECGs may differ."""
    if dataset.kind != PLAIN_KIND:
        return
    here = dataset_ref(dataset).root
    first_keys, references = zip(*base.manifest.sources, strict=True)
    elsewhere = IdSet(
        info.record_id for key, info in store.iter_infos() if references[bisect_right(first_keys, key) - 1].root != here
    )
    example = next((record_id for record_id in listed_ids(dataset) if record_id in elsewhere), None)
    if example is not None:
        raise DataError(
            f"{here} is another folder than index {base.manifest.name} was read from and has records of equal names, "
            f"such as {example}; they may be other ECGs, so nothing was added.",
            "Give the folders a common parent and build the index from that. If this is the same data in a new place: "
            f"fgclep index relocate {here} --name {base.manifest.name}",
        )


def _check_fits(base: Base, dataset: Dataset, embedder: Embedder) -> None:
    """Refuse another model, and a folder whose records have other ids than when it was indexed."""
    index, model = base.manifest, base.manifest.model
    if embedder.model.fingerprint != model.fingerprint:
        raise CompatibilityError(
            f"Index {index.name} was built with model {model.name} [{model.fingerprint}]; "
            f"{embedder.model.path} is [{embedder.model.fingerprint}], and their vectors cannot be compared.",
            f"Drop --model, or move the index to it: fgclep index rebuild {index.name} --model {embedder.model.path}",
        )
    here = dataset_ref(dataset)
    for _, reference in index.sources:
        if reference.root == here.root and reference.kind != here.kind:
            raise DataError(
                f"{here.root} was indexed as {reference.name} ({reference.kind}) and is {here.name} ({here.kind}) now, "
                "so its records would get other ids.",
                f"fgclep data scan {here.root}",
            )
