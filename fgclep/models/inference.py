"""An ECG encoder made fast for encoding many records: prepared on its device, batch norms folded, bfloat16 if it pays.

The vectors are those of `FGCLEPModel.encode_ecg`: within 1e-5 in float32, within a cosine of 1e-3 in bfloat16.
"""

from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fgclep.models.dual_encoder import EcgEncoder
from fgclep.preprocessing import CLIP_MV, BlockFilter, EcgProcessor, StoredBatch
from fgclep.pretrained import load_model

_AT_ONCE_CPU = 16  # records of one pass through the tower: as many as keep a layer's feature maps in a core's cache
_AT_ONCE = 512


class FastEcgEncoder:
    """The ECG side of a bundle, for encoding many records.

    On a CPU it computes in one thread, so that vectors do not depend on how many there are: run several processes.
    It pickles to its arguments; a process that receives it loads the bundle when it first encodes.

    Args:
        bundle: directory of the model.
        device: where to run.
        exact: compute in float32 even where bfloat16 is faster.
    """

    def __init__(self, bundle: Path, device: str = "cpu", exact: bool = False) -> None:
        self._bundle = bundle
        self._device = torch.device(device)
        self._dtype = torch.float32 if exact or not bfloat16_pays(self._device) else torch.bfloat16

    def __getstate__(self) -> dict[str, Any]:
        """Leave the loaded weights behind."""
        return {name: value for name, value in self.__dict__.items() if name != "_encoder"}

    @property
    def arithmetic(self) -> str:
        """Kind of device and type of number, which decide a vector's last digits."""
        return f"{self._device.type} {str(self._dtype).removeprefix('torch.')}"

    @cached_property
    def _encoder(self) -> EcgEncoder:
        return fast_encoder(load_model(self._bundle).ecg_encoder, self._dtype).to(self._device)

    @cached_property
    def _processor(self) -> EcgProcessor:
        return EcgProcessor.from_pretrained(self._bundle)

    def load(self) -> int:
        """Load the bundle now and return the dimension of its vectors; errors as of `load_model`."""
        one = np.zeros((1, 12, self._processor.n_samples), np.float32)
        return int(self(one).shape[1])

    @torch.inference_mode()
    def __call__(self, waveforms: NDArray[np.float32] | StoredBatch) -> NDArray[np.float32]:
        """Encode waveforms as `EcgProcessor.prepare` makes them, or as they are stored.

        Args:
            waveforms: float32, shape (n, 12, n_samples), or a batch of the bundle's own processor.

        Returns:
            float32, shape (n, dim), unit norm.
        """
        threads = torch.get_num_threads()
        if self._device.type == "cpu":
            torch.set_num_threads(1)
        try:
            count = len(waveforms.units if isinstance(waveforms, StoredBatch) else waveforms)
            step = _AT_ONCE_CPU if self._device.type == "cpu" else _AT_ONCE
            parts = [self._encoder(self._prepared(waveforms, slice(at, at + step))) for at in range(0, count, step)]
            return torch.cat(parts).cpu().numpy()
        finally:
            torch.set_num_threads(threads)

    def _prepared(self, waveforms: NDArray[np.float32] | StoredBatch, part: slice) -> Tensor:
        if isinstance(waveforms, StoredBatch):
            return prepare_stored(waveforms, part, self._processor, self._device)
        return torch.from_numpy(waveforms[part]).to(self._device)


def bfloat16_pays(device: torch.device) -> bool:
    """Tell whether convolutions are faster in bfloat16: on CUDA, and on CPUs with matrix units for it (AMX)."""
    return device.type == "cuda" or (device.type == "cpu" and torch.cpu._is_amx_tile_supported())


def fast_encoder(encoder: EcgEncoder, dtype: torch.dtype = torch.float32) -> EcgEncoder:
    """Return a copy of an encoder for inference: batch norms folded into convolutions, channels last.

    Args:
        encoder: not changed.
        dtype: of the tower's arithmetic; pooling and projection stay float32.
    """
    fast: EcgEncoder = deepcopy(encoder).eval().requires_grad_(False)
    tower = _channels_last(fold_batch_norms(fast.tower))
    fast.tower = tower if dtype == torch.float32 else _Narrow(tower, dtype)  # type: ignore[assignment]
    return fast


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Replace each convolution that a batch norm follows in an `nn.Sequential` by one that does the work of both.

    Args:
        module: in evaluation mode; changed in place unless it is an `nn.Sequential` itself.
    """
    if isinstance(module, nn.Sequential):
        layers: list[nn.Module] = []
        for layer in module:
            if isinstance(layer, nn.BatchNorm1d) and layers and isinstance(layers[-1], nn.Conv1d):
                layers[-1] = fuse_conv_bn_eval(layers[-1], layer)
            else:
                layers.append(fold_batch_norms(layer))
        return nn.Sequential(*layers)
    for name, child in module.named_children():
        setattr(module, name, fold_batch_norms(child))
    return module


class _ChannelsLast(nn.Module):
    """A `Conv1d` whose data lie sample by sample, all channels of one side by side, as fast kernels want them.

    PyTorch's own `conv1d` turns every input and output over.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        weight = conv.weight.detach().unsqueeze(2).contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach())
        self._stride, self._dilation, self._groups = (1, conv.stride[0]), (1, conv.dilation[0]), conv.groups
        self._padding = (0, int(conv.padding[0]))

    def forward(self, x: Tensor) -> Tensor:
        geometry = (self._stride, self._padding, self._dilation, self._groups)
        features: Tensor = F.conv2d(x.unsqueeze(2), self.weight, self.bias, *geometry).squeeze(2)
        return features


def _channels_last(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, nn.Conv1d) and child.padding_mode == "zeros" and not isinstance(child.padding, str):
            setattr(module, name, _ChannelsLast(child))
        else:
            _channels_last(child)
    return module


class _Narrow(nn.Module):
    """A module that computes in another type and takes and returns float32."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = module.to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.module(x.to(self.dtype)).float()
        return features


def prepare_stored(stored: StoredBatch, part: slice, processor: EcgProcessor, device: torch.device) -> Tensor:
    """Do on a device what `EcgProcessor.prepare` does: int16 units go there, the model's input is made there.

    Args:
        stored: of a `StoredStack`.
        part: which of its records.
        processor: of the model.
        device: where to.

    Returns:
        float32, shape (records, 12, n_samples), mV.
    """
    units = torch.from_numpy(stored.units[part]).to(device)
    centres = torch.from_numpy(stored.centres[part]).to(device)
    blocks = processor.block_filter(stored.fs_hz)
    if blocks is None:
        x = (units.float() - centres[:, :, None]) / stored.units_per_mv
    else:
        x = _filter_blocks(units, centres, blocks) / stored.units_per_mv
    return F.pad(x, (0, max(0, processor.n_samples - x.shape[2])))[:, :, : processor.n_samples].clamp(-CLIP_MV, CLIP_MV)


def _filter_blocks(units: Tensor, centres: Tensor, blocks: BlockFilter) -> Tensor:
    """Centre and filter int16 (n, 12, samples) as `fgclep.preprocessing` does one record; in one buffer for speed."""
    n, leads, samples = units.shape
    count = -(-samples // blocks.hop)
    padded = torch.empty((n, leads, (count + 2) * blocks.hop), device=units.device)
    padded[:, :, : blocks.hop] = units[:, :, :1]
    padded[:, :, blocks.hop : blocks.hop + samples] = units
    padded[:, :, blocks.hop + samples :] = units[:, :, -1:]
    padded -= centres[:, :, None]
    parts = padded.view(-1, blocks.hop) @ torch.from_numpy(blocks.matrix).to(units.device)
    parts = parts.view(n, leads, count + 2, 3, blocks.made)
    joined = parts[:, :, 2:, 0] + parts[:, :, 1:-1, 1] + parts[:, :, :-2, 2]
    return joined.flatten(2)[:, :, : -(-samples * blocks.made // blocks.hop)]
