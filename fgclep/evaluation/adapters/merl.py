"""MERL (Liu et al., ICML 2024; METHOD E0, E1): the full checkpoint, searchable by text.

The release is `res18_best_ckpt.pth` of cheliu-computation/MERL-ICML2024. It holds the text tower's weights; what it
lacks, the tower's configuration and tokenizer, comes from ncbi/MedCPT-Query-Encoder.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import CompatibilityError, NotSetUpError
from fgclep.evaluation.adapters.checkpoint import fingerprint_file, load_strictly, read_checkpoint
from fgclep.evaluation.encoders import Prepare
from fgclep.record import Waveform
from fgclep.signal import CONTRACT_HZ, to_contract

if TYPE_CHECKING:
    import torch

    from fgclep.models.merl import MerlModel

TEXT_TOWER = "ncbi/MedCPT-Query-Encoder"
MAX_TOKENS = 256
BATCH = 64

_MIMIC_ORDER = [0, 1, 2, 3, 5, 4, 6, 7, 8, 9, 10, 11]  # aVF before aVL


def merl_input(waveform: Waveform, fs_hz: float) -> NDArray[np.float32]:
    """Take ten seconds at 500 Hz to 0..1 by the extremes of all leads together, with aVF before aVL as in MIMIC-IV.

    Args:
        waveform: float32, shape (12, samples), mV, canonical order.
        fs_hz: its rate.

    Returns:
        float32, shape (12, 5000).
    """
    x, _ = to_contract(waveform, fs_hz)
    low, high = x.min(), x.max()
    return np.ascontiguousarray((x[_MIMIC_ORDER] - low) / max(high - low, np.float32(1e-8)), dtype=np.float32)


class MerlEncoder:
    """A full MERL checkpoint.

    Args:
        name: for tables.
        fingerprint: of checkpoint and text tower.
        model: both towers.
        tokenizer: of the text tower.
        device: where it runs.
    """

    joint = True
    fs_hz = float(CONTRACT_HZ)

    def __init__(self, name: str, fingerprint: str, model: "MerlModel", tokenizer: Any, device: str) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.prepare: Prepare = merl_input
        self.feature_dim = model.ecg_encoder.tower.out_channels
        self._model = model.eval().to(device)
        self._tokenizer = tokenizer
        self._device = device

    def encode(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map float32 (B, 12, 5000) to unit-norm float32 (B, 256)."""
        return self._in_parts(self._model.ecg_encoder, batch)

    def features(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map float32 (B, 12, 5000) to float32 (B, 512 or 2048)."""
        return self._in_parts(self._model.ecg_features, batch)

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Map texts, in lower case as MERL was trained, to unit-norm float32 (len(texts), 256)."""
        import torch

        parts = []
        with torch.inference_mode():
            for start in range(0, len(texts), BATCH):
                tokens = self._tokenizer(
                    [text.lower() for text in texts[start : start + BATCH]],
                    padding=True,
                    truncation=True,
                    max_length=MAX_TOKENS,
                    return_tensors="pt",
                ).to(self._device)
                vectors = self._model.encode_text(tokens["input_ids"], tokens["attention_mask"])
                parts.append(vectors.cpu().numpy())
        return np.concatenate(parts)

    def _in_parts(
        self, function: "Callable[[torch.Tensor], torch.Tensor]", batch: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            parts = [
                function(torch.from_numpy(batch[start : start + BATCH]).to(self._device)).cpu().numpy()
                for start in range(0, len(batch), BATCH)
            ]
        return np.concatenate(parts)


def open_merl(path: Path, text_tower: str | None, device: str) -> MerlEncoder:
    """Open a full ResNet checkpoint.

    Args:
        path: the checkpoint.
        text_tower: directory or hub id with the text tower's configuration and tokenizer; MERL's own unless given.
        device: where it runs.

    Raises:
        NotSetUpError: if the file or the text tower is not to be had.
        CorruptionError: if the file is damaged.
        CompatibilityError: if it is of another layout.
    """
    from fgclep.models.merl import MerlModel, rename_merl

    state = read_checkpoint(path, "MERL")
    _check_kind({name.removeprefix("module.") for name in state}, path)
    config, tokenizer = _load_text_parts(text_tower or TEXT_TOWER)
    try:
        renamed = rename_merl(state)
        model = MerlModel(renamed, config)
    except KeyError as error:
        raise CompatibilityError(
            f"{path} is not of the published MERL layout: it lacks {error.args[0]}.",
            "Give the checkpoint as it was released.",
        ) from error
    load_strictly(model, renamed, path, "MERL")
    fingerprint = fingerprint_file(path, config.to_json_string(), tokenizer.backend_tokenizer.to_str())
    return MerlEncoder(f"merl-{path.stem}", fingerprint, model, tokenizer, device)


def _check_kind(names: set[str], path: Path) -> None:
    """Refuse, by name, the other files that MERL's authors gave out."""
    if "conv1.weight" in names:
        raise CompatibilityError(
            f"{path} is MERL's ECG encoder alone, without the head that leads to the space of texts.",
            "Give the full checkpoint, such as res18_best_ckpt.pth.",
        )
    if any(name.startswith("proj_e.") for name in names):
        raise CompatibilityError(
            f"{path} is a ViT variant of MERL; only its ResNets can be opened.",
            "Give a ResNet checkpoint, such as res18_best_ckpt.pth.",
        )


def _load_text_parts(name: str) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoTokenizer

    try:
        return AutoConfig.from_pretrained(name), AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise NotSetUpError(
            f"the text tower {name!r} cannot be loaded: {str(error).splitlines()[0]}",
            "Download it and name its directory: merl:CHECKPOINT,text=DIRECTORY",
        ) from error
