import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fgclep.errors import NotSetUpError, UsageError
from fgclep.evaluation.encoders import BundleEncoder, open_encoder
from fgclep.models.config import ECG_PRESETS, FGCLEPConfig
from fgclep.models.dual_encoder import FGCLEPModel
from fgclep.preprocessing import EcgProcessor
from fgclep.pretrained import bundle_fingerprint, load_model


def inputs(n: int, samples: int = 1000) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(n, 12, samples)).astype(np.float32)


def test_bundle_encodes_as_the_model_does(tiny_bundle: Path) -> None:
    encoder, model, batch = open_encoder(str(tiny_bundle)), load_model(tiny_bundle), inputs(3)
    np.testing.assert_allclose(encoder.encode(batch), model.encode_ecg(batch), atol=1e-5)
    assert np.array_equal(encoder.encode_text(("low voltage", "")), model.encode_text(["low voltage", ""]))
    assert encoder.fingerprint == bundle_fingerprint(tiny_bundle)
    assert (encoder.name, encoder.joint, encoder.fs_hz) == ("tiny", True, 100)
    waveform = inputs(1, 2000)[0]
    expected = EcgProcessor.from_pretrained(tiny_bundle).prepare(waveform, 200)
    assert np.array_equal(encoder.prepare(waveform, 200), expected)


def test_features_are_all_that_the_projections_see(tiny_bundle: Path) -> None:
    model, batch = load_model(tiny_bundle), inputs(4)
    tower = model.ecg_encoder
    torch.nn.init.normal_(tower.project_rhythm.weight)  # begins at zero
    encoder = BundleEncoder("any", "0" * 16, model, EcgProcessor.from_pretrained(tiny_bundle))
    features = torch.from_numpy(encoder.features(batch))
    assert features.shape == (4, encoder.feature_dim)
    assert encoder.feature_dim == 8 + 8 + 64 + 64  # mean, maximum, amplitude, rhythm
    with torch.inference_mode():
        joint = tower.project(features[:, :80]) + tower.project_rhythm(features[:, 80:])
    assert np.allclose(torch.nn.functional.normalize(joint, dim=1).numpy(), encoder.encode(batch), atol=1e-6)


@pytest.mark.parametrize("preset", ["resnet1d-18", "vit1d"])
def test_features_of_the_published_towers_are_means_over_time(preset: str) -> None:
    torch.manual_seed(0)
    entry = ECG_PRESETS[preset]
    ecg = dict(entry["ecg"])
    ecg.update({"widths": [8, 8, 8, 8]} if ecg["arch"] == "resnet1d" else {"width": 64, "depth": 1})
    text = {"model_type": "bert", "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = FGCLEPModel(FGCLEPConfig(ecg=ecg, pool=entry["pool"], n_samples=1000, dim=16, text=text)).eval()
    encoder = BundleEncoder("any", "0" * 16, model, EcgProcessor(100, 1000, None, "none"))
    batch = inputs(2)
    with torch.inference_mode():
        expected = model.ecg_encoder.tower(torch.from_numpy(batch)).mean(dim=2).numpy()
    assert np.allclose(encoder.features(batch), expected, atol=1e-6)


def test_vectors_do_not_depend_on_the_batch(tiny_bundle: Path) -> None:
    encoder, batch = open_encoder(str(tiny_bundle)), inputs(5)
    for encode in (encoder.encode, encoder.features):
        alone = np.concatenate([encode(batch[row : row + 1]) for row in range(5)])
        assert np.allclose(encode(batch), alone, atol=1e-5)


def test_random_weights_are_the_same_each_time_and_not_the_bundle_s(other_bundle: Path) -> None:
    before = torch.random.get_rng_state()
    random = open_encoder(f"random:{other_bundle}")
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(99)
    again, trained, batch = open_encoder(f"random:{other_bundle}"), open_encoder(str(other_bundle)), inputs(2)
    assert np.array_equal(random.encode(batch), again.encode(batch))
    assert np.array_equal(random.encode_text(["sinus rhythm"]), again.encode_text(["sinus rhythm"]))
    assert not np.allclose(random.features(batch), trained.features(batch), atol=1e-2)
    assert random.fingerprint == again.fingerprint != trained.fingerprint
    assert random.feature_dim == trained.feature_dim
    assert random.name == "random-other"


def test_a_training_run_names_its_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(tiny_bundle, tmp_path / "run7" / "bundle")
    assert open_encoder(str(copied)).name == "run7-bundle"


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ("nonesuch", NotSetUpError, "no model bundle 'nonesuch'"),
        ("random:nonesuch", NotSetUpError, "no model bundle 'nonesuch'"),
        ("clip:a.pt", UsageError, "unknown kind of model 'clip'"),
        ("merl:a.pt,tower=b", UsageError, "'tower=b'"),
        ("clef:a.ckpt,text=b", UsageError, "clef knows none"),
        ("clef:absent.ckpt", NotSetUpError, "absent.ckpt does not exist"),
    ],
)
def test_specs_that_name_nothing_are_refused(spec: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        open_encoder(spec)
