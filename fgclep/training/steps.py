"""What the phases and steps of training share: one optimiser step, states on disk, rows by finding."""

import os
from collections.abc import Sequence
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


def optimizer_step(
    loss: Tensor,
    optimizer: torch.optim.Optimizer,
    learned: Sequence[Tensor],
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> None:
    """Take one step down the gradient of a loss, clipped to norm 1.

    Raises:
        FgclepError: if the loss or its gradient is no number; no weight was changed.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = float(torch.nn.utils.clip_grad_norm_(learned, 1.0))
    value = float(loss.detach())
    if not isfinite(value) or not isfinite(norm):
        raise FgclepError(
            f"step {schedule.last_epoch + 1} of this phase: the loss is {value} and the gradient's length {norm}; "
            "training stopped, the checkpoint of an earlier step is kept.",
            "Lower the learning rate and choose a new --out.",
        )
    optimizer.step()
    schedule.step()


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
