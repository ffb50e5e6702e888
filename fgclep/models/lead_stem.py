"""Patch tokens for towers that mix the leads at once: every lead read alone, by the same small network.

A ResNet's first convolution sums over the twelve leads, so nothing behind it belongs to one lead. A tag head that is to
say which lead shows a finding needs tokens that do; this stem makes them, in the layout of `ViT1d`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgclep.tag_numpy import CONVOLUTIONS, SAMPLES


class LeadStem(nn.Module):
    """Convolutions over one lead at a time, mean and maximum in each window, and an embedding of the lead.

    Args:
        samples: input samples per lead; whole multiples of `SAMPLES` are averaged down to it.
        channels: of each of the `CONVOLUTIONS`.
        width: of the tokens.
        windows: windows per lead.
        leads: input leads.
    """

    def __init__(self, samples: int, channels: Sequence[int], width: int, windows: int = 10, leads: int = 12) -> None:
        super().__init__()
        self.shrink, self.windows = max(samples // SAMPLES, 1), windows
        layers: list[nn.Module] = []
        for before, after, (kernel, stride) in zip((1, *channels[:-1]), channels, CONVOLUTIONS, strict=True):
            convolution = nn.Conv1d(before, after, kernel, stride, kernel // 2, bias=False)
            layers.append(nn.Sequential(convolution, nn.BatchNorm1d(after), nn.ReLU()))
        self.layers = nn.Sequential(*layers)
        self.join = nn.Linear(2 * channels[-1], width)
        self.lead_embedding = nn.Parameter(torch.randn(leads, 1, width) * 0.02)
        self.out_channels = width

    def forward(self, waveforms: Tensor) -> Tensor:
        """Map float (B, leads, samples) to tokens (B, width, leads * windows); token p = lead * windows + window."""
        batch, leads, _ = waveforms.shape
        alone = waveforms.reshape(batch * leads, 1, -1)
        features = self.layers(F.avg_pool1d(alone, self.shrink) if self.shrink > 1 else alone)
        pooled = torch.cat(
            [F.adaptive_avg_pool1d(features, self.windows), F.adaptive_max_pool1d(features, self.windows)], dim=1
        )
        tokens = self.join(pooled.transpose(1, 2)).reshape(batch, leads, self.windows, -1)
        return torch.relu(tokens + self.lead_embedding).flatten(1, 2).transpose(1, 2)
