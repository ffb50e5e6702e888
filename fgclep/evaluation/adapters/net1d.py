"""Encoders with a Net1D backbone and no text tower: ECGFounder and CLEF."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import CompatibilityError
from fgclep.evaluation.adapters.checkpoint import fingerprint_file, load_strictly
from fgclep.evaluation.encoders import Prepare, refuse_text
from fgclep.signal import CONTRACT_HZ

if TYPE_CHECKING:
    import torch

    from fgclep.models.net1d import Net1d

BATCH = 64


class Net1dEncoder:
    """A Net1D that turns prepared inputs into features.

    Args:
        name: for tables.
        fingerprint: of the checkpoint.
        model: the backbone, in evaluation mode.
        prepare: the model's input contract.
        device: where it runs.
    """

    joint = False
    fs_hz = float(CONTRACT_HZ)

    def __init__(self, name: str, fingerprint: str, model: "Net1d", prepare: Prepare, device: str) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.prepare = prepare
        self.feature_dim = model.out_channels
        self._model = model.eval().to(device)
        self._device = device

    def features(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map float32 (B, leads, 5000) to float32 (B, F)."""
        import torch

        with torch.inference_mode():
            parts = [
                self._model(torch.from_numpy(batch[start : start + BATCH]).to(self._device)).cpu().numpy()
                for start in range(0, len(batch), BATCH)
            ]
        return np.concatenate(parts) if parts else np.empty((0, self.feature_dim), np.float32)

    def encode(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Refuse: there is no space of texts."""
        refuse_text(self.name)

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Refuse: there is no text tower."""
        refuse_text(self.name)


def open_net1d(
    path: Path, state: "dict[str, torch.Tensor]", model: str, leads: int, prepare: Prepare, device: str
) -> Net1dEncoder:
    """Build the Net1D that fits a checkpoint's weights, and load them strictly.

    Args:
        path: the checkpoint, for messages, name and fingerprint.
        state: the backbone's weights under their published names, without the classification layer.
        model: whose they are.
        leads: input channels that the model should have.
        prepare: the model's input contract.
        device: where it runs.

    Raises:
        CompatibilityError: if the weights are of another layout.
    """
    from fgclep.models.net1d import NET1D_SIZES, Net1d

    stem, batches = state.get("first_conv.conv.weight"), state.get("first_bn.num_batches_tracked")
    if stem is None or batches is None:
        raise CompatibilityError(
            f"{path} is not of the published {model} layout: it lacks first_conv or first_bn.",
            "Give the checkpoint as it was released.",
        )
    fitting = [size for size in NET1D_SIZES.values() if size.base == stem.shape[0]]
    if stem.shape[1] != leads or not fitting:
        raise CompatibilityError(
            f"{path} begins with a convolution of {stem.shape[1]} leads to {stem.shape[0]} channels; {model} has "
            f"{leads} and {', '.join(str(size.base) for size in NET1D_SIZES.values())}.",
            "Give the checkpoint as it was released.",
        )
    # Norms that never saw a batch took no part in training: the layout holds their entries all the same.
    net = Net1d(leads, fitting[0], use_batch_norm=bool(batches > 0))
    load_strictly(net, state, path, model)
    return Net1dEncoder(f"{model.lower()}-{path.stem}", fingerprint_file(path), net, prepare, device)
