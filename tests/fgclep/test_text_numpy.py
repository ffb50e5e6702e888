"""The text tower in numpy says what the one in torch says, or says that it does not understand the bundle."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fgclep.errors import CorruptionError
from fgclep.findings.catalog import findings
from fgclep.models.config import FGCLEPConfig
from fgclep.models.dual_encoder import FGCLEPModel
from fgclep.preprocessing import EcgProcessor
from fgclep.pretrained import WEIGHTS_NAME, Calibration, load_model, resolve_model, save_bundle
from fgclep.text_numpy import NumpyTextEncoder, erf

ODD = [
    "",
    "  \t\n",
    "sinus rhythm",
    "SINUS   Rhythm!",
    "ＳＴ élévation – “V1” ≥ 0.2 mV",
    "心电图 ❤️ \u200b\x00 ST-T",
    "[CLS] [MASK] low voltage [SEP]",
    "supercalifragilistic" * 12,
]
LONG = ["inverted waves in V1 " * 200, "q" * 500, "low QRS voltage"]


def disagreement(model: FGCLEPModel, encoder: NumpyTextEncoder, texts: list[str]) -> float:
    """Largest difference of any component; both sides have unit norm."""
    expected, found = model.encode_text(texts), encoder.encode_text(texts)
    assert found.shape == expected.shape and found.dtype == np.float32
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-6
    return float(np.abs(found - expected).max())


def test_the_shipped_bundle_gives_the_vectors_of_torch() -> None:
    bundle = resolve_model(None)
    encoder, model = NumpyTextEncoder.from_bundle(bundle), load_model(bundle)
    assert encoder is not None
    wordings = [wording.text for finding in findings().values() for wording in (*finding.wordings, *finding.held_out)]
    asked = wordings[:: len(wordings) // 200]
    assert len(asked) >= 200
    for texts in (asked, ODD, LONG):
        assert disagreement(model, encoder, texts) < 1e-5  # a cosine within 1e-9 of 1
    together, alone = encoder.encode_text([*ODD, *LONG]), [encoder.encode_text([text])[0] for text in [*ODD, *LONG]]
    assert np.abs(together - alone).max() < 1e-6
    assert encoder.encode_text([]).shape == (0, model.dim)


def test_texts_without_a_single_token_are_encoded_too(tiny_bundle: Path) -> None:
    """The tokenizer of the tests adds no special tokens, so that an empty text has none at all."""
    encoder = NumpyTextEncoder.from_bundle(tiny_bundle)
    assert encoder is not None
    assert disagreement(load_model(tiny_bundle), encoder, [*ODD, *LONG]) < 1e-5


def make_tower(path: Path, tiny_bundle: Path, text_pool: str, **text: Any) -> FGCLEPModel:
    """Write a bundle with two-layered towers, every weight random: untouched biases would hide a mistake."""
    torch.manual_seed(3)
    tiny = load_model(tiny_bundle)
    settings: dict[str, Any] = {**tiny.config.to_dict(), "text_pool": text_pool}
    settings["text"] = {**settings["text"], "num_hidden_layers": 2, **text}
    model = FGCLEPModel(FGCLEPConfig(**settings)).eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if name.startswith("text"):
                weights.add_(torch.randn_like(weights) * 0.3)
    save_bundle(
        path, model, tiny.tokenizer, EcgProcessor.from_pretrained(tiny_bundle), Calibration(1.0, 0.0), "", False
    )
    return load_model(path)


@pytest.mark.parametrize("text_pool", ["mean", "cls", "pooler"])
def test_every_pooling_gives_the_vectors_of_torch(tmp_path: Path, tiny_bundle: Path, text_pool: str) -> None:
    model = make_tower(tmp_path, tiny_bundle, text_pool, layer_norm_eps=1e-3)
    encoder = NumpyTextEncoder.from_bundle(tmp_path)
    assert encoder is not None
    assert disagreement(model, encoder, ["sinus rhythm", "low voltage in v1", *LONG]) < 1e-5


def change_config(bundle: Path, **changes: Any) -> None:
    """Overwrite entries of `config.json`; `text__KEY` means one of the text tower."""
    config = json.loads((bundle / "config.json").read_text(encoding="utf-8"))
    for key, value in changes.items():
        (config["text"] if key.startswith("text__") else config)[key.removeprefix("text__")] = value
    (bundle / "config.json").write_text(json.dumps(config), encoding="utf-8")


def to_bfloat16(bundle: Path) -> None:
    state = load_file(bundle / WEIGHTS_NAME)
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in state.items()}, bundle / WEIGHTS_NAME)


def cut_left(bundle: Path) -> None:
    file = bundle / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**settings, "truncation_side": "left"}), encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    [
        lambda bundle: change_config(bundle, text__model_type="distilbert"),
        lambda bundle: change_config(bundle, text__hidden_act="relu"),
        lambda bundle: change_config(bundle, text__position_embedding_type="relative_key"),
        lambda bundle: change_config(bundle, text_pool="last"),
        lambda bundle: change_config(bundle, model_type="other"),
        to_bfloat16,
        cut_left,
    ],
)
def test_what_is_not_understood_is_left_to_torch(
    tmp_path: Path, tiny_bundle: Path, change: Callable[[Path], None]
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    assert NumpyTextEncoder.from_bundle(bundle) is not None
    change(bundle)
    assert NumpyTextEncoder.from_bundle(bundle) is None


def drop_tensor(bundle: Path) -> None:
    state = load_file(bundle / WEIGHTS_NAME)
    del state["text_head.2.bias"]
    save_file(state, bundle / WEIGHTS_NAME)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda bundle: (bundle / "config.json").write_text("{"), "config.json is not a readable JSON object"),
        (lambda bundle: (bundle / "config.json").write_text("[]"), "it holds a list"),
        (lambda bundle: (bundle / "config.json").unlink(), "config.json is not a readable"),
        (lambda bundle: (bundle / WEIGHTS_NAME).write_bytes(b"\0" * 100), "not a readable safetensors file"),
        (lambda bundle: (bundle / WEIGHTS_NAME).unlink(), "not a readable safetensors file"),
        (lambda bundle: (bundle / "tokenizer.json").write_text("{}"), "not a readable tokenizer"),
        (lambda bundle: change_config(bundle, text__vocab_size=9), "1 are missing or of another shape.*word_embed"),
        (drop_tensor, r"1 are missing or of another shape, such as text_head\.2\.bias"),
    ],
)
def test_damage_is_named(tmp_path: Path, tiny_bundle: Path, damage: Callable[[Path], None], says: str) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    damage(bundle)
    with pytest.raises(CorruptionError, match=says):
        NumpyTextEncoder.from_bundle(bundle)


def test_the_error_function_is_that_of_the_standard_library() -> None:
    values = np.concatenate([np.linspace(-6, 6, 20_001), [0.0, -0.0, 1e-20, -1e-20, 40.0, -40.0]]).astype(np.float32)
    expected = [math.erf(value) for value in values.tolist()]
    assert np.abs(erf(values) - expected).max() < 1e-6
