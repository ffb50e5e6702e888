"""Checkpoints of published encoders, built from documented names and shapes, for the tests of the adapters."""

import math
from collections import OrderedDict

import torch

State = dict[str, torch.Tensor]


class Maker:
    """Fills a state dict with random entries of given shapes."""

    def __init__(self, seed: int = 0) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.state: State = OrderedDict()

    def tensor(self, name: str, *shape: int) -> None:
        fan_in = math.prod(shape[1:]) or 1
        self.state[name] = torch.randn(*shape, generator=self.random) * (1.5 / fan_in) ** 0.5

    def affine(self, name: str, *shape: int) -> None:
        self.tensor(f"{name}.weight", *shape)
        self.state[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=self.random)

    def norm(self, name: str, width: int, batches: int) -> None:
        self.state[f"{name}.weight"] = 1 + 0.1 * torch.randn(width, generator=self.random)
        self.state[f"{name}.bias"] = 0.1 * torch.randn(width, generator=self.random)
        self.state[f"{name}.running_mean"] = 0.1 * torch.randn(width, generator=self.random)
        self.state[f"{name}.running_var"] = 1 + 0.5 * torch.rand(width, generator=self.random)
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(batches)
