"""Towers, the dual encoder and the bundle on disk."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from fgclep.errors import CompatibilityError, CorruptionError, FgclepError, NotSetUpError
from fgclep.models.config import ECG_PRESETS, FGCLEPConfig
from fgclep.models.dual_encoder import EcgEncoder, FGCLEPModel, amplitude_features, rhythm_features
from fgclep.models.finding_memory import FindingMemory
from fgclep.models.resnet1d import ResNet1d
from fgclep.preprocessing import EcgProcessor
from fgclep.pretrained import (
    Calibration,
    bundle_fingerprint,
    load_calibration,
    load_model,
    resolve_model,
    save_bundle,
)

TINY_TEXT = {
    "model_type": "bert",
    "vocab_size": 30,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


@pytest.mark.parametrize(
    ("preset", "channels", "parameters_m"),
    [("resnet1d-18", 512, 3.9), ("resnet1d-50", 2048, 16.0), ("vit1d", 192, 5.4)],
)
def test_presets_have_the_published_sizes(preset: str, channels: int, parameters_m: float) -> None:
    entry = ECG_PRESETS[preset]
    config = FGCLEPConfig(ecg=entry["ecg"], pool=entry["pool"], n_samples=5000, text=TINY_TEXT)
    encoder = EcgEncoder(config)
    assert encoder.tower.out_channels == channels
    millions = sum(p.numel() for p in encoder.tower.parameters()) / 1e6
    assert millions == pytest.approx(parameters_m, abs=0.1)


def test_resnet_time_steps() -> None:
    tower = ResNet1d("basic", (1, 1, 1, 1), (4, 4, 4, 4)).eval()
    assert tower.steps(5000) == 313
    assert tower(torch.zeros(1, 12, 5000)).shape == (1, 4, 313)


@pytest.mark.parametrize("preset", ["resnet1d-18", "vit1d", "small"])
def test_every_pool_gives_unit_vectors_that_do_not_depend_on_the_batch(preset: str) -> None:
    torch.manual_seed(0)
    entry = ECG_PRESETS[preset]
    ecg = dict(entry["ecg"])
    ecg.update({"widths": [8, 8, 8, 8]} if ecg["arch"] == "resnet1d" else {"width": 64, "depth": 1})
    encoder = EcgEncoder(FGCLEPConfig(ecg=ecg, pool=entry["pool"], n_samples=1000, dim=32, text=TINY_TEXT)).eval()
    waveforms = torch.randn(5, 12, 1000)
    with torch.inference_mode():
        together = encoder(waveforms)
        alone = torch.cat([encoder(waveforms[i : i + 1]) for i in range(5)])
    assert together.shape == (5, 32)
    assert torch.allclose(together.norm(dim=1), torch.ones(5), atol=1e-5)
    assert torch.allclose(together, alone, atol=1e-5)


def test_amplitude_reaches_the_vector(tiny_bundle: Path) -> None:
    """A scaled ECG is another ECG: low voltage must be visible to the model."""
    model = load_model(tiny_bundle)
    waveform = np.random.default_rng(0).normal(size=(1, 12, 1000)).astype(np.float32)
    assert not np.allclose(model.encode_ecg(waveform), model.encode_ecg(waveform * 0.3), atol=1e-3)


def test_amplitude_features_are_what_numpy_measures() -> None:
    waveforms = np.random.default_rng(1).normal(size=(3, 12, 730)).astype(np.float32)
    seconds = waveforms[:, :, :700].reshape(3, 12, 7, 100)
    expected = [np.ptp(waveforms, axis=2), waveforms.std(axis=2, ddof=1), np.median(np.ptp(seconds, axis=3), axis=2)]
    got = amplitude_features(torch.from_numpy(waveforms), 100).numpy()
    np.testing.assert_allclose(got, np.log(np.concatenate(expected, axis=1)), atol=1e-5)


def test_rhythm_features_are_the_autocorrelation_of_the_spatial_velocity() -> None:
    waveform = np.random.default_rng(2).normal(size=(12, 1000)).astype(np.float32).cumsum(axis=1)
    velocity = np.sqrt((np.diff(waveform.reshape(12, 500, 2).sum(axis=2)) ** 2).sum(axis=0))
    velocity = np.minimum(velocity, np.sort(velocity)[round(0.98 * len(velocity)) - 1])
    velocity -= velocity.mean()
    expected = [np.mean(velocity[:-lag] * velocity[lag:]) / np.mean(velocity**2) for lag in range(10, 150)]
    got = rhythm_features(torch.from_numpy(waveform)[None], 100).numpy()[0]
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_rhythm_features_tell_regular_from_irregular_at_any_rate_and_size() -> None:
    """A peak at RR, 0.8 s, however large the complexes are; none where RR wanders. A flat strip gives zeros."""

    def strip(beats_s: np.ndarray, fs_hz: int, size_mv: float) -> torch.Tensor:
        time = np.arange(10 * fs_hz) / fs_hz
        complexes = np.exp(-(((time[None] - beats_s[:, None]) / 0.02) ** 2)).sum(axis=0)
        return torch.from_numpy((size_mv * np.tile(complexes, (1, 12, 1))).astype(np.float32))

    regular = np.arange(0.3, 10, 0.8)
    irregular = np.cumsum(np.random.default_rng(3).uniform(0.45, 1.15, 12))
    lags_s = 0.2 + np.arange(140) / 50
    for fs_hz in (100, 500):
        features = rhythm_features(strip(regular, fs_hz, 1.0), fs_hz)[0]
        assert abs(lags_s[int(features[:50].argmax())] - 0.8) <= 0.02
        assert features[:50].max() > 0.8
        assert torch.allclose(features, rhythm_features(strip(regular, fs_hz, 0.1), fs_hz)[0], atol=1e-3)
        assert rhythm_features(strip(irregular, fs_hz, 1.0), fs_hz)[0].max() < 0.5
    assert not rhythm_features(torch.zeros(1, 12, 1000), 100).any()


def test_a_rate_that_rhythm_cannot_be_measured_at_is_refused() -> None:
    entry = ECG_PRESETS["small"]
    with pytest.raises(ValueError, match="a multiple of 50 Hz, not 1280 samples"):
        EcgEncoder(FGCLEPConfig(ecg=entry["ecg"], pool=entry["pool"], n_samples=1280, text=TINY_TEXT))


def test_memory_draws_texts_to_the_findings_they_resemble() -> None:
    """Near one finding a text comes nearer; between two it favours neither; unlike all of them it stays."""
    memory = FindingMemory(3, 4, sharpness=16.0, pull=3.0, threshold=0.5)
    memory.vectors.data = torch.eye(4)[:3]
    texts = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0.2, 0.1, 0.5], [1.0, 1.0, 0.0, 0.5], [0.1, 0.0, -0.2, 1.0]]), dim=1
    )
    with torch.inference_mode():
        near, between, unlike = memory(texts)
    assert near[0] > texts[0, 0] + 0.05
    assert between[0].item() == pytest.approx(between[1].item(), abs=1e-6)
    assert unlike @ texts[2] > 0.999
    cosines = texts.numpy()[:, :3]
    shares = np.exp(16 * cosines) / (np.exp(16 * cosines).sum(1, keepdims=True) + np.exp(16 * 0.5))
    moved = texts.numpy() + 3 * shares @ np.eye(4)[:3]
    expected = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    np.testing.assert_allclose(torch.stack([near, between, unlike]).numpy(), expected, atol=1e-5)


def test_bundle_round_trip(tiny_bundle: Path, tmp_path: Path) -> None:
    """A model that is saved and loaded again encodes as it did; its weights are exact in float16 already."""
    model = load_model(tiny_bundle)
    saved = tmp_path / "saved"
    processor = EcgProcessor.from_pretrained(tiny_bundle)
    save_bundle(saved, model, model.tokenizer, processor, load_calibration(tiny_bundle), card="A copy.\n")
    again = load_model(saved)
    waveforms = np.random.default_rng(1).normal(size=(3, 12, 1000)).astype(np.float32)
    texts = ["low qrs voltage", "inverted t waves in v1", ""]
    assert np.array_equal(model.encode_ecg(waveforms), again.encode_ecg(waveforms))
    assert np.array_equal(model.encode_text(texts), again.encode_text(texts))
    assert EcgProcessor.from_pretrained(saved) == processor
    assert load_calibration(saved) == load_calibration(tiny_bundle)
    copied = shutil.copytree(tiny_bundle, tmp_path / "copied")
    assert bundle_fingerprint(copied) == bundle_fingerprint(tiny_bundle)


def test_a_bundle_is_replaced_once_the_new_one_is_whole(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    saved = shutil.copytree(tiny_bundle, tmp_path / "saved")
    (saved / "of-an-older-kind.txt").write_text("", encoding="utf-8")
    parts = load_model(tiny_bundle), load_model(tiny_bundle).tokenizer, EcgProcessor.from_pretrained(tiny_bundle)
    with torch.no_grad():
        parts[0].bias += 1
    with monkeypatch.context() as patched, pytest.raises(FgclepError, match=r"No space left.*what was there is kept"):
        patched.setattr(EcgProcessor, "save_pretrained", full)
        save_bundle(saved, *parts, load_calibration(tiny_bundle), card="New.\n")
    assert bundle_fingerprint(saved) == bundle_fingerprint(tiny_bundle)
    save_bundle(saved, *parts, load_calibration(tiny_bundle), card="New.\n")
    assert bundle_fingerprint(saved) != bundle_fingerprint(tiny_bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    assert not (saved / "of-an-older-kind.txt").exists()


def test_transformers_way_of_loading_gives_the_same_model(tiny_bundle: Path) -> None:
    model = FGCLEPModel.from_pretrained(tiny_bundle, dtype=torch.float32).eval()
    texts = ["low qrs voltage", "sinus rhythm"]
    assert np.array_equal(model.encode_text(texts), load_model(tiny_bundle).encode_text(texts))


def test_text_vector_does_not_depend_on_its_neighbours(tiny_bundle: Path) -> None:
    model = load_model(tiny_bundle)
    texts = ["sinus rhythm", "a much longer sentence about inverted waves in several leads of one ecg", "low voltage"]
    alone = np.concatenate([model.encode_text([text]) for text in texts])
    assert np.allclose(model.encode_text(texts), alone, atol=1e-5)


def test_wrong_input_shape_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(ValueError, match=r"\(batch, 12, 1000\)"):
        load_model(tiny_bundle).encode_ecg(np.zeros((2, 12, 5000), np.float32))


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"])
def test_fingerprint_covers_every_part(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copied)
    with (copied / name).open("ab") as file:
        file.write(b" ")
    assert bundle_fingerprint(copied) != bundle_fingerprint(tiny_bundle)


def test_damaged_bundles_are_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    truncated = tmp_path / "truncated"
    shutil.copytree(tiny_bundle, truncated)
    weights = truncated / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CorruptionError, match="truncated"):
        load_model(truncated)
    (truncated / "model.safetensors").unlink()
    with pytest.raises(CorruptionError, match=r"lacks model\.safetensors"):
        load_model(truncated)
    foreign = tmp_path / "foreign"
    shutil.copytree(tiny_bundle, foreign)
    config = json.loads((foreign / "config.json").read_text())
    (foreign / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(CompatibilityError, match="bert"):
        load_model(foreign)


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_weights_that_do_not_fit_the_configuration_are_refused(tiny_bundle: Path, tmp_path: Path, change: str) -> None:
    """transformers would warn and go on with random weights in place of the missing ones."""
    copied = shutil.copytree(tiny_bundle, tmp_path / "copy")
    weights = load_file(copied / "model.safetensors")
    if change == "missing":
        del weights["text_head.0.weight"]
    else:
        weights["text_head.9.weight"] = weights["text_head.0.weight"]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CorruptionError, match=r"text_head\.\d\.weight"):
        load_model(copied)


def test_unknown_model_names_what_there_is() -> None:
    with pytest.raises(NotSetUpError, match="no model bundle 'nonesuch'"):
        resolve_model("nonesuch")


def test_calibration_is_monotone_and_bounded(tiny_bundle: Path) -> None:
    calibration = load_calibration(tiny_bundle)
    scores = calibration.score(np.linspace(-1, 1, 101))
    assert ((scores > 0) & (scores < 1)).all()
    assert (np.diff(scores) > 0).all()
    assert Calibration(10, -2).score(np.array([0.2]))[0] == pytest.approx(0.5)
