"""The model's input: one ECG at any rate becomes the same array."""

import json
from pathlib import Path

import numpy as np
import pytest

from fgclep.errors import CorruptionError
from fgclep.preprocessing import EcgProcessor
from fgclep.record import Waveform

SMALL = EcgProcessor(fs_hz=100, n_samples=1000, lowpass_hz=40.0, center="none")
EDGE = 40  # samples where the held edges show


def _tones(fs_hz: float, seconds: float = 10) -> Waveform:
    t = np.arange(round(seconds * fs_hz)) / fs_hz
    return np.stack([np.sin(2 * np.pi * (k + 0.3) * t + k) for k in range(12)]).astype(np.float32)


@pytest.mark.parametrize("fs_hz", [100, 250, 257, 360, 500, 1000])
def test_tones_below_the_cut_survive_any_rate(fs_hz: float) -> None:
    got = SMALL.prepare(_tones(fs_hz), fs_hz)
    want = _tones(100)
    assert got.shape == (12, 1000)
    assert np.abs(got - want)[:, EDGE:-EDGE].max() < 0.015


@pytest.mark.parametrize("fs_hz", [100, 500])
def test_tones_above_the_cut_are_removed(fs_hz: int) -> None:
    t = np.arange(10 * fs_hz) / fs_hz
    hum = np.tile(np.sin(2 * np.pi * 49.5 * t), (12, 1)).astype(np.float32)
    assert np.abs(SMALL.prepare(hum, fs_hz))[:, EDGE:-EDGE].max() < 0.05


def test_paper_input_passes_unchanged() -> None:
    paper = EcgProcessor(fs_hz=500, n_samples=5000, lowpass_hz=None, center="none")
    waveform = _tones(500)
    assert np.array_equal(paper.prepare(waveform, 500), waveform)


@pytest.mark.parametrize("seconds", [0.3, 4, 10, 30])
@pytest.mark.parametrize("fs_hz", [100, 128, 250, 257, 360, 500, 1000])
def test_the_matrix_does_what_the_polyphase_filter_does(
    fs_hz: float, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    waveform = np.random.default_rng(0).standard_normal((12, round(fs_hz * seconds))).astype(np.float32)
    for processor in (SMALL, EcgProcessor(fs_hz=250, n_samples=2500, lowpass_hz=None, center="median")):
        quick = processor.prepare(waveform, fs_hz)
        with monkeypatch.context() as patch:
            patch.setattr(EcgProcessor, "block_filter", lambda self, fs_hz: None)
            np.testing.assert_allclose(quick, processor.prepare(waveform, fs_hz), atol=1e-5)


def test_a_rate_without_common_measure_needs_no_huge_matrix() -> None:
    assert SMALL.block_filter(257.38) is None
    assert np.abs(SMALL.prepare(_tones(257.38), 257.38) - _tones(100))[:, EDGE:-EDGE].max() < 0.015


def test_length_is_padded_and_cropped() -> None:
    short = SMALL.prepare(_tones(100, seconds=4), 100)
    assert not short[:, 400:].any()
    assert short[:, 100:300].any()
    long = SMALL.prepare(_tones(100, seconds=30), 100)
    assert long.shape == (12, 1000)
    assert np.abs(long - _tones(100))[:, EDGE:-EDGE].max() < 0.015


def test_median_centre_removes_an_offset() -> None:
    centred = EcgProcessor(fs_hz=100, n_samples=1000, lowpass_hz=40.0, center="median")
    waveform = _tones(500)
    assert np.allclose(centred.prepare(waveform, 500), centred.prepare(waveform + 3, 500), atol=1e-5)


def test_real_records_agree_at_both_rates(shared_data: Path) -> None:
    """PTB-XL's two files of one ECG stand 1.25 ms apart; after that shift they are one signal below 40 Hz."""
    from fgclep.datasets import open_dataset

    both = {rate: open_dataset(shared_data / "ptbxl", fs_hz=rate) for rate in (100, 500)}
    differences = []
    for info_100, info_500 in zip(both[100].iter_infos(), both[500].iter_infos(), strict=True):
        assert info_100.record_id == info_500.record_id
        low, high = (
            SMALL.prepare(record.waveform, record.fs_hz)
            for record in (both[100].read(info_100), both[500].read(info_500))
        )
        shift = np.exp(2j * np.pi * np.fft.rfftfreq(1000, 0.01) * 1.25e-3)
        shifted = np.fft.irfft(np.fft.rfft(high) * shift, 1000)
        inner = slice(EDGE, -EDGE)
        differences.append(np.linalg.norm((shifted - low)[:, inner]) / np.linalg.norm(low[:, inner]))
    assert len(differences) == 60
    assert np.median(differences) < 0.03


def test_configuration_round_trip_and_damage(tmp_path: Path) -> None:
    SMALL.save_pretrained(tmp_path)
    assert EcgProcessor.from_pretrained(tmp_path) == SMALL
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": 99}))
    with pytest.raises(CorruptionError, match="version 99"):
        EcgProcessor.from_pretrained(tmp_path)
    for damaged in ("{", json.dumps({"fs_hz": 100, "n_samples": 1000, "lowpass_hz": 40.0, "center": "mean"})):
        file.write_text(damaged)
        with pytest.raises(CorruptionError, match="preprocessor"):
            EcgProcessor.from_pretrained(tmp_path)
