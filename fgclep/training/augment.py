"""Changes to a batch of waveforms: some leave every finding true, mixing shares them."""

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
    for ecg in np.flatnonzero(rng.random(batch) < 0.3):  # row by row: most have none, and sines and noise are slow
        phase = 2 * np.pi * (rng.uniform(0.05, 0.5) * seconds + rng.random((leads, 1)))
        wander = rng.exponential(0.04, (leads, 1)).astype(np.float32)
        waveforms[ecg] += wander * np.sin(phase.astype(np.float32))
    for ecg in np.flatnonzero(rng.random(batch) < 0.3):
        level = rng.exponential(0.012, (leads, 1)).astype(np.float32)
        waveforms[ecg] += level * rng.standard_normal((leads, samples), dtype=np.float32)
    for ecg in np.flatnonzero(rng.random(batch) < 0.1):
        waveforms[ecg, rng.random(leads) < 0.05] = 0
    return waveforms


def crop(waveforms: NDArray[np.float32], shortest: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Cut the whole batch to one random length, from one random start.

    Args:
        waveforms: float32, shape (batch, 12, samples).
        shortest: least share of the samples that stays.
        rng: source of randomness.
    """
    samples = waveforms.shape[2]
    length = int(samples * rng.uniform(shortest, 1))
    start = int(rng.integers(samples - length + 1))
    return waveforms[:, :, start : start + length]


def mix(
    waveforms: NDArray[np.float32], concentration: float, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.intp], float]:
    """Add to each ECG another one of the batch (mixup, arXiv:1710.09412).

    Args:
        waveforms: float32, shape (batch, 12, samples).
        concentration: both parameters of the Beta distribution of the share; small ones leave most batches nearly
            unmixed.
        rng: source of randomness.

    Returns:
        The mixed ECGs, the partner of each row, and the share of the row's own ECG: its findings count so much, its
        partner's the rest.
    """
    partners = rng.permutation(len(waveforms))
    own = float(rng.beta(concentration, concentration))
    return (own * waveforms + (1 - own) * waveforms[partners]).astype(np.float32), partners, own
