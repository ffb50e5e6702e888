"""What the model knows of findings, at hand when a text is placed: texts are drawn to the findings they are near to."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FindingMemory(nn.Module):
    """One vector per finding; a text's vector moves towards those that it resembles (attention, one head).

    A text tower places a wording it never saw a little beside where the ECGs of its finding lie. With t the text's unit
    vector and m_k those of the findings, the result is normalise(t + pull * sum_k w_k m_k), where w is the softmax of
    sharpness * t.m_k beside one more choice, none, at sharpness * threshold. So a text that resembles no finding, such
    as a negation, stays where it is.

    Args:
        size: how many findings.
        dim: joint dimension.
        sharpness: how much nearer findings count.
        pull: how far texts move.
        threshold: cosine below which a finding draws little.
    """

    def __init__(self, size: int, dim: int, sharpness: float, pull: float, threshold: float) -> None:
        super().__init__()
        self.sharpness, self.pull, self.threshold = sharpness, pull, threshold
        self.vectors = nn.Parameter(torch.zeros(size, dim))

    def forward(self, texts: Tensor) -> Tensor:
        """Map unit-norm float32 (B, dim) to the same."""
        nearness = F.pad(texts @ self.vectors.T, (0, 1), value=self.threshold)
        shares = torch.softmax(self.sharpness * nearness, dim=1)[:, :-1]
        return F.normalize(texts + self.pull * shares @ self.vectors, dim=-1)
