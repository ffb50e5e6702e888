"""Published checkpoints, built here from the documented names and shapes, opened, and computed again by hand."""

import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import signal
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from fgclep.errors import CompatibilityError, CorruptionError, NotSetUpError, UsageError
from fgclep.evaluation.adapters.clef import clef_input
from fgclep.evaluation.adapters.ecgfounder import ecgfounder_input
from fgclep.evaluation.adapters.merl import merl_input
from fgclep.evaluation.encoders import open_encoder
from fgclep.models.net1d import NET1D_SIZES, Net1d

State = dict[str, torch.Tensor]
Array = np.ndarray
SMALL = {"base": 32, "ratio": 0.5, "filters": (32, 64, 64, 128, 128, 256), "blocks": (1, 1, 2, 2, 2, 2), "width": 8}
MEDIUM = {
    "base": 64,
    "ratio": 1,
    "filters": (64, 160, 160, 400, 400, 1024, 1024),
    "blocks": (2, 2, 2, 3, 3, 4, 4),
    "width": 16,
}


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


def batch_norm(x: torch.Tensor, state: State, name: str) -> torch.Tensor:
    mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return F.batch_norm(x, mean, variance, state[f"{name}.weight"], state[f"{name}.bias"])


def merl_norms_and_convs(make: Maker, depths: tuple[int, ...], bottleneck: bool) -> None:
    make.tensor("ecg_encoder.conv1.weight", 64, 12, 7)
    make.norm("ecg_encoder.bn1", 64, 9)
    before = 64
    for stage, depth in enumerate(depths):
        width = 64 << stage
        out = 4 * width if bottleneck else width
        shapes = [(width, 1), (width, 3), (out, 1)] if bottleneck else [(width, 3), (width, 3)]
        for position in range(depth):
            name = f"ecg_encoder.layer{stage + 1}.{position}"
            inner = before
            for number, (channels, kernel) in enumerate(shapes, start=1):
                make.tensor(f"{name}.conv{number}.weight", channels, inner, kernel)
                make.norm(f"{name}.bn{number}", channels, 9)
                inner = channels
            if position == 0 and before != out:
                make.tensor(f"{name}.shortcut.0.weight", out, before, 1)
                make.norm(f"{name}.shortcut.1", out, 9)
            before = out
    make.affine("ecg_encoder.linear", 10, before)
    make.affine("downconv", 256, before, 1)


def merl_state(text: BertModel, depths: tuple[int, ...] = (2, 2, 2, 2), bottleneck: bool = False) -> State:
    """A full MERL checkpoint under its released names, as of an older text tower."""
    make = Maker()
    merl_norms_and_convs(make, depths, bottleneck)
    make.state["att_pool_head.positional_embedding"] = torch.randn(1, 314, 256, generator=make.random)
    make.state["att_pool_head.cls_token"] = torch.randn(1, 1, 256, generator=make.random)
    make.tensor("att_pool_head.mhsa.in_proj_weight", 768, 256)
    make.tensor("att_pool_head.mhsa.in_proj_bias", 768)
    make.affine("att_pool_head.mhsa.out_proj", 256, 256)
    make.affine("att_pool_head.c_proj", 256, 256)
    make.tensor("linear1.weight", 256, 256)
    make.tensor("linear2.weight", 256, 256)
    make.state.update({f"lm_model.{name}": tensor for name, tensor in text.state_dict().items()})
    make.state["lm_model.embeddings.position_ids"] = torch.arange(64)[None]
    make.affine("proj_t.0", 256, text.config.hidden_size)
    make.affine("proj_t.2", 256, 256)
    return make.state


def merl_map_by_hand(state: State, x: torch.Tensor) -> torch.Tensor:
    """MERL's ResNet-18 from its released names, layer by layer."""
    out = torch.relu(batch_norm(F.conv1d(x, state["ecg_encoder.conv1.weight"], None, 2, 3), state, "ecg_encoder.bn1"))
    for stage in range(4):
        for position in range(2):
            name = f"ecg_encoder.layer{stage + 1}.{position}"
            stride = 2 if stage and position == 0 else 1
            inner = F.conv1d(out, state[f"{name}.conv1.weight"], None, stride, 1)
            inner = torch.relu(batch_norm(inner, state, f"{name}.bn1"))
            inner = batch_norm(F.conv1d(inner, state[f"{name}.conv2.weight"], None, 1, 1), state, f"{name}.bn2")
            if f"{name}.shortcut.0.weight" in state:
                out = F.conv1d(out, state[f"{name}.shortcut.0.weight"], None, stride)
                out = batch_norm(out, state, f"{name}.shortcut.1")
            out = torch.relu(inner + out)
    return out


def merl_joint_by_hand(state: State, feature_map: torch.Tensor) -> torch.Tensor:
    """The attention pool with its habit: the class token gets position 0, then the whole sequence gets positions."""
    head = "att_pool_head."
    reduced = F.conv1d(feature_map, state["downconv.weight"], state["downconv.bias"]).transpose(1, 2)
    positions = state[f"{head}positional_embedding"]
    class_token = (state[f"{head}cls_token"] + positions[:, :1]).expand(len(reduced), -1, -1)
    tokens = torch.cat([class_token, reduced], dim=1) + positions
    query, key, value = (
        (tokens @ weight.T + bias).unflatten(2, (4, 64)).transpose(1, 2)
        for weight, bias in zip(
            state[f"{head}mhsa.in_proj_weight"].chunk(3), state[f"{head}mhsa.in_proj_bias"].chunk(3), strict=True
        )
    )
    weights = torch.softmax(query[:, :, :1] @ key.transpose(2, 3) / 64**0.5, dim=-1)
    pooled = (weights @ value).transpose(1, 2).flatten(2)[:, 0]
    pooled = pooled @ state[f"{head}mhsa.out_proj.weight"].T + state[f"{head}mhsa.out_proj.bias"]
    joint = pooled @ state[f"{head}c_proj.weight"].T + state[f"{head}c_proj.bias"]
    return joint / joint.norm(dim=1, keepdim=True)


@pytest.fixture(scope="module")
def text_tower(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BertModel]:
    """A directory with the configuration and tokenizer of a small BERT, and the BERT."""
    folder = tmp_path_factory.mktemp("medcpt")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_bundle)
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    config.save_pretrained(folder)
    torch.manual_seed(0)
    return folder, BertModel(config).eval()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_merl_computes_what_the_released_layout_says(
    tmp_path: Path, text_tower: tuple[Path, BertModel], prefix: str
) -> None:
    folder, bert = text_tower
    state = merl_state(bert)
    path = tmp_path / "res18_best_ckpt.pth"
    torch.save({prefix + name: tensor for name, tensor in state.items()}, path)
    encoder = open_encoder(f"merl:{path},text={folder}")
    assert (encoder.name, encoder.joint, encoder.feature_dim) == ("merl-res18_best_ckpt", True, 512)
    batch = np.random.default_rng(0).random(size=(2, 12, 5000), dtype=np.float32)
    with torch.inference_mode():
        feature_map = merl_map_by_hand(state, torch.from_numpy(batch))
        assert feature_map.shape == (2, 512, 313)
        joint = merl_joint_by_hand(state, feature_map).numpy()
    assert np.allclose(encoder.features(batch), feature_map.mean(dim=2).numpy(), atol=1e-4)
    assert np.allclose(encoder.encode(batch), joint, atol=1e-5)

    texts = ["Low QRS voltage", "inverted waves in V1 and V2"]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    for row, vector in enumerate(encoder.encode_text(texts)):  # each alone and without padding
        with torch.inference_mode():
            pooled = bert(torch.tensor([tokenizer(texts[row].lower())["input_ids"]])).pooler_output
            hidden = F.gelu(pooled @ state["proj_t.0.weight"].T + state["proj_t.0.bias"])
            expected = (hidden @ state["proj_t.2.weight"].T + state["proj_t.2.bias"])[0]
        assert np.allclose(vector, (expected / expected.norm()).numpy(), atol=1e-5)


def test_merl_with_resnet_50(tmp_path: Path, text_tower: tuple[Path, BertModel]) -> None:
    folder, bert = text_tower
    path = tmp_path / "res50_ckpt.pth"
    torch.save(merl_state(bert, (3, 4, 6, 3), bottleneck=True), path)
    assert open_encoder(f"merl:{path},text={folder}").feature_dim == 2048


def test_other_files_of_merl_are_refused_by_name(tmp_path: Path, text_tower: tuple[Path, BertModel]) -> None:
    folder, bert = text_tower
    state = merl_state(bert)
    prefix = "ecg_encoder."
    encoder_alone = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    cases = [
        (encoder_alone, "ECG encoder alone"),
        ({**state, "proj_e.0.weight": torch.zeros(1)}, "ViT variant"),
        ({name: v for name, v in state.items() if not name.startswith("att_pool_head")}, "att_pool_head"),
        ({name: v for name, v in state.items() if name != "downconv.bias"}, r"reduce\.bias"),
        ({**state, "surprise.weight": torch.zeros(1)}, r"surprise\.weight"),
        ({**state, "proj_t.0.weight": torch.zeros(256, 7)}, "size mismatch"),
    ]
    path = tmp_path / "ckpt.pth"
    for content, words in cases:
        torch.save(content, path)
        with pytest.raises(CompatibilityError, match=words):
            open_encoder(f"merl:{path},text={folder}")
    torch.save(state, path)
    with pytest.raises(NotSetUpError, match="text tower"):
        open_encoder(f"merl:{path},text={tmp_path / 'nowhere'}")


def a_waveform(fs_hz: int = 500, seconds: float = 10) -> np.ndarray:
    """Slow and fast waves, noise, and an offset in each lead."""
    random = np.random.default_rng(5)
    t = np.arange(int(fs_hz * seconds)) / fs_hz
    beats = np.sin(2 * np.pi * 1.2 * t) ** 21 + 0.1 * np.sin(2 * np.pi * 9 * t)
    leads = random.normal(size=(12, 1)) * beats + 0.05 * random.normal(size=(12, len(t))) + random.normal(size=(12, 1))
    return leads.astype(np.float32)


def test_merl_input_is_scaled_over_all_leads_in_mimic_order() -> None:
    waveform = a_waveform()
    prepared = merl_input(waveform, 500)
    stored = waveform[[0, 1, 2, 3, 5, 4, 6, 7, 8, 9, 10, 11]]
    assert np.allclose(prepared, (stored - stored.min()) / (stored.max() - stored.min()), atol=1e-6)
    assert (prepared.min(), prepared.max()) == (0, 1)
    assert np.isfinite(merl_input(np.ones((12, 5000), np.float32), 500)).all()


def test_ecgfounder_input_follows_the_published_steps() -> None:
    waveform = a_waveform()
    x = waveform.astype(np.float64)
    notch, band = signal.iirnotch(50, 30, 500), signal.butter(4, [0.67, 40], btype="bandpass", fs=500)
    for lead in range(12):
        x[lead] = signal.filtfilt(*band, signal.filtfilt(*notch, x[lead]))
        x[lead] -= signal.medfilt(x[lead], 201)
    assert np.allclose(ecgfounder_input(waveform, 500), (x - x.mean()) / x.std(), atol=1e-5)
    assert np.isfinite(ecgfounder_input(np.ones((12, 5000), np.float32), 500)).all()


def test_clef_input_follows_the_published_steps() -> None:
    waveform = a_waveform()
    x = signal.filtfilt(*signal.butter(5, [0.67, 40], btype="bandpass", fs=500), waveform[0].astype(np.float64))
    assert np.allclose(clef_input(waveform, 500)[0], (x - x.mean()) / x.std(), atol=1e-5)
    assert np.isfinite(clef_input(np.ones((12, 5000), np.float32), 500)).all()


@pytest.mark.parametrize("prepare", [merl_input, ecgfounder_input, clef_input])
def test_inputs_have_one_shape_and_a_rate_of_their_own(prepare: Any) -> None:
    full = prepare(a_waveform(), 500)
    assert full.shape[1] == 5000
    assert full.dtype == np.float32
    for other in (prepare(a_waveform(1000), 1000), prepare(a_waveform(250, 12), 250), prepare(a_waveform(100, 4), 100)):
        assert other.shape == full.shape
