"""What the electrodes add: muscle noise, mains hum and baseline wander.

Noise is made per electrode, so that the leads computed from it still obey Einthoven.
"""

import numpy as np
from numpy.typing import NDArray

from fgclep.synth.cases import Case

# Rows I, II, V1-V6; columns RA, LA, LL, then the six chest electrodes.
_FROM_ELECTRODES = np.zeros((8, 9), dtype=np.float32)
_FROM_ELECTRODES[0, :2] = (-1, 1)
_FROM_ELECTRODES[1, (0, 2)] = (-1, 1)
_FROM_ELECTRODES[2:, :3] = -1 / 3
_FROM_ELECTRODES[2:, 3:] = np.eye(6)


def draw_noise(rng: np.random.Generator, case: Case, fs_hz: int, samples: int) -> NDArray[np.float32]:
    """Return electrode noise seen by the independent leads, mV, shape (8, samples)."""
    muscle = rng.uniform(0.035, 0.08) if "NOISE" in case.artefacts else min(0.007 * rng.lognormal(0, 0.6), 0.022)
    drift = rng.uniform(0.28, 0.6) if "WANDER" in case.artefacts else min(0.035 * rng.lognormal(0, 0.6), 0.11)
    uneven = rng.uniform(0.4, 1.6, 9).astype(np.float32)[:, None]
    electrodes = rng.standard_normal((9, samples), dtype=np.float32) * (muscle * uneven)
    if fs_hz > 150:
        # Recorders pass about 150 Hz: two neighbours averaged take away the rest.
        electrodes[:, 1:] = (electrodes[:, 1:] + electrodes[:, :-1]) * np.float32(0.72)
        if rng.random() < 0.25:
            electrodes += _mains(rng, fs_hz, samples)
    electrodes += _wander(rng, drift, fs_hz, samples) * uneven
    return np.asarray(_FROM_ELECTRODES @ electrodes)


def _mains(rng: np.random.Generator, fs_hz: int, samples: int) -> NDArray[np.float32]:
    hz = float(rng.choice([50.0, 60.0]))
    size = rng.uniform(0.0, 0.012, 9).astype(np.float32)[:, None]
    return np.asarray(size * np.sin(2 * np.pi * hz * np.arange(samples, dtype=np.float32) / fs_hz), dtype=np.float32)


def _wander(rng: np.random.Generator, size: float, fs_hz: int, samples: int) -> NDArray[np.float32]:
    """Return slow drift per electrode: breathing and slower, shape (9, samples)."""
    # Drift changes slowly: 25 points per second are exact enough, and much faster.
    coarse = np.arange(0, samples / fs_hz + 0.04, 0.04)
    hz = rng.uniform(0.05, 0.45, 3)
    phase = rng.uniform(0, 2 * np.pi, (9, 3))
    weight = rng.normal(0, size / 1.7, (9, 3))
    drift = np.einsum("ek,ekt->et", weight, np.sin(2 * np.pi * hz[:, None] * coarse + phase[:, :, None]))
    fine = np.arange(samples) / fs_hz
    return np.stack([np.interp(fine, coarse, row) for row in drift]).astype(np.float32)
