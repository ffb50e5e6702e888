"""Checkpoints of other projects: read without running code that they may carry, loaded strictly, identified by hash."""

import hashlib
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgclep.errors import CompatibilityError, CorruptionError, NotSetUpError

if TYPE_CHECKING:
    import torch


def read_checkpoint(path: Path, model: str) -> dict[str, Any]:
    """Read a checkpoint with PyTorch's restricted reader (`weights_only`).

    Args:
        path: the file.
        model: whose it should be, for messages.

    Raises:
        NotSetUpError: if the file does not exist.
        CorruptionError: if it is damaged or no PyTorch file.
        CompatibilityError: if it holds more than tensors and plain values, or no dictionary.
    """
    import torch

    if not path.is_file():
        raise NotSetUpError(f"the {model} checkpoint {path} does not exist.", "Give the path of the downloaded file.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CompatibilityError(
            f"{path} holds more than tensors and plain values, or is no PyTorch file; reading it could run its code: "
            f"{str(error).splitlines()[0]}",
            "With the authors' own code, save its state_dict alone to another file, and give that one.",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CorruptionError(
            f"{path} is not a readable PyTorch file: {str(error).splitlines()[0] if str(error) else 'it ends early'}",
            "Download it again.",
        ) from error
    if not isinstance(content, dict):
        raise CompatibilityError(f"{path} holds a {type(content).__name__}; a {model} checkpoint is a dictionary.")
    return content


def load_strictly(module: "torch.nn.Module", state: "dict[str, torch.Tensor]", path: Path, model: str) -> None:
    """Load weights, all of them and nothing else.

    Raises:
        CompatibilityError: naming the first entry that is missing, unknown or of another shape.
    """
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        complaint = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise CompatibilityError(
            f"{path} is not of the published {model} layout: {complaint[:300]}",
            "Give the checkpoint as it was released.",
        ) from error


def fingerprint_file(path: Path, *also: str) -> str:
    """Return 16 hex digits of a file's content and of whatever else decides the vectors."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    for text in also:
        digest.update(text.encode())
    return digest.hexdigest()[:16]
