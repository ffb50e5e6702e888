"""MERL checkpoints, built from the documented names and shapes, opened, and computed again by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from fgclep.errors import CompatibilityError, NotSetUpError
from fgclep.evaluation.encoders import open_encoder
from tests.fgclep.checkpoint_maker import Maker, State


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
