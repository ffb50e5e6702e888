"""The record of a run, step by step: JSON lines, and TensorBoard where it is installed."""

import json
import os
from pathlib import Path
from typing import Any

from fgclep.errors import CorruptionError


class StepLog:
    """Appends rows to a file; rows after the step that a run goes on from are dropped, for they come again.

    Args:
        folder: of the run; rows go to steps.jsonl, TensorBoard's files to tensorboard/.
        steps_done: steps that the run goes on from.
    """

    def __init__(self, folder: Path, steps_done: int) -> None:
        self.path = folder / "steps.jsonl"
        self._keep(steps_done)
        self._file = self.path.open("a", encoding="utf-8")
        self._board = _open_board(folder / "tensorboard", steps_done)

    def _keep(self, steps_done: int) -> None:
        if not self.path.is_file():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines(keepends=True):
            try:
                if json.loads(line)["step"] > steps_done:
                    break
            except (ValueError, KeyError, TypeError) as error:
                if not line.endswith("\n"):
                    break  # a run that died while writing
                raise CorruptionError(f"{self.path} holds a line that is no step: {line[:60]!r}.") from error
            kept.append(line)
        part = self.path.with_suffix(".part")
        part.write_text("".join(kept), encoding="utf-8")
        os.replace(part, self.path)

    def add(self, step: int, values: dict[str, float]) -> None:
        """Write one row of numbers."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def _open_board(folder: Path, steps_done: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # the extra `train` brings it
        return None
    return SummaryWriter(str(folder), purge_step=steps_done + 1)
