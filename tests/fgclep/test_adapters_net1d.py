"""CLEF and ECGFounder checkpoints, built from the documented names and shapes, opened, and computed again by hand."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fgclep.errors import CompatibilityError, CorruptionError, UsageError
from fgclep.evaluation.encoders import open_encoder
from fgclep.models.net1d import NET1D_SIZES, Net1d
from tests.fgclep.checkpoint_maker import Maker, State

Array = np.ndarray
SMALL = {"base": 32, "ratio": 0.5, "filters": (32, 64, 64, 128, 128, 256), "blocks": (1, 1, 2, 2, 2, 2), "width": 8}
MEDIUM = {
    "base": 64,
    "ratio": 1,
    "filters": (64, 160, 160, 400, 400, 1024, 1024),
    "blocks": (2, 2, 2, 3, 3, 4, 4),
    "width": 16,
}


def net1d_state(leads: int, size: dict[str, Any], batches: int = 0) -> State:
    """A Net1D's backbone under its published names."""
    make = Maker()
    make.affine("first_conv.conv", size["base"], leads, 16)
    make.norm("first_bn", size["base"], batches)
    before = size["base"]
    for stage, (width, blocks) in enumerate(zip(size["filters"], size["blocks"], strict=True)):
        middle = int(width * size["ratio"])
        for position in range(blocks):
            name = f"stage_list.{stage}.block_list.{position}"
            make.norm(f"{name}.bn1", before, batches)
            make.affine(f"{name}.conv1.conv", middle, before, 1)
            make.norm(f"{name}.bn2", middle, batches)
            make.affine(f"{name}.conv2.conv", middle, middle // (width // size["width"]), 16)
            make.norm(f"{name}.bn3", middle, batches)
            make.affine(f"{name}.conv3.conv", width, middle, 1)
            make.affine(f"{name}.se_fc1", width // 2, width)
            make.affine(f"{name}.se_fc2", width, width // 2)
            before = width
    return make.state


def net1d_by_hand(state: State, x: Array, size: dict[str, Any], batch_norm: bool) -> Array:
    """A Net1D over one waveform (leads, samples) in plain numpy, float64."""
    weights = {name: tensor.double().numpy() for name, tensor in state.items()}

    def conv(x: Array, name: str, stride: int = 1) -> Array:
        kernel, bias = weights[f"{name}.conv.weight"], weights[f"{name}.conv.bias"]
        steps = math.ceil(x.shape[1] / stride)
        left = {1: 0, 16: 7}[kernel.shape[2]]  # 'same' padding of an even kernel: seven before, the rest behind
        padded = np.pad(x, ((0, 0), (left, 32)))
        groups = np.split(padded, len(padded) // kernel.shape[1])
        kernels = np.split(kernel, len(groups))
        out = np.empty((len(kernel), steps))
        for step in range(steps):
            window = slice(step * stride, step * stride + kernel.shape[2])
            parts = [np.einsum("oik,ik->o", k, g[:, window]) for k, g in zip(kernels, groups, strict=True)]
            out[:, step] = np.concatenate(parts) + bias
        return out

    def activate(x: Array, name: str) -> Array:
        if batch_norm:
            scale = weights[f"{name}.weight"] / np.sqrt(weights[f"{name}.running_var"] + 1e-5)
            x = (x - weights[f"{name}.running_mean"][:, None]) * scale[:, None] + weights[f"{name}.bias"][:, None]
        return x / (1 + np.exp(-x))

    out = activate(conv(x, "first_conv", 2), "first_bn")
    for stage, blocks in enumerate(size["blocks"]):
        for position in range(blocks):
            name = f"stage_list.{stage}.block_list.{position}"
            stride = 2 if position == 0 else 1
            inner = out if stage == position == 0 else activate(out, f"{name}.bn1")
            inner = activate(conv(inner, f"{name}.conv1"), f"{name}.bn2")
            inner = activate(conv(inner, f"{name}.conv2", stride), f"{name}.bn3")
            inner = conv(inner, f"{name}.conv3")
            squeezed = weights[f"{name}.se_fc1.weight"] @ inner.mean(axis=1) + weights[f"{name}.se_fc1.bias"]
            squeezed = squeezed / (1 + np.exp(-squeezed))
            gate = weights[f"{name}.se_fc2.weight"] @ squeezed + weights[f"{name}.se_fc2.bias"]
            inner = inner / (1 + np.exp(-gate))[:, None]
            shortcut = out
            if stride == 2:
                even = np.pad(out, ((0, 0), (0, out.shape[1] % 2)))
                shortcut = np.maximum(even[:, ::2], even[:, 1::2])
            lacking = len(inner) - len(shortcut)
            out = inner + np.pad(shortcut, ((lacking // 2, lacking - lacking // 2), (0, 0)))
    return np.asarray(out.mean(axis=1))


@pytest.mark.parametrize(("size", "millions"), [("small", 0.448), ("medium", 30.7), ("large", 296)])
def test_net1d_has_the_published_number_of_parameters(size: str, millions: float) -> None:
    with torch.device("meta"):
        net = Net1d(1, NET1D_SIZES[size])
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, rel=0.005)


@pytest.mark.parametrize("batches", [0, 7])
def test_clef_opens_strictly_and_computes_what_the_layout_says(tmp_path: Path, batches: int) -> None:
    """Norms that saw no batch were left out of training; odd lengths occur on the way (625, 157, 79)."""
    state = net1d_state(1, SMALL, batches)
    path = tmp_path / "clef_small.ckpt"
    torch.save({"epoch": 3, "state_dict": {f"backbone.{name}": value for name, value in state.items()}}, path)
    encoder = open_encoder(f"clef:{path}")
    assert (encoder.name, encoder.joint, encoder.feature_dim, encoder.fs_hz) == ("clef-clef_small", False, 256, 500)
    batch = np.random.default_rng(0).normal(size=(3, 1, 5000)).astype(np.float32)
    features = encoder.features(batch)
    expected = net1d_by_hand(state, batch[1].astype(np.float64), SMALL, batch_norm=batches > 0)
    assert np.abs(expected).max() > 0.01
    assert np.allclose(features[1], expected, atol=1e-4 * np.abs(expected).max())
    with pytest.raises(UsageError, match="clef-clef_small has no text tower"):
        encoder.encode(batch)
    with pytest.raises(UsageError, match="no text tower"):
        encoder.encode_text(["sinus rhythm"])


def test_ecgfounder_opens_strictly_without_its_classifier(tmp_path: Path) -> None:
    state = net1d_state(12, MEDIUM)
    dense = {"dense.weight": torch.zeros(150, 1024), "dense.bias": torch.zeros(150)}
    path = tmp_path / "12_lead_ECGFounder.pth"
    torch.save({"state_dict": {**state, **dense}, "step": 10000}, path)
    encoder = open_encoder(f"ecgfounder:{path}")
    assert (encoder.feature_dim, encoder.joint) == (1024, False)
    batch = np.random.default_rng(0).normal(size=(2, 12, 320)).astype(np.float32)  # short, for the sake of time
    expected = net1d_by_hand(state, batch[0].astype(np.float64), MEDIUM, batch_norm=False)
    assert np.allclose(encoder.features(batch)[0], expected, atol=1e-4 * np.abs(expected).max())


def test_signal_checkpoints_of_another_layout_are_refused(tmp_path: Path) -> None:
    state = net1d_state(1, SMALL)
    path = tmp_path / "other.ckpt"

    def opening(spec: str, content: object) -> Any:
        torch.save(content, path)
        return lambda: open_encoder(f"{spec}:{path}")

    def lightning(state: State) -> dict[str, State]:
        return {"state_dict": {f"backbone.{name}": value for name, value in state.items()}}

    lacking = {name: value for name, value in state.items() if name != "stage_list.1.block_list.0.se_fc1.bias"}
    cases = [
        ("clef", lightning(lacking), "se_fc1.bias"),
        ("clef", lightning({**state, "head.weight": torch.zeros(2)}), "head.weight"),
        ("clef", {"state_dict": state}, "does not begin with 'backbone.'"),
        ("clef", lightning({"first_conv.conv.weight": torch.zeros(32, 1, 16)}), "lacks first_conv or first_bn"),
        ("clef", {"weights": state}, "no entry state_dict"),
        ("clef", lightning(net1d_state(2, SMALL)), "2 leads"),
        ("ecgfounder", {"state_dict": state}, "1 leads to 32 channels; ECGFounder has 12"),
        ("ecgfounder", state, "no entry state_dict"),
        ("ecgfounder", [1], "holds a list"),
    ]
    for spec, content, words in cases:
        with pytest.raises(CompatibilityError, match=words):
            opening(spec, content)()


def test_a_checkpoint_that_could_run_code_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {}, "callback": Maker()}, path)  # an object of a class of ours, pickled
    with pytest.raises(CompatibilityError, match=r"more than tensors"):
        open_encoder(f"clef:{path}")
    whole = tmp_path / "whole.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(1000)}}, whole)
    path.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises((CorruptionError, CompatibilityError), match=r"evil\.ckpt"):
        open_encoder(f"ecgfounder:{path}")
