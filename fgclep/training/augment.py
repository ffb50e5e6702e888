"""Changes to a batch of waveforms that leave every finding true."""

import numpy as np
from numpy.typing import NDArray


def augment(waveforms: NDArray[np.float32], fs_hz: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Shift in time, scale by a few per cent, add wander and noise, drop a lead; in place.

    Amplitudes stay within 4 %: low and high voltage are findings. A dropped lead is rare enough (5 % of leads in a
    tenth of the ECGs) to teach robustness without hiding per-lead findings.

    Args:
        waveforms: float32, shape (batch, 12, samples), mV.
        fs_hz: sampling rate.
        rng: source of randomness.
    """
    batch, leads, samples = waveforms.shape
    shifts = rng.integers(-fs_hz // 2, fs_hz // 2 + 1, size=(batch,))
    for row, shift in enumerate(shifts):
        waveforms[row] = np.roll(waveforms[row], int(shift), axis=1)
    waveforms *= rng.normal(1, 0.02, (batch, 1, 1)).clip(0.96, 1.04).astype(np.float32)
    seconds = np.arange(samples, dtype=np.float32) / np.float32(fs_hz)
    phase = 2 * np.pi * (rng.uniform(0.05, 0.5, (batch, 1, 1)) * seconds + rng.random((batch, leads, 1)))
    wander = np.where(rng.random((batch, 1, 1)) < 0.3, rng.exponential(0.04, (batch, leads, 1)), 0)
    waveforms += (wander * np.sin(phase)).astype(np.float32)
    level = np.where(rng.random((batch, 1, 1)) < 0.3, rng.exponential(0.012, (batch, leads, 1)), 0).astype(np.float32)
    waveforms += level * rng.standard_normal(waveforms.shape, dtype=np.float32)
    dropped = (rng.random((batch, 1, 1)) < 0.1) & (rng.random((batch, leads, 1)) < 0.05)
    waveforms[np.broadcast_to(dropped, waveforms.shape)] = 0
    return waveforms
