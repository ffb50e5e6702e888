"""CLEF (Shu et al. 2025, arXiv 2512.02180; METHOD D1, E0): a single-lead Net1D in three sizes, features only.

The releases are the `.ckpt` files of Zenodo record 17572734.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import CompatibilityError
from fgclep.evaluation.adapters.checkpoint import read_checkpoint
from fgclep.evaluation.adapters.net1d import Net1dEncoder, open_net1d
from fgclep.record import Waveform
from fgclep.signal import CONTRACT_HZ, to_contract

_BAND_HZ = (0.67, 40.0)
_PREFIX = "backbone."


def open_clef(path: Path, device: str) -> Net1dEncoder:
    """Open a released checkpoint of any size, told by its weights.

    Raises:
        NotSetUpError: if the file does not exist.
        CorruptionError: if it is damaged.
        CompatibilityError: if it is of another layout.
    """
    checkpoint = read_checkpoint(path, "CLEF")
    if not isinstance(checkpoint.get("state_dict"), dict):
        raise CompatibilityError(
            f"{path} has no entry state_dict, as a CLEF checkpoint has.", "Give the checkpoint as it was released."
        )
    foreign = [name for name in checkpoint["state_dict"] if not name.startswith(_PREFIX)]
    if foreign:
        raise CompatibilityError(
            f"{path} is not of the published CLEF layout: {foreign[0]} does not begin with {_PREFIX!r}.",
            "Give the checkpoint as it was released.",
        )
    state = {name.removeprefix(_PREFIX): value for name, value in checkpoint["state_dict"].items()}
    return open_net1d(path, state, "CLEF", 1, clef_input, device)


def clef_input(waveform: Waveform, fs_hz: float) -> NDArray[np.float32]:
    """Filter ten seconds of lead I at 500 Hz (0.67 to 40 Hz, forth and back) and standardise them.

    Args:
        waveform: float32, shape (12, samples), mV, canonical order.
        fs_hz: its rate.

    Returns:
        float32, shape (1, 5000), mean 0 and standard deviation 1.
    """
    from scipy.signal import butter, filtfilt

    x = to_contract(waveform[:1], fs_hz)[0].astype(np.float64)
    x = filtfilt(*butter(5, _BAND_HZ, btype="bandpass", fs=CONTRACT_HZ), x, axis=1)
    scaled: NDArray[np.float32] = ((x - x.mean()) / (x.std() + 1e-8)).astype(np.float32)
    return scaled
