"""Model bundles: where they are, what they are (fingerprint), loading and saving.

A bundle is a directory: `config.json`, `model.safetensors`, tokenizer files, `preprocessor_config.json`,
`calibration.json` and `README.md` (the model card).
"""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fgclep.durable import sync_directory
from fgclep.errors import CompatibilityError, CorruptionError, FgclepError, NotSetUpError
from fgclep.preprocessing import EcgProcessor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from fgclep.models.dual_encoder import FGCLEPModel

SHIPPED_MODEL = "small"
_SHIPPED = Path(__file__).parent / "bundles"
WEIGHTS_NAME = "model.safetensors"
CALIBRATION_NAME = "calibration.json"
_FINGERPRINTED = ("config.json", WEIGHTS_NAME, "preprocessor_config.json", "tokenizer.json")


@dataclass(frozen=True)
class Calibration:
    """Platt scaling: score = sigmoid(slope * similarity + offset).

    Attributes:
        prevalence: share of ECGs that have the finding, which scores are probabilities for; None in bundles whose curve
            was fitted to all validation pairs as they came.
    """

    slope: float
    offset: float
    prevalence: float | None = None

    def score(self, similarity: NDArray[np.floating]) -> NDArray[np.float32]:
        """Map cosines to the estimated probability that the finding is present."""
        probability = 1 / (1 + np.exp(-(self.slope * np.asarray(similarity, np.float64) + self.offset)))
        return probability.astype(np.float32)


def shipped_models() -> list[str]:
    """Return the names of the bundles inside the package."""
    return sorted(path.name for path in _SHIPPED.glob("*") if (path / "config.json").is_file())


def resolve_model(name_or_path: str | Path | None) -> Path:
    """Return the directory of a bundle: None is the shipped one, otherwise a shipped name or a path.

    Raises:
        NotSetUpError: if there is no such bundle.
    """
    name = str(name_or_path) if name_or_path is not None else SHIPPED_MODEL
    shipped = _SHIPPED / name
    if name in shipped_models():
        return shipped
    path = Path(name).expanduser()
    if (path / "config.json").is_file():
        return path.resolve()
    raise NotSetUpError(
        f"no model bundle {name!r}: it is neither one of the shipped bundles ({', '.join(shipped_models()) or 'none'}) "
        f"nor a directory with a config.json.",
        "fgclep model list",
    )


def bundle_fingerprint(path: Path) -> str:
    """Return 16 hex digits that change with weights, configuration, tokenizer or preprocessing.

    Raises:
        CorruptionError: if a file of the bundle is missing.
    """
    digest = hashlib.sha256()
    for name in _FINGERPRINTED:
        file = Path(path) / name
        if not file.is_file():
            raise CorruptionError(f"the model bundle {path} lacks {name}.", "copy or train the bundle again.")
        with file.open("rb") as stream:
            digest.update(name.encode() + hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def load_model(path: str | Path, device: str = "cpu") -> "FGCLEPModel":
    """Load a bundle in evaluation mode with its tokenizer, weights in float32.

    Raises:
        CorruptionError: if a file is missing or unreadable.
        CompatibilityError: if the directory holds another kind of model.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import PreTrainedTokenizerFast
    from transformers.utils.logging import disable_progress_bar

    from fgclep.models.dual_encoder import FGCLEPModel

    disable_progress_bar()
    path = Path(path)
    bundle_fingerprint(path)
    try:
        model_type = json.loads((path / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise CorruptionError(f"{path / 'config.json'} is not a readable JSON object: {error}.") from error
    if model_type != "fgclep":
        raise CompatibilityError(f"{path} holds a {model_type!r} model; expected an fgclep bundle.")
    try:
        model, loaded = FGCLEPModel.from_pretrained(
            path, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
        model.tokenizer = PreTrainedTokenizerFast.from_pretrained(path, local_files_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise CorruptionError(f"the model bundle {path} cannot be loaded: {error}") from error
    strange = sorted({*loaded["missing_keys"], *loaded["unexpected_keys"]})
    if strange:  # transformers would only warn, and go on with random weights
        raise CorruptionError(
            f"{path / WEIGHTS_NAME} does not hold the weights of its config.json; {len(strange)} are missing or "
            f"unknown, such as {strange[0]}.",
            "copy or train the bundle again.",
        )
    model.eval()
    return model.to(device)  # type: ignore[no-any-return]


def save_bundle(
    path: Path,
    model: "FGCLEPModel",
    tokenizer: "PreTrainedTokenizerBase",
    processor: EcgProcessor,
    calibration: Calibration,
    card: str,
    half: bool = True,
) -> None:
    """Write a complete bundle, in place of one that is there already only once it is whole.

    Args:
        path: the bundle's directory.
        model, tokenizer, processor, calibration: its parts.
        card: its README.
        half: store the weights in float16 (loading widens them again).

    Raises:
        FgclepError: if it cannot be written, such as on a full disk; what was there is kept.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    part, old = (path.with_name(f".{path.name}.{suffix}") for suffix in ("part", "old"))
    state = {
        name: tensor.detach()
        .to("cpu", torch.float16 if half and tensor.is_floating_point() else tensor.dtype)
        .contiguous()
        for name, tensor in model.state_dict().items()
    }
    model.config.architectures = ["FGCLEPModel"]
    try:
        for leftover in (part, old):
            shutil.rmtree(leftover, ignore_errors=True)
        part.mkdir(parents=True)
        save_file(state, part / WEIGHTS_NAME, metadata={"format": "pt"})
        for piece in (model.config, tokenizer, processor):
            piece.save_pretrained(part)
        (part / CALIBRATION_NAME).write_text(json.dumps(asdict(calibration), indent=2) + "\n", encoding="utf-8")
        (part / "README.md").write_text(card, encoding="utf-8")
        for file in part.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        if path.exists():
            path.rename(old)
        part.rename(path)
        sync_directory(path.parent)
    except (OSError, SafetensorError) as error:
        kept = "what was there is kept" if path.exists() else "there was none before"
        raise FgclepError(
            f"the model bundle {path} cannot be written ({error}); {kept}.",
            "Free some disk, then repeat the command to go on.",
        ) from error
    finally:
        for leftover in (part, old):
            shutil.rmtree(leftover, ignore_errors=True)


def load_calibration(path: Path) -> Calibration:
    """Read `calibration.json` of a bundle.

    Raises:
        CorruptionError: if it is missing or unreadable.
    """
    file = Path(path) / CALIBRATION_NAME
    try:
        return Calibration(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CorruptionError(f"{file} is not a readable calibration: {error}.") from error
