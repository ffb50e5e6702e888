"""Net1D, the residual network of ECGFounder and CLEF (METHOD D1, E5): pre-activation, grouped, squeeze-and-excite.

Modules are named as in the published checkpoints, which carry the parameters of batch norms even where training left
them out (`num_batches_tracked` is 0 then); `use_batch_norm` tells whether they take part.
"""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_KERNEL = 16


@dataclass(frozen=True)
class Net1dSize:
    """Widths and depths of one published size.

    Attributes:
        base: channels after the first convolution.
        ratio: channels inside a block as a share of its output's.
        filters: output channels of each stage; each halves the time axis.
        blocks: blocks of each stage.
        group_width: output channels per group of the middle convolution.
    """

    base: int
    ratio: float
    filters: tuple[int, ...]
    blocks: tuple[int, ...]
    group_width: int


NET1D_SIZES = {
    "small": Net1dSize(32, 0.5, (32, 64, 64, 128, 128, 256), (1, 1, 2, 2, 2, 2), 8),
    "medium": Net1dSize(64, 1.0, (64, 160, 160, 400, 400, 1024, 1024), (2, 2, 2, 3, 3, 4, 4), 16),
    "large": Net1dSize(128, 1.5, (128, 256, 256, 512, 512, 1024, 1024, 2048, 2048), (2, 3, 3, 4, 4, 5, 5, 6, 6), 32),
}
"""CLEF's three sizes; ECGFounder is `medium`."""


class _SameConv(nn.Module):
    """Convolution whose output has ceil(T / stride) steps; an odd padding puts the extra zero at the end."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels_in, channels_out, kernel, stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        steps = x.shape[-1]
        padding = max(0, (-(-steps // stride) - 1) * stride + kernel - steps)
        convolved: Tensor = self.conv(F.pad(x, (padding // 2, padding - padding // 2)))
        return convolved


class _Block(nn.Module):
    """1-wide, 16-wide and 1-wide convolutions, squeeze-and-excite, and a shortcut without parameters."""

    def __init__(self, channels_in: int, channels_out: int, size: Net1dSize, stride: int, first: bool) -> None:
        super().__init__()
        middle = int(channels_out * size.ratio)
        self.stride = stride
        self.first = first
        self.bn1 = nn.BatchNorm1d(channels_in)
        self.conv1 = _SameConv(channels_in, middle, 1)
        self.bn2 = nn.BatchNorm1d(middle)
        self.conv2 = _SameConv(middle, middle, _KERNEL, stride, groups=channels_out // size.group_width)
        self.bn3 = nn.BatchNorm1d(middle)
        self.conv3 = _SameConv(middle, channels_out, 1)
        self.se_fc1 = nn.Linear(channels_out, channels_out // 2)
        self.se_fc2 = nn.Linear(channels_out // 2, channels_out)

    def forward(self, x: Tensor, use_batch_norm: bool) -> Tensor:
        out = x if self.first else _activate(x, self.bn1, use_batch_norm)  # the stem has activated the first one's
        out = self.conv1(out)
        out = self.conv2(_activate(out, self.bn2, use_batch_norm))
        out = self.conv3(_activate(out, self.bn3, use_batch_norm))
        weights = torch.sigmoid(self.se_fc2(F.silu(self.se_fc1(out.mean(dim=2)))))
        out = out * weights[:, :, None]
        shortcut = x
        if self.stride > 1:  # one zero at the end, also where the length is even and nothing reaches it
            shortcut = F.max_pool1d(F.pad(shortcut, (0, self.stride - 1)), self.stride)
        wider = out.shape[1] - shortcut.shape[1]
        joined: Tensor = out + F.pad(shortcut, (0, 0, wider // 2, wider - wider // 2))
        return joined


class _Stage(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, blocks: int, size: Net1dSize, first: bool) -> None:
        super().__init__()
        self.block_list = nn.ModuleList(
            _Block(
                channels_in if position == 0 else channels_out,
                channels_out,
                size,
                stride=2 if position == 0 else 1,
                first=first and position == 0,
            )
            for position in range(blocks)
        )


class Net1d(nn.Module):
    """Net1D without its classification layer, from (B, leads, samples) to features (B, F).

    Args:
        leads: input channels.
        size: widths and depths; F is the last of its filters.
        use_batch_norm: whether batch norms take part.
    """

    def __init__(self, leads: int, size: Net1dSize, use_batch_norm: bool = False) -> None:
        super().__init__()
        self.use_batch_norm = use_batch_norm
        self.out_channels = size.filters[-1]
        self.first_conv = _SameConv(leads, size.base, _KERNEL, 2)
        self.first_bn = nn.BatchNorm1d(size.base)
        widths = (size.base, *size.filters)
        self.stage_list = nn.ModuleList(
            _Stage(widths[i], widths[i + 1], blocks, size, first=i == 0) for i, blocks in enumerate(size.blocks)
        )

    def forward(self, waveforms: Tensor) -> Tensor:
        """Map float (B, leads, samples) to the mean over time of the last feature map, (B, F)."""
        out = _activate(self.first_conv(waveforms), self.first_bn, self.use_batch_norm)
        for stage in self.stage_list:
            for block in cast(nn.ModuleList, stage.block_list):
                out = block(out, self.use_batch_norm)
        return out.mean(dim=2)


def _activate(x: Tensor, batch_norm: nn.Module, use_batch_norm: bool) -> Tensor:
    return F.silu(batch_norm(x) if use_batch_norm else x)
