"""What the adapters make of a waveform, against their steps written out."""

from typing import Any

import numpy as np
import pytest
from scipy import signal

from fgclep.evaluation.adapters.clef import clef_input
from fgclep.evaluation.adapters.ecgfounder import ecgfounder_input
from fgclep.evaluation.adapters.merl import merl_input


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


def test_ecgfounder_input_follows_the_steps_it_names() -> None:
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
