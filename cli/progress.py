"""Show how far a long run is: a bar on a terminal, else a line every half minute, always on stderr."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

_SECONDS_BETWEEN_LINES = 30.0

logger = logging.getLogger(__name__)


class Counts(Protocol):
    """What a run tells after each step; `resumed` of the `done` records were finished in an earlier run."""

    @property
    def total(self) -> int: ...  # noqa: D102

    @property
    def done(self) -> int: ...  # noqa: D102

    @property
    def resumed(self) -> int: ...  # noqa: D102

    @property
    def rejected(self) -> int: ...  # noqa: D102


@contextmanager
def record_progress(what: str) -> Iterator[Callable[[Counts], None]]:
    """Give a function to call with the counts so far.

    Args:
        what: shown before the bar or line.
    """
    if not logger.isEnabledFor(logging.WARNING):  # -q
        yield lambda counts: None
    elif sys.stderr.isatty():
        with _bar(what) as update:
            yield update
    else:
        yield _Lines(what)


@contextmanager
def _bar(what: str) -> Iterator[Callable[[Counts], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[rejects]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=None, rate="", rejects="")
        started = time.monotonic()

        def update(counts: Counts) -> None:
            rate = _rate(counts, started)
            progress.update(
                task,
                total=counts.total,
                completed=counts.done,
                rate=f"{rate:,.0f}/s",
                rejects=f"{counts.rejected:,} rejected",
            )

        yield update


class _Lines:
    """Prints a line now and then; for logs and pipes."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._started = self._said = time.monotonic()

    def __call__(self, counts: Counts) -> None:
        now = time.monotonic()
        if now - self._said < _SECONDS_BETWEEN_LINES:
            return
        self._said = now
        rate = _rate(counts, self._started)
        left = timedelta(seconds=round((counts.total - counts.done) / rate)) if rate else "unknown"
        print(
            f"{self._what}: {counts.done:,} of {counts.total:,}, {rate:,.0f}/s, {left} left, "
            f"{counts.rejected:,} rejected",
            file=sys.stderr,
        )


def _rate(counts: Counts, started: float) -> float:
    """Return records per second of this run; what was resumed took no time in it."""
    return (counts.done - counts.resumed) / max(time.monotonic() - started, 1e-6)
