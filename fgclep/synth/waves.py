"""Dipole waves: sums of Gaussians in time, each carried by a 3-D dipole plus a small local source.

Eight leads (I, II, V1-V6) are independent; the other limb leads follow from Einthoven and Goldberger, so
their identities hold by construction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Dower's coefficients, rows I, II, V1-V6: dipole axes x to the patient's left, y to the feet, z to the back.
LEAD_FIELD: Floats = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)

TO_TWELVE: Floats = np.array(
    [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0, 0, 0],
        [-1, 1, 0, 0, 0, 0, 0, 0],
        [-0.5, -0.5, 0, 0, 0, 0, 0, 0],
        [1, -0.5, 0, 0, 0, 0, 0, 0],
        [-0.5, 1, 0, 0, 0, 0, 0, 0],
        *np.eye(8)[2:],
    ]
)


@dataclass(frozen=True)
class Waves:
    """K Gaussian waves.

    Attributes:
        centre: seconds from the beat's reference, shape (K,).
        left, right: standard deviations before and after the centre, seconds, shape (K,).
        dipole: mV, shape (3, K).
        local: mV added in each independent lead by sources near its electrode, shape (8, K).
    """

    centre: Floats
    left: Floats
    right: Floats
    dipole: Floats
    local: Floats

    @property
    def weights(self) -> Floats:
        """Amplitude of each wave in each independent lead, mV, shape (8, K)."""
        return np.asarray(LEAD_FIELD @ self.dipole + self.local)

    @property
    def axis_deg(self) -> float:
        """Frontal axis of the net area, degrees in -180..180."""
        area = self.weights[:2] @ (self.left + self.right)
        return float(np.degrees(np.arctan2((2 * area[1] - area[0]) / np.sqrt(3), area[0])))

    def scaled(self, factor: float) -> "Waves":
        """Return the waves with all amplitudes multiplied."""
        return replace(self, dipole=self.dipole * factor, local=self.local * factor)

    def stretched(self, factor: float) -> "Waves":
        """Return the waves slowed down around their reference."""
        return replace(self, centre=self.centre * factor, left=self.left * factor, right=self.right * factor)

    def plus(self, *others: "Waves") -> "Waves":
        """Return these waves followed by others."""
        every = (self, *others)
        return Waves(
            np.concatenate([w.centre for w in every]),
            np.concatenate([w.left for w in every]),
            np.concatenate([w.right for w in every]),
            np.concatenate([w.dipole for w in every], axis=1),
            np.concatenate([w.local for w in every], axis=1),
        )

    def turned(self, degrees: float, axes: tuple[int, int] = (0, 1)) -> "Waves":
        """Return the waves with the dipole turned in the plane of two axes (frontal by default)."""
        angle = np.radians(degrees)
        first, second = axes
        dipole = self.dipole.copy()
        dipole[first] = np.cos(angle) * self.dipole[first] - np.sin(angle) * self.dipole[second]
        dipole[second] = np.sin(angle) * self.dipole[first] + np.cos(angle) * self.dipole[second]
        return replace(self, dipole=dipole)

    def with_axis(self, target_deg: float) -> "Waves":
        """Return the waves turned in the frontal plane until their net axis is the target.

        The lead field is not a rotation, so the angle is solved for: across the target direction the net area
        is p cos(a) + q sin(a) + r, and it must vanish. Returned unchanged where local sources leave no solution.
        """
        width = self.left + self.right
        x, y, z = self.dipole @ width
        to_plane = np.array([[1.0, 0.0], [-1 / np.sqrt(3), 2 / np.sqrt(3)]])
        field = to_plane @ LEAD_FIELD[:2]
        fixed = field[:, 2] * z + to_plane @ (self.local[:2] @ width)
        target = np.radians(target_deg)
        across = np.array([-np.sin(target), np.cos(target)])
        p, q, r = across @ field[:, :2] @ (x, y), across @ field[:, :2] @ (-y, x), across @ fixed
        size = np.hypot(p, q)
        if abs(r) > size:
            return self
        middle, half = np.arctan2(q, p), np.arccos(-r / size)
        turned = [self.turned(float(np.degrees(angle))) for angle in (middle + half, middle - half)]
        return min(turned, key=lambda waves: abs((waves.axis_deg - target_deg + 180) % 360 - 180))

    def sample(self, times: Floats) -> Floats:
        """Evaluate the independent leads at times in seconds; returns mV, shape (8, len(times))."""
        distance = times[None, :] - self.centre[:, None]
        width = np.where(distance < 0, self.left[:, None], self.right[:, None])
        return np.asarray(self.weights @ np.exp(-0.5 * (distance / width) ** 2))


def dipole_waves(rows: Sequence[tuple[float, float, float, Sequence[float] | Floats]]) -> Waves:
    """Build waves from rows of (centre ms, left ms, right ms, dipole xyz in mV)."""
    timing = np.array([row[:3] for row in rows]) / 1000
    dipole = np.array([row[3] for row in rows], dtype=float).T
    return Waves(timing[:, 0], timing[:, 1], timing[:, 2], dipole, np.zeros((8, len(rows))))


def local_wave(centre_ms: float, left_ms: float, right_ms: float, leads: Floats) -> Waves:
    """Build one wave from its amplitude (mV) in each of the eight independent leads."""
    timing = np.array([[centre_ms], [left_ms], [right_ms]]) / 1000
    return Waves(timing[0], timing[1], timing[2], np.zeros((3, 1)), np.asarray(leads, dtype=float)[:, None])


NO_WAVES = Waves(np.zeros(0), np.ones(0), np.ones(0), np.zeros((3, 0)), np.zeros((8, 0)))


def add_beats(
    canvas: NDArray[np.float32],
    fs_hz: float,
    start_s: float,
    waves: Waves,
    times: Floats,
    stretch: Floats,
    gain: Floats,
) -> None:
    """Add one group of waves at each beat time to the canvas, in place.

    Args:
        canvas: mV, shape (8, samples); its first sample is at `start_s`.
        times: reference time of each beat, seconds, shape (B,).
        stretch: time factor of each beat, shape (B,).
        gain: amplitude factor of each beat, shape (B,).
    """
    if waves.centre.size == 0 or times.size == 0:
        return
    reach = (waves.centre - 4 * waves.left).min(), (waves.centre + 4 * waves.right).max()
    slowest = float(stretch.max())
    first = np.floor((times + reach[0] * slowest - start_s) * fs_hz).astype(int)
    length = int(np.ceil((reach[1] - reach[0]) * slowest * fs_hz)) + 2
    grid = first[:, None] + np.arange(length)  # (B, L)
    local = ((grid / fs_hz + start_s - times[:, None]) / stretch[:, None]).astype(np.float32)
    distance = local[:, None, :] - waves.centre.astype(np.float32)[:, None]  # (B, K, L)
    slope = np.where(
        distance < 0, (1 / waves.left).astype(np.float32)[:, None], (1 / waves.right).astype(np.float32)[:, None]
    )
    distance *= slope
    shape = np.exp(np.float32(-0.5) * distance * distance)
    signal = waves.weights.astype(np.float32) @ shape * gain.astype(np.float32)[:, None, None]  # (B, 8, L)
    samples = canvas.shape[1]
    for beat, begin in enumerate(first):
        low, high = max(begin, 0), min(begin + length, samples)
        if low < high:
            canvas[:, low:high] += signal[beat, :, low - begin : high - begin]
