"""From a checked waveform to a model's input; numpy and scipy only, so that worker processes need no torch."""

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import gcd
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import CorruptionError
from fgclep.record import Waveform

PREPROCESSING_VERSION = 1
CONFIG_NAME = "preprocessor_config.json"
CLIP_MV = 15.0


@dataclass(frozen=True)
class EcgProcessor:
    """The model's input contract.

    Attributes:
        fs_hz: rate the model works at.
        n_samples: samples per lead; shorter waveforms are zero-padded at the end, longer ones cropped.
        lowpass_hz: common low-pass. PTB-XL's 500 Hz and 100 Hz files differ above about 40 Hz (another anti-alias
            filter); a common cut makes one ECG give one vector at either rate. None: only the resampling filter.
        center: `median` subtracts each lead's median (baseline offset), `none` leaves it.
    """

    fs_hz: int
    n_samples: int
    lowpass_hz: float | None
    center: str
    version: int = PREPROCESSING_VERSION

    def __post_init__(self) -> None:
        if self.center not in ("median", "none"):
            raise ValueError(f"center is {self.center!r}; expected 'median' or 'none'")

    @classmethod
    def from_pretrained(cls, path: Path | str) -> "EcgProcessor":
        """Read `preprocessor_config.json` of a model bundle.

        Raises:
            CorruptionError: if the file is missing, unreadable or of another version.
        """
        file = Path(path) / CONFIG_NAME
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            processor = cls(**values)
        except (OSError, ValueError, TypeError) as error:
            raise CorruptionError(f"{file} is not a readable preprocessor configuration: {error}.") from error
        if processor.version != PREPROCESSING_VERSION:
            raise CorruptionError(
                f"{file} has preprocessing version {processor.version}; this fgclep has {PREPROCESSING_VERSION}.",
                "install the fgclep version that made the bundle, or train again.",
            )
        return processor

    def save_pretrained(self, path: Path | str) -> None:
        """Write `preprocessor_config.json` into a bundle directory."""
        Path(path, CONFIG_NAME).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    def prepare(self, waveform: Waveform, fs_hz: float) -> Waveform:
        """Convert a waveform at any rate to the model's input.

        Args:
            waveform: float32, shape (12, samples), mV, no NaN.
            fs_hz: its sampling rate.

        Returns:
            float32, shape (12, n_samples), mV.
        """
        x = np.asarray(waveform, np.float32)
        native = round(self.n_samples / self.fs_hz * fs_hz)
        x = x[:, : native + 1]
        if self.center == "median":
            x = x - np.median(x, axis=1, keepdims=True)
        x = self._resample(x, fs_hz)
        out = np.zeros((x.shape[0], self.n_samples), np.float32)
        kept = min(x.shape[1], self.n_samples)
        out[:, :kept] = x[:, :kept]
        return np.clip(out, -CLIP_MV, CLIP_MV, out=out)

    def _resample(self, x: NDArray[np.float32], fs_hz: float) -> NDArray[np.float32]:
        """Polyphase change of rate with one linear-phase low-pass; edges are held, not zero-padded."""
        from scipy.signal import upfirdn

        up, down, taps = _design_filter(float(fs_hz), self.fs_hz, self.lowpass_hz)
        if taps is None:
            return x
        half = (len(taps) - 1) // 2
        pad = -(-half // up) + 1
        padded = np.pad(x, ((0, 0), (pad, pad)), mode="edge")
        # Output sample k of upfirdn stands at input-upsampled position k*down - half; skip what the padding added.
        offset = pad * up + half
        shift = (-offset) % down
        if shift:
            taps = np.concatenate([np.zeros(shift, np.float32), taps])
        y = upfirdn(taps, padded, up=up, down=down, axis=1)
        first = (offset + shift) // down
        length = -(-x.shape[1] * up // down)
        return np.ascontiguousarray(y[:, first : first + length], dtype=np.float32)


@lru_cache(maxsize=16)
def _design_filter(
    fs_hz: float, target_hz: int, lowpass_hz: float | None
) -> tuple[int, int, NDArray[np.float32] | None]:
    """Return up, down and the low-pass taps at rate fs_hz * up (None: nothing to do)."""
    from scipy.signal import firwin

    source, target = round(fs_hz * 1000), target_hz * 1000
    divisor = gcd(source, target)
    up, down = target // divisor, source // divisor
    nyquist = min(fs_hz, target_hz) / 2
    if lowpass_hz is None and up == down:
        return 1, 1, None
    cutoff = nyquist * 0.9 if lowpass_hz is None else min(lowpass_hz, nyquist * 0.9)
    rate = fs_hz * up
    transition = nyquist - cutoff
    half = int(np.ceil(1.65 * rate / transition))  # Hamming window: its transition is about 3.3 / length
    taps = firwin(2 * half + 1, cutoff + transition / 2, fs=rate) * up
    return up, down, taps.astype(np.float32)
