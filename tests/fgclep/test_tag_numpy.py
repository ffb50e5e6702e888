"""The tag head in numpy: against torch, and what it says no to."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from fgclep.errors import CorruptionError
from fgclep.evidence import evidence_maps
from fgclep.models.config import FGCLEPConfig, tag_preset
from fgclep.models.dual_encoder import FGCLEPModel
from fgclep.models.transport import transport_plan
from fgclep.pretrained import WEIGHTS_NAME, bundle_fingerprint, load_model
from fgclep.tag_numpy import NumpyTagHead, transport_plans

TEXTS = ["low qrs voltage", "inverted waves", "sinus rhythm"]


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("kind", ["tagged_bundle", "transport_bundle"])
def test_maps_equal_those_of_torch(kind: str, scale: float, request: pytest.FixtureRequest) -> None:
    bundle = request.getfixturevalue(kind)
    model, head = load_model(bundle), NumpyTagHead.from_bundle(bundle)
    ecg = (scale * np.random.default_rng(1).normal(size=(12, 1000))).astype(np.float32)
    texts = model.encode_text(TEXTS)
    assert head is not None
    found = head.evidence_maps(ecg, texts)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, evidence_maps(model, ecg, texts), atol=1e-5)


def test_longer_input_is_averaged_down_as_in_torch(tagged_bundle: Path, tmp_path: Path) -> None:
    """The stem's weights know no rate: the same ones in a model of 500 Hz."""
    original = load_model(tagged_bundle)
    model = FGCLEPModel(FGCLEPConfig(**{**original.config.to_dict(), "n_samples": 5000})).eval()
    model.load_state_dict(original.state_dict())
    path = _copy(tagged_bundle, tmp_path / "slow", n_samples=5000)
    ecg = np.random.default_rng(2).normal(size=(12, 5000)).astype(np.float32)
    texts = original.encode_text(TEXTS)
    head = NumpyTagHead.from_bundle(path)
    assert head is not None
    np.testing.assert_allclose(head.evidence_maps(ecg, texts), evidence_maps(model, ecg, texts), atol=1e-5)


@pytest.mark.parametrize("eps", [0.02, 0.1, 1.0])
@pytest.mark.parametrize("tau", [0.0, 0.1, 1.0, np.inf])
@pytest.mark.parametrize("iterations", [1, 30])
def test_a_tag_s_plan_is_that_of_torch(eps: float, tau: float, iterations: int) -> None:
    cosines = np.random.default_rng(5).uniform(-1, 1, (7, 120)).astype(np.float32)
    settings = {"eps": eps, "tau": tau, "iterations": iterations}
    expected = transport_plan(torch.from_numpy(cosines)[:, None], **settings)[:, 0]
    found = transport_plans(cosines, **settings)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("tag", [None, tag_preset({"arch": "vit1d"}, "attention"), {"alignment": "new", "stem": {}}])
def test_other_heads_are_left_to_torch(tagged_bundle: Path, tmp_path: Path, tag: object) -> None:
    assert NumpyTagHead.from_bundle(_copy(tagged_bundle, tmp_path / "other", tag=tag)) is None


def test_missing_weights_are_told(tagged_bundle: Path, tmp_path: Path) -> None:
    path = _copy(tagged_bundle, tmp_path / "broken")
    weights = load_file(path / WEIGHTS_NAME)
    del weights["tag_head.key.weight"]
    save_file(weights, path / WEIGHTS_NAME, metadata={"format": "pt"})
    with pytest.raises(CorruptionError, match=r"tag_head\.key\.weight"):
        NumpyTagHead.from_bundle(path)
    with pytest.raises(CorruptionError, match=r"tag_head\.key\.weight"):
        load_model(path)


def test_the_head_is_part_of_the_bundle_and_its_fingerprint(tagged_bundle: Path, tiny_bundle: Path) -> None:
    tagged, plain = load_model(tagged_bundle), load_model(tiny_bundle)
    ecg = np.random.default_rng(3).normal(size=(2, 12, 1000)).astype(np.float32)
    assert bundle_fingerprint(tagged_bundle) != bundle_fingerprint(tiny_bundle)
    assert plain.tag_head is None
    assert tagged.tag_scores(ecg, TEXTS).shape == (2, 3)
    np.testing.assert_array_equal(tagged.encode_ecg(ecg), plain.encode_ecg(ecg))


def _copy(bundle: Path, path: Path, **changes: object) -> Path:
    shutil.copytree(bundle, path)
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    (path / "config.json").write_text(json.dumps({**config, **changes}), encoding="utf-8")
    return path
