"""Build an index: embed, assemble, test, publish. Resumes by default; never harms the index that is there."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

from fgclep.datasets import Dataset, open_for_rate
from fgclep.errors import DataError, InterruptedWork, TooManyRejectsError
from indexer.assemble import Content, assemble
from indexer.embed import Embedder, Listing, Tally, embed_records
from indexer.home import VERSIONS, index_dir
from indexer.manifest import Counts
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
from indexer.publish import (
    become_default,
    build_lock,
    clear_write_errors,
    is_current,
    new_version_id,
    point_to,
    publish,
)
from indexer.sources import Sources
from indexer.staging import Staging
from indexer.store import write_store

_MISSING_BYTES = 60

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildPlan(Plan):
    """A build of a whole data set."""

    dataset: Dataset

    @property
    def listing(self) -> Listing:
        """The first records of the data set, or all; their keys count them."""
        present = self.dataset.listed - len(self.dataset.missing)
        limit = self.embed.limit
        total = present if limit is None else min(limit, present)
        return Listing(total, lambda: enumerate(islice(self.dataset.iter_infos(), limit)), Sources((self.dataset,)))

    @property
    def roots(self) -> str:
        """The data set's folder."""
        return str(self.dataset.root)

    def whole_bytes(self) -> int:
        """Return the space of shards, joined vectors and the derived index, and the rows."""
        missing = _MISSING_BYTES * len(self.dataset.missing)
        return self.total * (3 * self.vector_bytes + ROW_BYTES) + missing + EMPTY_BYTES

    def identity(self) -> dict[str, Any]:
        """Return data, model and grouping."""
        return {
            "data": str(Path(self.dataset.root).resolve()),
            "kind": self.dataset.kind,
            "fs_hz": self.dataset.fs_hz,
            "model": self.embedder.model.fingerprint,
            "dtype": self.embed.dtype,
            "limit": self.embed.limit,
            "batch_size": self.embed.batch_size,
            "shard_size": self.embed.shard_size,
            "base": None,  # what is added to or rebuilt from another version names it here
        }

    def check_base(self) -> None:
        """Start from nothing, so that nothing can have changed."""

    def content(self, staging: Staging, tally: Tally) -> Content:
        """Describe the version that holds every record of the data set."""
        counts = self._counts(tally)

        def write(path: Path) -> Counts:
            records, rejects = (staging.iter_rows(tally.shards, kind) for kind in ("record", "reject"))
            write_store(path, records, rejects, self.dataset.missing)
            return counts

        return Content(
            vectors=map(staging.vectors, range(tally.shards)),
            keys=map(staging.keys, range(tally.shards)),
            write_store=write,
            dataset=dataset_ref(self.dataset),
            options=self.options,
        )

    def _counts(self, tally: Tally) -> Counts:
        dataset = self.dataset
        counts = Counts(
            listed=dataset.listed,
            missing=len(dataset.missing),
            beyond_limit=dataset.listed - len(dataset.missing) - self.total,
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


def open_for_model(data: Path, embedder: Embedder) -> Dataset:
    """Open a data set at the rate that suits a model: the lowest one that loses nothing, else the highest."""
    return open_for_rate(data, embedder.processor.fs_hz)


def plan_build(
    dataset: Dataset,
    embedder: Embedder,
    name: str,
    *,
    home: Path,
    workers: int | None = None,
    batch_size: int | None = None,
    dtype: str = "float32",
    limit: int | None = None,
    resume: bool = True,
    max_reject_rate: float = MAX_REJECT_RATE,
    shard_size: int = SHARD_SIZE,
) -> BuildPlan:
    """Check what a build needs before it starts. Writes nothing.

    Args:
        dataset: opened at the rate that suits the model; see `open_for_model`.
        embedder: the model.
        name: of the index; an existing one gets a new version.
        home: the directory of settings and indexes.
        workers: processes that read records, and encode them too on a CPU; 0 works in this one; None suits the machine.
        batch_size: records that are read and encoded together; None suits the device.
        dtype: `float32`, `float16` or `int8`, of the stored vectors; see `indexer.manifest.STORED`.
        limit: read only the first so many records.
        resume: go on with an unfinished build; False discards it.
        max_reject_rate: more rejects than this share of the records read, and nothing is published.
        shard_size: records that are finished together; an interrupted build keeps whole groups of them.

    Raises:
        UsageError: if the name is none.
        DataError: if there is nothing to index, or an id is listed twice.
        FgclepError: if there is too little space.
    """
    embed = embed_options(
        embedder,
        index_dir(home, name),
        dataset.listed - len(dataset.missing),
        shard_size=shard_size,
        batch_size=batch_size,
        dtype=dtype,
        limit=limit,
        workers=workers,
        resume=resume,
    )
    plan = BuildPlan(embedder, name, home, embed, max_reject_rate, resume, True, dataset)
    if plan.total == 0:
        raise DataError(
            f"{dataset.root} ({dataset.kind}) has no record to index: {dataset.listed} are listed, the files of "
            f"{len(dataset.missing)} are missing.",
            f"fgclep data scan {dataset.root}",
        )
    check_space(plan)
    check_unique(dataset)
    return plan


def run_build(plan: Plan, progress: Callable[[Tally], None] | None = None) -> Path:
    """Carry a plan out and publish its version.

    Args:
        plan: of a build, an addition or a rebuild.
        progress: called after every batch.

    Returns:
        The published version's directory.

    Raises:
        UsageError: if an unfinished run has other settings.
        DataError: if the data changed meanwhile, or gives nothing to index.
        TooManyRejectsError: if too many records were rejected.
        InterruptedWork: if Ctrl-C was pressed; everything finished is kept.
        FgclepError: if the disk is full or another process builds this index.
    """
    staging = plan.staging
    again = "Repeat the same command to go on from the finished shards."
    try:
        with (
            clear_write_errors(plan.directory, f"Free about {plan.disk_bytes / 1e6:,.0f} MB. {again}"),
            build_lock(plan.directory),
        ):
            version = _start(plan, staging)
            published = plan.directory / VERSIONS / version
            if not published.is_dir():
                directory = _embed_and_assemble(plan, staging, version, progress or (lambda tally: None))
                publish(directory, plan.directory, version, activate=plan.activates)
            elif plan.activates:
                point_to(plan.directory, version)
            become_default(plan.home, plan.name)
            staging.discard()
            return published
    except KeyboardInterrupt as error:
        raise InterruptedWork(f"Building {plan.name} was stopped at once.", again) from error


def _start(plan: Plan, staging: Staging) -> str:
    """Prepare the staging directory; return the version's name, which exists if a killed run had only to clean up."""
    identity = {**plan.identity(), "arithmetic": plan.embedder.arithmetic}
    finished = str(staging.planned("version"))
    if (plan.directory / VERSIONS / finished).is_dir():
        # Once it is searched, a run over more or fewer records is another one: the data changed since.
        changed = is_current(plan.directory, finished) and staging.covered() != plan.total
        if plan.resume and not changed and not staging.differences(identity):
            return finished
        staging.discard()
    plan.check_base()
    return staging.prepare(identity, new_version_id(plan.embedder.model.fingerprint), resume=plan.resume)


def _embed_and_assemble(plan: Plan, staging: Staging, version: str, progress: Callable[[Tally], None]) -> Path:
    with _first_interrupt_sets_flag() as stop:
        tally = embed_records(plan.listing, plan.embedder, staging, plan.embed, progress, stop.is_set)
    if tally.done < tally.total and stop.is_set():
        raise InterruptedWork(
            f"Building {plan.name} was interrupted; {tally.done:,} of {tally.total:,} records are finished and kept.",
            "Repeat the same command to go on.",
        )
    content = plan.content(staging, tally)
    _check_rejects(plan, staging, tally)
    return assemble(
        staging.version_dir,
        content,
        name=plan.name,
        version=version,
        model=plan.embedder.model,
        dtype=plan.embed.dtype,
        calibration=plan.embedder.calibration,
    )


def _check_rejects(plan: Plan, staging: Staging, tally: Tally) -> None:
    judged = plan.judged(staging, tally)
    if judged.rejected > plan.max_reject_rate * judged.done:
        raise TooManyRejectsError(
            f"{judged.rejected:,} of {judged.done:,} records were rejected ({_reasons(judged)}); at most "
            f"{plan.max_reject_rate:.0%} are allowed, so nothing was published.",
            f"See why with `fgclep data scan {plan.roots}`. Once the files are mended, add --restart; if they "
            f"may be left out, add --max-reject-rate {min(1.0, judged.rejected / judged.done + 0.01):.2f}.",
        )
    if tally.indexed == 0 and judged.done == 0:
        staging.discard()  # nothing is left to go on with, and the next command may be another one
        raise DataError(
            f"{plan.roots} has nothing new for index {plan.name}: {tally.done:,} records that were rejected before "
            f"were tried again and rejected again ({_reasons(tally)}).",
            f"fgclep index info {plan.name} --rejects",
        )
    if tally.indexed == 0:
        raise DataError(
            f"No record of {plan.roots} could be used: {_reasons(tally)}. Nothing was published.",
            f"See why with `fgclep data scan {plan.roots}`. Once the files are mended, add --restart.",
        )


def _reasons(tally: Tally) -> str:
    return ", ".join(f"{reason} {number:,}" for reason, number in sorted(tally.rejected_by_reason.items()))


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
