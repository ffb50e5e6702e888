"""Vision transformer over 12 leads x 10 windows (FOCAL's SpatialTemporalViT layout).

Every lead is cut into windows; token p = lead * windows + window. No class token; lead and time embeddings are added.
"""

import torch
from torch import Tensor, nn


class ViT1d(nn.Module):
    """Transformer encoder from (B, 12, samples) to tokens (B, width, 12 * windows).

    Args:
        width: token width; heads are 64 wide.
        depth: number of pre-norm blocks, MLP ratio 4.
        samples: input samples per lead.
        windows: windows per lead; must divide `samples`.
        leads: input leads.
    """

    def __init__(self, width: int, depth: int, samples: int, windows: int = 10, leads: int = 12) -> None:
        super().__init__()
        if samples % windows:
            raise ValueError(f"{samples} samples cannot be cut into {windows} equal windows")
        self.windows = windows
        self.patch = nn.Linear(samples // windows, width)
        self.lead_embedding = nn.Parameter(torch.randn(leads, 1, width) * 0.02)
        self.time_embedding = nn.Parameter(torch.randn(1, windows, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, width // 64, width * 4, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, depth, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.out_channels = width

    def steps(self, samples: int) -> int:
        """Return the number of tokens; the input length is fixed by the window length."""
        return self.windows * len(self.lead_embedding)

    def forward(self, waveforms: Tensor) -> Tensor:
        """Map float (B, leads, samples) to (B, width, leads * windows)."""
        batch, leads, _ = waveforms.shape
        tokens = self.patch(waveforms.reshape(batch, leads, self.windows, -1))  # (B, leads, windows, width)
        tokens = (tokens + self.lead_embedding + self.time_embedding).flatten(1, 2)
        features: Tensor = self.blocks(tokens)
        return features.transpose(1, 2)
