"""What the phases and steps of training share: one optimiser step, states on disk, rows by finding."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fgclep.errors import CorruptionError, FgclepError
from fgclep.training.labels import finding_ids
from fgclep.training.training_set import TrainingSet


def autocast_pays(device: torch.device) -> bool:
    """Tell whether bfloat16 is faster here: on CUDA, and on CPUs that compute in it."""
    return device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()


@dataclass(frozen=True)
class Phase:
    """What an error in one of a phase's steps tells.

    Attributes:
        name: of the phase.
        checkpoint: its file, whether it exists yet or not.
        record_ids: of all training records, by row.
        size: the setting that decides how much memory a step takes, such as `batch_size 128`.
        smaller: the option for half of that; empty where there is none.
    """

    name: str
    checkpoint: Path
    record_ids: Sequence[str]
    size: str
    smaller: str

    def number_error(self, step: int, loss: float, norm: float, rows: NDArray[np.intp]) -> FgclepError:
        """Make the error of a loss, or of a gradient's length, that is no number."""
        records = ", ".join(self.record_ids[row] for row in rows)
        return FgclepError(
            f"step {step} of {self.name}: the loss is {loss} and the gradient's length {norm}; training stopped, "
            f"{self._kept()}. The step's records: {records}.",
            "Look at these records, or lower the learning rate and choose a new --out.",
        )

    def memory_error(self, step: int) -> FgclepError:
        """Make the error of a step that takes more memory than there is."""
        return FgclepError(
            f"step {step} of {self.name}: out of memory with {self.size}; {self._kept()}.",
            f"{self.smaller} and a new --out" if self.smaller else "Close other programs, or use a larger machine.",
        )

    def _kept(self) -> str:
        kept = f"the checkpoint {self.checkpoint} is kept"
        return kept if self.checkpoint.is_file() else "no checkpoint exists yet"


def optimizer_step(
    compute: Callable[[], tuple[Tensor, NDArray[np.intp]]],
    optimizer: torch.optim.Optimizer,
    learned: Sequence[Tensor],
    schedule: torch.optim.lr_scheduler.LRScheduler,
    phase: Phase,
) -> float:
    """Take one step down the gradient of a loss, clipped to norm 1.

    Args:
        compute: returns the loss and the training rows it is of.
        optimizer, learned, schedule: of the phase.
        phase: what an error names.

    Returns:
        The loss.

    Raises:
        FgclepError: if the loss or its gradient is no number, or memory runs out; no weight was changed.
    """
    number = schedule.last_epoch + 1
    try:
        loss, rows = compute()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(learned, 1.0))
        value = float(loss.detach())
        if not isfinite(value) or not isfinite(norm):
            raise phase.number_error(number, value, norm, rows)
        optimizer.step()
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise phase.memory_error(number) from error
    schedule.step()
    return value


def out_of_memory(error: Exception) -> bool:
    """Tell whether an error says that a device or this machine has no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint; a run that dies meanwhile leaves the old one.

    Raises:
        FgclepError: if it cannot be written, such as on a full disk; the old one stays.
    """
    part = path.with_suffix(".part")
    try:
        with part.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # torch wraps some failures to write
        part.unlink(missing_ok=True)
        kept = "the one before it is kept" if path.is_file() else "there was none before it"
        reason = next((line for line in str(error).splitlines() if line), type(error).__name__)
        raise FgclepError(
            f"the checkpoint {path} cannot be written ({reason}); {kept}.",
            "Free some disk, then repeat the command to go on.",
        ) from error


def read_state(path: Path) -> dict[str, Any]:
    """Read a checkpoint of `save_state`, onto the CPU.

    Raises:
        CorruptionError: if it cannot be read.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the unpickler stumbles on in damaged bytes
        reason = next((line for line in str(error).splitlines() if line), type(error).__name__)
        message = f"{path} is not a readable checkpoint ({reason})."
        raise CorruptionError(message, "Remove it to begin again.") from error
    return state


def rows_by_finding(data: TrainingSet) -> dict[str, NDArray[np.intp]]:
    """Return the rows that show each finding, of real records where any of them shows it; findings of none left out."""
    real = len(data.waveforms[0])
    found = {}
    for key, column in zip(finding_ids(), data.labels.T, strict=True):
        rows = np.flatnonzero(column == 1)
        if len(rows):
            found[key] = rows[rows < real] if rows[0] < real else rows
    return found
