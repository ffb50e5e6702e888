"""One-dimensional ResNet over 12 leads, after the MERL code line that FG-CLEP builds on (METHOD: 12 -> 64, kernel 7).

Leads are input channels; there is no max-pool after the stem, so 5000 samples become 2500, 2500, 1250, 625, 313 steps.
"""

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two convolutions with a shortcut (ResNet-18/34)."""

    expansion = 1

    def __init__(self, channels_in: int, width: int, stride: int, kernel: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(channels_in, width, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Conv1d(width, width, kernel, 1, kernel // 2, bias=False),
            nn.BatchNorm1d(width),
        )
        self.shortcut = _shortcut(channels_in, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels_in, T) to (B, width, T / stride)."""
        return torch.relu(self.body(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, kernel, 1x1 convolutions with a shortcut (ResNet-50)."""

    expansion = 4

    def __init__(self, channels_in: int, width: int, stride: int, kernel: int) -> None:
        super().__init__()
        channels_out = width * self.expansion
        self.body = nn.Sequential(
            nn.Conv1d(channels_in, width, 1, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Conv1d(width, width, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Conv1d(width, channels_out, 1, bias=False),
            nn.BatchNorm1d(channels_out),
        )
        self.shortcut = _shortcut(channels_in, channels_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels_in, T) to (B, 4 * width, T / stride)."""
        return torch.relu(self.body(x) + self.shortcut(x))


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Module:
    if stride == 1 and channels_in == channels_out:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv1d(channels_in, channels_out, 1, stride, bias=False),
        nn.BatchNorm1d(channels_out),
    )


_BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ResNet1d(nn.Module):
    """Residual network from (B, 12, samples) to a feature map (B, out_channels, steps).

    Args:
        block: `basic` or `bottleneck`.
        depths: blocks per stage.
        widths: channels per stage before expansion.
        kernel: kernel of the blocks' convolutions.
        leads: input channels.
    """

    def __init__(
        self, block: str, depths: tuple[int, ...], widths: tuple[int, ...], kernel: int = 3, leads: int = 12
    ) -> None:
        super().__init__()
        block_class = _BLOCKS[block]
        self.stem = nn.Sequential(
            nn.Conv1d(leads, widths[0], 7, 2, 3, bias=False), nn.BatchNorm1d(widths[0]), nn.ReLU()
        )
        stages: list[nn.Module] = []
        channels = widths[0]
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks: list[nn.Module] = []
            for position in range(depth):
                stride = 2 if stage > 0 and position == 0 else 1
                blocks.append(block_class(channels, width, stride, kernel))
                channels = width * block_class.expansion
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.out_channels = channels

    def steps(self, samples: int) -> int:
        """Return the number of time steps that `samples` input samples become (5000 -> 313)."""
        steps = samples
        for _ in range(len(self.stages)):
            steps = -(-steps // 2)
        return steps

    def forward(self, waveforms: Tensor) -> Tensor:
        """Map float (B, 12, samples) to (B, out_channels, steps)."""
        features: Tensor = self.stages(self.stem(waveforms))
        return features


class AttentionPool(nn.Module):
    """Pool a feature map by one learned class token that attends to all time steps (MERL's head for the joint space).

    MERL's released weights add position 0 to the class token twice; here it is added once.
    """

    def __init__(self, channels: int, steps: int, heads: int, dim: int) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.randn(1, 1, channels) / channels**0.5)
        self.positions = nn.Parameter(torch.randn(1, steps + 1, channels) / channels**0.5)
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.out = nn.Linear(channels, dim)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, channels, steps) to (B, dim)."""
        tokens = features.transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.positions
        pooled, _ = self.attention(tokens[:, :1], tokens, tokens, need_weights=False)
        result: Tensor = self.out(pooled[:, 0])
        return result
