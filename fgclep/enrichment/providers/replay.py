"""Recorded answers, given again under the identity they were recorded with."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fgclep.enrichment.providers.base import Reply, RunIdentity, Sampling
from fgclep.errors import DataError, NotSetUpError


class Replay:
    """Answers from a JSONL file that `fgclep enrich export --answers` wrote.

    Its first line is the run's `prompt`, `model` and `sampling`; each further line holds `report`, `answer` and, where
    known, `prompt_tokens`, `output_tokens` and `cut`.

    Raises:
        NotSetUpError: if there is no such file.
        DataError: if a line is not what it should be.
    """

    slice_size = 5000
    failure = "not among the recorded answers"

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise NotSetUpError(
                f"{path} does not exist; expected recorded answers.", "fgclep enrich export OUT --answers"
            )
        self._path = path
        self._replies: dict[str, Reply] = {}
        with path.open(encoding="utf-8") as lines:
            self.identity = self._identity(self._parse(1, next(lines, "")))
            for number, line in enumerate(lines, start=2):
                self._add(number, self._parse(number, line))

    def answer(self, reports: Sequence[str]) -> list[Reply | None]:
        """Return what was recorded for each report; None where nothing was."""
        return [self._replies.get(report) for report in reports]

    def _parse(self, number: int, line: str) -> dict[str, Any]:
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise self._error(number, line, "a JSON object")
        return value

    def _identity(self, head: dict[str, Any]) -> RunIdentity:
        try:
            sampling = None if head["sampling"] is None else Sampling(**head["sampling"])
            return RunIdentity(str(head["prompt"]), str(head["model"]), sampling)
        except (KeyError, TypeError):
            raise self._error(1, json.dumps(head), "the keys prompt, model and sampling") from None

    def _add(self, number: int, row: dict[str, Any]) -> None:
        try:
            report, text = row["report"], row["answer"]
            counts = int(row.get("prompt_tokens", 0)), int(row.get("output_tokens", 0))
        except (KeyError, TypeError, ValueError):
            raise self._error(number, json.dumps(row), "the keys report and answer") from None
        self._replies[str(report)] = Reply(str(text), *counts, cut=bool(row.get("cut", False)))

    def _error(self, number: int, found: str, expected: str) -> DataError:
        return DataError(f"{self._path}, line {number}: found {found[:60]!r}; expected {expected}.", "Record it again.")
