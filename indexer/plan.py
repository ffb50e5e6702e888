"""What building, adding and rebuilding have in common: a checked plan that `indexer.build.run_build` carries out."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fgclep.datasets import Dataset
from fgclep.errors import DataError, FgclepError
from indexer.assemble import Content
from indexer.embed import Embedder, EmbedOptions, Listing, Tally
from indexer.home import index_dir
from indexer.ids import repeated_ids
from indexer.manifest import DatasetRef
from indexer.resources import choose_batch_size, choose_workers
from indexer.sources import listed_ids
from indexer.staging import Staging

MAX_REJECT_RATE = 0.2
SHARD_SIZE = 2048
ROW_BYTES = 3000  # of one record in the staged rows, the store and its full-text index together; measured generously
VECTOR_BYTES = {"float32": 4, "float16": 2, "int8": 3}  # of one number; int8 stands beside float16
EMPTY_BYTES = 500_000


@dataclass(frozen=True)
class Plan(ABC):
    """A run that was checked and can start.

    Attributes:
        name: of the index.
        home: the directory of settings and indexes.
        max_reject_rate: more rejects than this share of the records read, and nothing is published.
        resume: go on with an unfinished run of the same settings; False discards it.
        activates: make the new version the current one.
    """

    embedder: Embedder
    name: str
    home: Path
    embed: EmbedOptions
    max_reject_rate: float
    resume: bool
    activates: bool

    @property
    def directory(self) -> Path:
        """The index's directory."""
        return index_dir(self.home, self.name)

    @property
    def staging(self) -> Staging:
        """Where the run keeps finished shards."""
        return Staging(self.directory / "staging")

    @property
    def continues(self) -> bool:
        """Tell whether an unfinished run is there to go on with."""
        return self.resume and self.staging.unfinished

    @property
    def total(self) -> int:
        """Records that will be read."""
        return self.listing.total

    @property
    def disk_bytes(self) -> int:
        """Space that is still needed at most."""
        return max(0, self.whole_bytes() - self.staging.size_bytes())

    @property
    def vector_bytes(self) -> int:
        """Size of one stored vector."""
        return self.embedder.model.dim * VECTOR_BYTES[self.embed.dtype]

    @property
    def options(self) -> Mapping[str, Any]:
        """What the manifest tells of how the version was made."""
        return {
            **asdict(self.embed),
            "arithmetic": self.embedder.arithmetic,
            "max_reject_rate": self.max_reject_rate,
        }

    @property
    @abstractmethod
    def listing(self) -> Listing:
        """What will be read, and from where."""

    @property
    @abstractmethod
    def roots(self) -> str:
        """Where the records are, for people."""

    @abstractmethod
    def whole_bytes(self) -> int:
        """Return the space needed at most, what is staged included."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return everything that decides the vectors: an unfinished run is only continued with the same."""

    @abstractmethod
    def check_base(self) -> None:
        """Refuse to start, under the lock, if what the plan starts from has changed since it was made.

        Raises:
            FgclepError: if another run was quicker.
        """

    def judged(self, staging: Staging, tally: Tally) -> Tally:
        """Return the counts of the records that the limit of rejects is for, once every record is embedded: of all."""
        return tally

    @abstractmethod
    def content(self, staging: Staging, tally: Tally) -> Content:
        """Describe the new version, once every record is embedded.

        Raises:
            DataError: if the data gave other records than it listed.
        """


def embed_options(
    embedder: Embedder,
    directory: Path,
    records: int,
    *,
    shard_size: int,
    batch_size: int | None,
    dtype: str,
    limit: int | None,
    workers: int | None,
    resume: bool,
) -> EmbedOptions:
    """Settle how records are grouped and who reads them: what was not given suits the machine.

    The batch size decides rounding, so a run that goes on keeps the one that it began with.

    Args:
        embedder: the model; its device decides.
        directory: of the index.
        records: how many there are, without a limit.
        shard_size, batch_size, dtype, limit, workers: as in `indexer.build.plan_build`.
        resume: whether an unfinished run is gone on with.
    """
    begun = Staging(directory / "staging").planned("batch_size") if resume and batch_size is None else None
    workers = choose_workers(embedder.device) if workers is None else workers
    records = records if limit is None else min(limit, records)
    batch_size = batch_size or begun or choose_batch_size(embedder.device, records, workers)
    return EmbedOptions(shard_size, batch_size, dtype, limit, workers)


def check_space(plan: Plan) -> None:
    """Refuse a plan that needs more space than there is.

    Raises:
        FgclepError: naming both.
    """
    folder, free = free_bytes(plan.directory)
    if free < plan.disk_bytes:
        needed, there = f"{plan.disk_bytes / 1e6:,.0f} MB", f"{free / 1e6:,.0f} MB"
        raise FgclepError(
            f"Building {plan.name} needs about {needed} in {folder}; {there} are free.",
            "Free some space, or choose another folder: FGCLEP_HOME=PATH",
        )


def free_bytes(directory: Path) -> tuple[Path, int]:
    """Return the nearest folder that exists, and the space that is free in it."""
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    return existing, shutil.disk_usage(existing).free


def check_unique(dataset: Dataset) -> None:
    """Refuse a data set that lists an id twice, before anything of it is read.

    Raises:
        DataError: naming the first of them.
    """
    if repeated := repeated_ids(lambda: listed_ids(dataset)):
        raise DataError(
            f"{dataset.root} lists {len(repeated):,} record ids more than once, such as {repeated[0]}; "
            "each record needs an id of its own.",
            f"Remove the duplicates from its tables; `fgclep data scan {dataset.root}` reads them.",
        )


def dataset_ref(dataset: Dataset) -> DatasetRef:
    """Describe a data set for the manifest."""
    return DatasetRef(dataset.kind, dataset.name, str(Path(dataset.root).resolve()), dataset.fs_hz)
