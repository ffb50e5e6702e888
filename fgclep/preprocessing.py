"""From a checked waveform to a model's input; numpy and scipy only, so that worker processes need no torch."""

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import gcd
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import CorruptionError
from fgclep.leads import LEADS
from fgclep.record import EcgRecord, Waveform
from fgclep.signal import StoredEcg

PREPROCESSING_VERSION = 1
CONFIG_NAME = "preprocessor_config.json"
CLIP_MV = 15.0

_LARGEST_BLOCK = 1024  # samples; rates without a small common measure with the target would need huge matrices


@dataclass(frozen=True)
class BlockFilter:
    """A change of rate with a low-pass as one matrix product.

    Cut into blocks of `hop` samples, the signal times the matrix gives what each block adds to the `made` output
    samples of the block before it, of its own, and of the block after it, side by side.

    Attributes:
        hop: input samples of a block; the filter reaches no further than one block.
        made: output samples of a block.
        matrix: float32, shape (hop, 3 * made).
    """

    hop: int
    made: int
    matrix: NDArray[np.float32]


@dataclass(frozen=True)
class StoredBatch:
    """Records as their files hold them, for a device to convert, centre and filter.

    Attributes:
        units: int16, shape (n, 12, samples).
        centres: float32, shape (n, 12), in units: what centring takes away.
        units_per_mv, fs_hz: of all of them.
    """

    units: NDArray[np.int16]
    centres: NDArray[np.float32]
    units_per_mv: float
    fs_hz: float


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
        x = x[:, : self.native_samples(fs_hz)]
        if self.center == "median":
            x = x - _medians(x)[:, None]
        blocks = self.block_filter(fs_hz)
        x = self._resample(x, fs_hz) if blocks is None else _filter_blocks(x, blocks)
        out = np.zeros((x.shape[0], self.n_samples), np.float32)
        kept = min(x.shape[1], self.n_samples)
        out[:, :kept] = x[:, :kept]
        return np.clip(out, -CLIP_MV, CLIP_MV, out=out)

    def native_samples(self, fs_hz: float) -> int:
        """Return how many samples at a rate `prepare` looks at."""
        return round(self.n_samples / self.fs_hz * fs_hz) + 1

    def block_filter(self, fs_hz: float) -> BlockFilter | None:
        """Return the change of rate as a matrix; None if nothing is to do or the matrix would be huge."""
        return _block_filter(float(fs_hz), self.fs_hz, self.lowpass_hz)

    def prepares_stored(self, fs_hz: float) -> bool:
        """Tell whether a device can prepare what is stored at a rate: its change of rate is a matrix, or is none."""
        return self.block_filter(fs_hz) is not None or not self._resamples(fs_hz)

    def _resamples(self, fs_hz: float) -> bool:
        return _design_filter(float(fs_hz), self.fs_hz, self.lowpass_hz)[2] is not None

    def _resample(self, x: NDArray[np.float32], fs_hz: float) -> NDArray[np.float32]:
        """Change the rate by one polyphase linear-phase low-pass; edges are held, not zero-padded."""
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


class StoredStack:
    """Stacks records as their files hold them, for a device to do what `prepare` does, up to rounding.

    It keeps its memory: filling new pages takes as long as reading the file. The first record that it takes decides at
    which rate, in which unit and how long the others must be.

    Args:
        processor: of the model.
        capacity: the number of records.
    """

    def __init__(self, processor: EcgProcessor, capacity: int) -> None:
        self._processor = processor
        self._capacity = capacity
        self._memory = self._units = np.empty(0, np.int16)
        self.clear()

    def clear(self) -> None:
        """Start anew; a batch that was made is overwritten from now on."""
        self._count = 0
        self._kind = (0.0, 0.0, 0)

    def add(self, record: EcgRecord) -> bool:
        """Copy a record's samples, or tell that it is unlike the others or nothing for a device."""
        if not isinstance(record, StoredEcg):
            return False
        kind = (record.fs_hz, record.units_per_mv, record.n_samples)
        if not self._count and self._processor.prepares_stored(record.fs_hz):
            self._kind = kind
            shape = (self._capacity, len(LEADS), min(record.n_samples, self._processor.native_samples(record.fs_hz)))
            if self._memory.size < np.prod(shape):
                self._memory = np.empty(np.prod(shape), np.int16)
            self._units = self._memory[: np.prod(shape)].reshape(shape)
        if kind != self._kind:
            return False
        record.copy_units(self._units[self._count])
        self._count += 1
        return True

    def batch(self) -> StoredBatch | None:
        """Return the records as a batch that shares the stack's memory; None without any."""
        if not self._count:
            return None
        units = self._units[: self._count]
        centres = np.zeros(units.shape[:2], np.float32)
        if self._processor.center == "median":
            # By numpy's SIMD for int16, many times faster than torch; one record at a time stays in the cache.
            centres[:] = [_medians(record) for record in units]
        fs_hz, units_per_mv, _ = self._kind
        return StoredBatch(units, centres, units_per_mv, fs_hz)


def _medians(samples: NDArray[np.int16] | NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the medians along the last axis; `np.median` looks for both middle values and takes ten times as long."""
    middle = samples.shape[-1] // 2
    parted = np.partition(samples, middle, axis=-1)
    upper = parted[..., middle].astype(np.float32)
    if samples.shape[-1] % 2:
        return upper
    return np.asarray((parted[..., :middle].max(axis=-1) + upper) / 2, np.float32)


def _filter_blocks(x: NDArray[np.float32], blocks: BlockFilter) -> NDArray[np.float32]:
    """Do what `EcgProcessor._resample` does, as one matrix product."""
    leads, samples = x.shape
    count = -(-samples // blocks.hop)
    padded = np.empty((leads, (count + 2) * blocks.hop), np.float32)
    padded[:, : blocks.hop] = x[:, :1]
    padded[:, blocks.hop : blocks.hop + samples] = x
    padded[:, blocks.hop + samples :] = x[:, -1:]
    parts = (padded.reshape(-1, blocks.hop) @ blocks.matrix).reshape(leads, count + 2, 3, blocks.made)
    joined = parts[:, 2:, 0] + parts[:, 1:-1, 1] + parts[:, :-2, 2]
    length = -(-samples * blocks.made // blocks.hop)
    return joined.reshape(leads, -1)[:, :length]


@lru_cache(maxsize=16)
def _block_filter(fs_hz: float, target_hz: int, lowpass_hz: float | None) -> BlockFilter | None:
    up, down, taps = _design_filter(fs_hz, target_hz, lowpass_hz)
    if taps is None:
        return None
    half = (len(taps) - 1) // 2
    periods = max(1, -(-half // (up * down)))  # so many that the filter ends within the next block
    hop, made = down * periods, up * periods
    if hop > _LARGEST_BLOCK or made > _LARGEST_BLOCK:
        return None
    # Output j is the sum over inputs i of taps[half + j * down - i * up]; here both count within their blocks.
    place = half + np.arange(made) * down - np.arange(hop)[:, None] * up
    matrix = np.zeros((hop, 3, made), np.float32)
    for block in range(3):  # outputs of the block before, of the same, of the block after
        tap = place + (block - 1) * made * down
        reached = (tap >= 0) & (tap < len(taps))
        matrix[:, block][reached] = taps[tap[reached]]
    return BlockFilter(hop, made, matrix.reshape(hop, 3 * made))


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
