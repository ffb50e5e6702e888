"""Build an index: embed, assemble, test, publish. Resumes by default; never harms the index that is there."""

import errno
import logging
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from fgclep.datasets import Dataset, open_for_rate
from fgclep.errors import DataError, FgclepError, InterruptedWork, TooManyRejectsError
from indexer.assemble import assemble
from indexer.embed import Embedder, EmbedOptions, Tally, embed_dataset, load_embedder, total_records
from indexer.home import VERSIONS, index_dir
from indexer.manifest import Counts, DatasetRef
from indexer.publish import become_default, build_lock, point_to, publish
from indexer.staging import Staging

_MISSING_BYTES = 60
_EMPTY_BYTES = 500_000
SHARD_SIZE = 2048
MAX_REJECT_RATE = 0.2
_ROW_BYTES = 3000  # of one record in the staged rows, the store and its full-text index together; measured generously

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildPlan:
    """A build that was checked and can run: what will be read, by which model, into which index."""

    dataset: Dataset
    embedder: Embedder
    name: str
    home: Path
    embed: EmbedOptions
    max_reject_rate: float
    resume: bool

    @property
    def directory(self) -> Path:
        """The index's directory."""
        return index_dir(self.home, self.name)

    @property
    def staging(self) -> Staging:
        """Where the build keeps finished shards."""
        return Staging(self.directory / "staging")

    @property
    def continues(self) -> bool:
        """Tell whether an unfinished build is there to go on with."""
        return self.resume and self.staging.unfinished

    @property
    def total(self) -> int:
        """Records that will be read."""
        return total_records(self.dataset, self.embed.limit)

    @property
    def disk_bytes(self) -> int:
        """Space the build still needs at most: shards, joined vectors and the derived index, and the rows."""
        width = self.embedder.model.dim * (2 if self.embed.dtype == "float16" else 4)
        whole = self.total * (3 * width + _ROW_BYTES) + _MISSING_BYTES * len(self.dataset.missing) + _EMPTY_BYTES
        return max(0, whole - self.staging.size_bytes())

    def identity(self) -> dict[str, Any]:
        """Return everything that decides the vectors: an unfinished build is only continued with the same."""
        return {
            "data": str(Path(self.dataset.root).resolve()),
            "kind": self.dataset.kind,
            "fs_hz": self.dataset.fs_hz,
            "model": self.embedder.model.fingerprint,
            "dtype": self.embed.dtype,
            "limit": self.embed.limit,
            "batch_size": self.embed.batch_size,
            "shard_size": self.embed.shard_size,
        }


def build_index(
    data: Path,
    name: str,
    *,
    home: Path,
    model: str | None = None,
    workers: int = 2,
    batch_size: int = 64,
    dtype: str = "float32",
    limit: int | None = None,
    resume: bool = True,
    progress: Callable[[Tally], None] | None = None,
    max_reject_rate: float = MAX_REJECT_RATE,
) -> Path:
    """Build and publish an index of a data set.

    Args:
        data: a tree that `fgclep.datasets.open_dataset` recognises.
        name: of the index; an existing one gets a new version.
        home: the directory of settings and indexes.
        model: name or path of a bundle; None means the shipped one.
        workers: processes that read records; 0 reads in this one.
        batch_size: records per call of the model.
        dtype: `float32` or `float16`, of the stored vectors.
        limit: read only the first so many records.
        resume: go on with an unfinished build; False discards it.
        progress: called after every batch.
        max_reject_rate: more rejects than this share of the records read, and nothing is published.

    Returns:
        The published version's directory.

    Raises:
        NotSetUpError: if the data or the model does not exist.
        UsageError: if the name is none, or an unfinished build has other settings.
        DataError: if there is nothing to index.
        TooManyRejectsError: if too many records were rejected.
        InterruptedWork: if Ctrl-C was pressed; everything finished is kept.
        FgclepError: if the disk is full or another process builds this index.
    """
    plan = plan_build(
        open_for_model(data, embedder := load_embedder(model)),
        embedder,
        name,
        home=home,
        workers=workers,
        batch_size=batch_size,
        dtype=dtype,
        limit=limit,
        resume=resume,
        max_reject_rate=max_reject_rate,
    )
    return run_build(plan, progress)


def open_for_model(data: Path, embedder: Embedder) -> Dataset:
    """Open a data set at the rate that suits a model: the lowest one that loses nothing, else the highest."""
    return open_for_rate(data, embedder.processor.fs_hz)


def plan_build(
    dataset: Dataset,
    embedder: Embedder,
    name: str,
    *,
    home: Path,
    workers: int = 2,
    batch_size: int = 64,
    dtype: str = "float32",
    limit: int | None = None,
    resume: bool = True,
    max_reject_rate: float = MAX_REJECT_RATE,
    shard_size: int = SHARD_SIZE,
) -> BuildPlan:
    """Check what a build needs before it starts; arguments as in `build_index`. Writes nothing."""
    embed = EmbedOptions(shard_size, batch_size, dtype, limit, workers)
    plan = BuildPlan(dataset, embedder, name, home, embed, max_reject_rate, resume)
    if plan.total == 0:
        raise DataError(
            f"{dataset.root} ({dataset.kind}) has no record to index: {dataset.listed} are listed, the files of "
            f"{len(dataset.missing)} are missing.",
            f"fgclep data scan {dataset.root}",
        )
    existing = next(path for path in (plan.directory, *plan.directory.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < plan.disk_bytes:
        needed, there = f"{plan.disk_bytes / 1e6:,.0f} MB", f"{free / 1e6:,.0f} MB"
        raise FgclepError(
            f"Building {name} needs about {needed} in {existing}; {there} are free.",
            "Free some space, choose another FGCLEP_HOME, or use --dtype fp16.",
        )
    return plan


def run_build(plan: BuildPlan, progress: Callable[[Tally], None] | None = None) -> Path:
    """Run a planned build and publish it; see `build_index` for the errors.

    Returns:
        The published version's directory.
    """
    staging = plan.staging
    again = "Repeat the same command to go on from the finished shards."
    try:
        with build_lock(plan.directory):
            now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
            version = staging.prepare(
                plan.identity(), f"{now}-{plan.embedder.model.fingerprint[:8]}", resume=plan.resume
            )
            published = plan.directory / VERSIONS / version
            if published.is_dir():  # killed between the two renames of publishing
                point_to(plan.directory, version)
            else:
                published = _build_version(plan, staging, version, progress or (lambda tally: None))
            become_default(plan.home, plan.name)
            staging.discard()
            return published
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise FgclepError(
            f"The disk is full: {plan.directory} could not be written ({error}). The index was not changed.",
            f"Free about {plan.disk_bytes / 1e6:,.0f} MB. {again}",
        ) from error
    except KeyboardInterrupt as error:
        raise InterruptedWork(f"Building {plan.name} was stopped at once.", again) from error


def _build_version(plan: BuildPlan, staging: Staging, version: str, progress: Callable[[Tally], None]) -> Path:
    with _first_interrupt_sets_flag() as stop:
        tally = embed_dataset(plan.dataset, plan.embedder, staging, plan.embed, progress, stop.is_set)
    if tally.done < tally.total and stop.is_set():
        raise InterruptedWork(
            f"Building {plan.name} was interrupted; {tally.done:,} of {tally.total:,} records are finished and kept.",
            "Repeat the same command to go on.",
        )
    counts = _counts(plan, tally)
    _check_rejects(plan, counts)
    directory = assemble(
        staging,
        tally.shards,
        name=plan.name,
        version=version,
        model=plan.embedder.model,
        dataset=DatasetRef(plan.dataset.kind, plan.dataset.name, plan.identity()["data"], plan.dataset.fs_hz),
        counts=counts,
        dtype=plan.embed.dtype,
        missing=plan.dataset.missing,
        options={**asdict(plan.embed), "max_reject_rate": plan.max_reject_rate},
        calibration=plan.embedder.calibration,
    )
    return publish(directory, plan.directory, version)


def _counts(plan: BuildPlan, tally: Tally) -> Counts:
    dataset = plan.dataset
    present = dataset.listed - len(dataset.missing)
    counts = Counts(
        listed=dataset.listed,
        missing=len(dataset.missing),
        beyond_limit=present - plan.total,
        read=tally.done,
        indexed=tally.indexed,
        rejected=tally.rejected,
        rejected_by_reason=dict(sorted(tally.rejected_by_reason.items())),
    )
    if problem := counts.problem():
        raise DataError(
            f"{dataset.root} gave other records than it lists: {problem}.", f"fgclep data scan {dataset.root}"
        )
    return counts


def _check_rejects(plan: BuildPlan, counts: Counts) -> None:
    reasons = ", ".join(f"{reason} {number:,}" for reason, number in counts.rejected_by_reason.items())
    if counts.rejected > plan.max_reject_rate * counts.read:
        raise TooManyRejectsError(
            f"{counts.rejected:,} of {counts.read:,} records were rejected ({reasons}); at most "
            f"{plan.max_reject_rate:.0%} are allowed, so nothing was published.",
            f"See why with `fgclep data scan {plan.dataset.root}`. Once the files are mended, add --restart; if they "
            f"may be left out, add --max-reject-rate {min(1.0, counts.rejected / counts.read + 0.01):.2f}.",
        )
    if counts.indexed == 0:
        raise DataError(
            f"No record of {plan.dataset.root} could be used: {reasons}. Nothing was published.",
            f"See why with `fgclep data scan {plan.dataset.root}`. Once the files are mended, add --restart.",
        )


@contextmanager
def _first_interrupt_sets_flag() -> Iterator[threading.Event]:
    """Let the first Ctrl-C finish the shard and the second one stop at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        logger.warning("Stopping after this shard; press Ctrl-C again to stop at once.")

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
