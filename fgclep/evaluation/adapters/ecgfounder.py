"""ECGFounder (Li et al. 2024, arXiv 2410.04133; METHOD E0, E5): a supervised 12-lead Net1D, features only.

The release is `12_lead_ECGFounder.pth` of PKUDigitalHealth/ECGFounder on the Hugging Face hub.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import CompatibilityError
from fgclep.evaluation.adapters.checkpoint import read_checkpoint
from fgclep.evaluation.adapters.net1d import Net1dEncoder, open_net1d
from fgclep.leads import LEADS
from fgclep.record import Waveform
from fgclep.signal import CONTRACT_HZ, to_contract

_NOTCH_HZ, _NOTCH_Q = 50.0, 30.0
_BAND_HZ = (0.67, 40.0)
_BASELINE_SAMPLES = 201  # 0.4 s


def open_ecgfounder(path: Path, device: str) -> Net1dEncoder:
    """Open the released 12-lead checkpoint.

    Raises:
        NotSetUpError: if the file does not exist.
        CorruptionError: if it is damaged.
        CompatibilityError: if it is of another layout.
    """
    checkpoint = read_checkpoint(path, "ECGFounder")
    if not isinstance(checkpoint.get("state_dict"), dict):
        raise CompatibilityError(
            f"{path} has no entry state_dict, as an ECGFounder checkpoint has.",
            "Give the checkpoint as it was released.",
        )
    state = {name: value for name, value in checkpoint["state_dict"].items() if not name.startswith("dense.")}
    return open_net1d(path, state, "ECGFounder", len(LEADS), ecgfounder_input, device)


def ecgfounder_input(waveform: Waveform, fs_hz: float) -> NDArray[np.float32]:
    """Filter ten seconds at 500 Hz and standardise all leads together.

    Which filters the weights saw in training is not known for certain: the paper tells of 0.5 to 50 Hz and a notch,
    without the order of the filters, and the release's script for PTB-XL filters nothing (METHOD E5). The steps here
    are those of programs by others that feed it: a notch at 50 Hz, a band-pass of 0.67 to 40 Hz, both run forth and
    back, and a running median of 0.4 s taken off as the baseline.

    Args:
        waveform: float32, shape (12, samples), mV.
        fs_hz: its rate.

    Returns:
        float32, shape (12, 5000), mean 0 and standard deviation 1 over the whole array.
    """
    from scipy.ndimage import median_filter
    from scipy.signal import butter, filtfilt, iirnotch

    x = to_contract(waveform, fs_hz)[0].astype(np.float64)
    x = filtfilt(*iirnotch(_NOTCH_HZ, _NOTCH_Q, fs=CONTRACT_HZ), x, axis=1)
    x = filtfilt(*butter(4, _BAND_HZ, btype="bandpass", fs=CONTRACT_HZ), x, axis=1)
    x = x - np.stack([median_filter(lead, _BASELINE_SAMPLES, mode="constant") for lead in x])
    scaled: NDArray[np.float32] = ((x - x.mean()) / (x.std() + 1e-8)).astype(np.float32)
    return scaled
