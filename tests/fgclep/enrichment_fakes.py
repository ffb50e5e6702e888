"""Providers for tests, and a process that kills itself in the middle of a run."""

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from fgclep.enrichment.providers.base import Reply, RunIdentity, Sampling
from fgclep.enrichment.run import run_enrichment
from fgclep.enrichment.store import EnrichmentStore
from fgclep.reports import report_hash

TEXTS = {report_hash(text): text for text in (f"report number {n}" for n in range(40))}


class FakeProvider:
    """Answers with features made from the report's own words, and remembers what it was asked."""

    slice_size = 8
    failure = "no reply"

    def __init__(self, model: str = "fake", sampling: Sampling | None = None) -> None:
        self.identity = RunIdentity("features-1", model, sampling or Sampling())
        self.asked: list[str] = []

    def answer(self, reports: Sequence[str]) -> list[Reply | None]:
        self.asked += reports
        return [self.reply(report) for report in reports]

    def reply(self, report: str) -> Reply | None:
        return Reply(json.dumps({"features": [f"wave of {report}", "wide QRS"]}), 10, 5)


class DeadlyProvider(FakeProvider):
    """Kills its process without warning when it is asked for the n-th slice."""

    def __init__(self, slices: int) -> None:
        super().__init__()
        self.slices = slices

    def answer(self, reports: Sequence[str]) -> list[Reply | None]:
        self.slices -= 1
        if not self.slices:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().answer(reports)


def run_and_die(path: Path, slices: int, when: str) -> None:
    """Run until the fatal moment: `asking` for a slice, or `storing` it."""
    store = EnrichmentStore(path, create=True)
    if when == "asking":
        run_enrichment(store, TEXTS, DeadlyProvider(slices))
    original, calls = store.add_answers, []

    def deadly(run_id, rows):
        calls.append(rows)
        if len(calls) == slices:
            store.add_answers = original  # the rows reach SQLite, their transaction's end does not
            from sqlalchemy import event

            event.listen(store._engine, "commit", lambda connection: os.kill(os.getpid(), signal.SIGKILL))
        original(run_id, rows)

    store.add_answers = deadly
    run_enrichment(store, TEXTS, FakeProvider())
