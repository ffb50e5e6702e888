"""The leads of a record whose signals alternate in its file, by the compiled kernel (frames_kernel.c) or by numpy.

The kernel is for reading at speed only: what it does not know (another number of signals, another layout), and
everything where it was not compiled, is done by numpy with the same result.
"""

import ctypes
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgclep.leads import LEADS

N_LIMB = 6
"""The limb leads come first in canonical order."""

_SOME = 97  # the first, and every so many samples after it, tell that a signal is not constant
_LIBRARY = Path(__file__).with_name("frames_kernel.so")
_ADDRESS, _COUNT = ctypes.c_void_p, ctypes.c_size_t


def has_kernel() -> bool:
    """Tell whether the compiled kernel is there and runs here."""
    return _kernel() is not None


def copy_leads(stored: NDArray[np.int16], order: tuple[int, ...], into: NDArray[np.int16]) -> None:
    """Copy the first samples of the twelve leads.

    Args:
        stored: int16, shape (signals, samples), in any layout.
        order: where the leads stand among the signals.
        into: int16, shape (12, at most as many samples).
    """
    count = into.shape[1]
    kernel = _kernel()
    if kernel is None or not _alternates(stored) or not into.flags.carray or count > stored.shape[1]:
        for lead, place in zip(into, order, strict=True):
            lead[:] = stored[place, :count]
    else:
        kernel.split_frames(_address(stored), count, _places(order)[1], _address(into))


def constant_signals(stored: NDArray[Any]) -> list[int]:
    """Name the signals whose samples are all equal.

    Args:
        stored: int16 or float32, shape (signals, samples), in any layout, free of NaN.
    """
    kernel = _kernel()
    if kernel is not None and _alternates(stored):
        found = kernel.constant_signals(_address(stored), stored.shape[1])
        return [place for place in range(len(LEADS)) if found >> place & 1] if found else []
    if (stored[:, ::_SOME] != stored[:, :1]).any(axis=1).all():  # settles nearly every record
        return []
    constant: list[int] = np.flatnonzero(stored.max(axis=1) == stored.min(axis=1)).tolist()
    return constant


def limb_covariance(stored: NDArray[Any], order: tuple[int, ...], every: int = 1) -> NDArray[np.float64]:
    """Return the covariance of the limb leads in the square of `stored`'s unit, float64, shape (6, 6).

    Args:
        stored: int16 or float32, shape (signals, samples), in any layout.
        order: where the leads stand among the signals.
        every: look at the first and every so many samples after it.
    """
    kernel = _kernel()
    if kernel is None or not _alternates(stored):
        return _covariance(stored[:, ::every][list(order[:N_LIMB])])
    covariance = np.empty((N_LIMB, N_LIMB))
    kernel.limb_covariance(_address(stored), stored.shape[1], every, _places(order)[1], _address(covariance))
    return covariance


def _covariance(limb: NDArray[Any]) -> NDArray[np.float64]:
    samples = limb.astype(np.float32, order="C")
    n_samples = samples.shape[1]
    # Several times as fast as `mean`; and not `@`, whose library would start threads that get in the way of others.
    samples -= np.vecdot(samples, np.full(n_samples, 1 / n_samples, np.float32))[:, None]
    covariance: NDArray[np.float64] = np.vecdot(samples[:, None], samples).astype(np.float64) / n_samples
    return covariance


def _alternates(stored: NDArray[Any]) -> bool:
    """Tell whether an array is what the kernel takes: twelve int16 signals, the samples of one moment side by side."""
    known = stored.dtype == np.int16 and len(stored) == len(LEADS)
    return known and stored.flags.f_contiguous and stored.flags.aligned


def _address(array: NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]  # several times as fast as `.ctypes`
    return address


@lru_cache(maxsize=1024)  # a data set has few orders
def _places(order: tuple[int, ...]) -> tuple[NDArray[np.uint8], int]:
    """Return an order as the kernel takes it, and its address."""
    if sorted(order) != list(range(len(LEADS))):
        raise ValueError(f"{order} is no order of twelve signals")
    places = np.array(order, np.uint8)
    return places, _address(places)


@cache
def _kernel() -> ctypes.CDLL | None:
    """Return the kernel; None where there is none, or one of another machine."""
    try:
        library = ctypes.CDLL(str(_LIBRARY))
        library.split_frames.argtypes = [_ADDRESS, _COUNT, _ADDRESS, _ADDRESS]
        library.limb_covariance.argtypes = [_ADDRESS, _COUNT, _COUNT, _ADDRESS, _ADDRESS]
        library.constant_signals.argtypes = [_ADDRESS, _COUNT]
        library.constant_signals.restype = ctypes.c_uint32
        library.split_frames.restype = library.limb_covariance.restype = None
    except (OSError, AttributeError):
        return None
    return library
