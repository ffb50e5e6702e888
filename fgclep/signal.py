"""From stored signals to a usable waveform: leads in order, gaps mended, faults named; and to other rates and lengths.

The limb leads are checked against Einthoven's identities. They hold for every recording whatever the electrodes were
attached to, so where they fail and hold again once two names are exchanged, the file is labelled wrongly.
"""

from dataclasses import replace
from functools import cached_property, lru_cache
from itertools import permutations
from math import sqrt
from typing import cast

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import DataError
from fgclep.frames import N_LIMB, constant_signals, copy_leads, limb_covariance
from fgclep.leads import LEADS, canonical_order
from fgclep.record import EcgRecord, RecordInfo, RecordReject, Waveform
from fgclep.wfdb_io import SYNTHETIC_COMMENT, RawEcg, to_mv

Samples = NDArray[np.int16] | NDArray[np.float32]
"""As in `RawEcg`: int16 in whole units, or float32 in mV."""

CONTRACT_HZ = 500
CONTRACT_SAMPLES = 5000

MIN_RATE_HZ = 50.0
MAX_RATE_HZ = 10_000.0
MIN_SECONDS = 2.5
"""One column of a printed 12-lead sheet; shorter recordings show no rhythm."""
MAX_MISSING_FRACTION = 0.10
MAX_FLAT_LEADS = 3
MAX_INTERPOLATED_GAP_S = 0.5

_AS_THEY_ARE = tuple(range(len(LEADS)))
# Rows: III = II - I, aVR = -(I + II)/2, aVL = I - II/2, aVF = II - I/2; columns: the limb leads in canonical order.
_IDENTITIES = np.array(
    [[1, -1, 1, 0, 0, 0], [0.5, 0.5, 0, 1, 0, 0], [-1, 0.5, 0, 0, 1, 0], [0.5, -1, 0, 0, 0, 1]], np.float64
)
_ENOUGH_SAMPLES = 500  # of each limb lead, spread over the record, show whether the identities hold
_RESIDUAL_FLOOR_MV = 0.01  # two units of MIMIC-IV-ECG's 5 uV
_RESIDUAL_FRACTION = 0.05  # of the limb leads' own RMS; real files stay below 0.02


class StoredEcg(EcgRecord):
    """An `EcgRecord` that keeps the whole units its file holds; it makes mV of them when asked for the waveform.

    Args:
        stored: int16, shape (signals, samples), in any layout; it is kept.
        order: where the twelve leads stand among the signals.

    Attributes:
        n_samples: of each lead.
        units_per_mv: their size.
    """

    n_samples: int
    units_per_mv: float
    _stored: NDArray[np.int16]
    _order: tuple[int, ...]

    def __init__(
        self,
        info: RecordInfo,
        stored: NDArray[np.int16],
        units_per_mv: float,
        fs_hz: float,
        flags: tuple[str, ...],
        order: tuple[int, ...] = _AS_THEY_ARE,
    ) -> None:
        values = {"info": info, "units_per_mv": units_per_mv, "fs_hz": fs_hz, "flags": flags}
        values |= {"n_samples": stored.shape[1], "_stored": stored, "_order": order}
        self.__dict__.update(values)  # the way into a frozen dataclass

    def copy_units(self, into: NDArray[np.int16]) -> None:
        """Write the units of the first samples, canonical lead order, to int16 (12, at most `n_samples`)."""
        copy_leads(self._stored, self._order, into)

    @cached_property
    def units(self) -> NDArray[np.int16]:
        """All units, int16, shape (12, samples), canonical lead order."""
        units = np.empty((len(LEADS), self.n_samples), np.int16)
        self.copy_units(units)
        return units

    @cached_property
    def waveform(self) -> Waveform:
        """The samples, float32, shape (12, samples), mV."""
        return to_mv(self.units, self.units_per_mv)


def clean(raw: RawEcg, info: RecordInfo) -> EcgRecord:
    """Make a stored record usable, or say why it is not.

    Missing samples are interpolated over gaps of up to 0.5 s and take the nearest sample's value in longer ones.

    Args:
        raw: (signals, samples); NaN and infinities count as missing.
        info: what is known about the record.

    Returns:
        The twelve leads in canonical order at the stored rate, free of NaN. Flags: `nan-filled`; `flat:V1,V2` for
        constant leads; `einthoven` where the limb leads contradict each other without two names being exchanged. A file
        that calls itself synthetic is of the data set `synthetic`, whatever folder it lies in.

    Raises:
        RecordReject: `missing-lead`, `duplicate-lead`, `bad-rate`, `too-short`, `nan`, `flat` or `lead-mismatch`.
    """
    order = _lead_order(raw, info.record_id)
    _check_extent(raw.samples.shape[1], raw.fs_hz, info.record_id)
    if SYNTHETIC_COMMENT in raw.comments:
        info = replace(info, dataset="synthetic")
    if raw.samples.dtype == np.int16:  # none is missing then
        flags = _check_flat(raw.samples, order, info.record_id)
        flags += _check_labels(raw.samples, order, raw.units_per_mv, info.record_id)
        units = cast("NDArray[np.int16]", raw.samples)
        return StoredEcg(info, units, raw.units_per_mv, raw.fs_hz, tuple(flags), order)
    samples = to_mv(raw.samples[list(order)], 1.0)
    measured = samples
    flags = []
    if (missing := ~np.isfinite(samples)).any():
        _check_missing(missing, info.record_id)
        samples = fill_missing(samples, missing, max_gap=round(MAX_INTERPOLATED_GAP_S * raw.fs_hz))
        there = ~missing[:N_LIMB].any(axis=0)
        measured = samples[:, there] if there.any() else samples
        flags.append("nan-filled")
    flags += _check_flat(samples, _AS_THEY_ARE, info.record_id)
    flags += _check_labels(measured, _AS_THEY_ARE, 1.0, info.record_id)
    return EcgRecord(info, samples, raw.fs_hz, tuple(flags))


def _lead_order(raw: RawEcg, record_id: str) -> tuple[int, ...]:
    """Return where the twelve leads stand among the signals, or reject a record that lacks one."""
    try:
        return _positions(raw.sig_names)
    except DataError as error:
        detail = error.message.removeprefix(": ")
        reason = "duplicate-lead" if "twice" in detail else "missing-lead"
        raise RecordReject(record_id, reason, detail) from None


@lru_cache(maxsize=1024)  # a data set has few orders of names
def _positions(sig_names: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(canonical_order(sig_names, ""))


def _check_extent(n_samples: int, fs_hz: float, record_id: str) -> None:
    if not MIN_RATE_HZ <= fs_hz <= MAX_RATE_HZ:
        raise RecordReject(
            record_id, "bad-rate", f"sampled at {fs_hz:g} Hz; expected {MIN_RATE_HZ:g} to {MAX_RATE_HZ:g} Hz."
        )
    seconds = n_samples / fs_hz
    if seconds < MIN_SECONDS:
        raise RecordReject(record_id, "too-short", f"lasts {seconds:.2f} s; at least {MIN_SECONDS:g} s are needed.")


def _check_missing(missing: NDArray[np.bool_], record_id: str) -> None:
    fraction = float(missing.mean())
    if fraction > MAX_MISSING_FRACTION:
        raise RecordReject(
            record_id, "nan", f"{fraction:.0%} of the samples are missing; at most {MAX_MISSING_FRACTION:.0%} may be."
        )


def fill_missing(waveform: Waveform, missing: NDArray[np.bool_], max_gap: int) -> Waveform:
    """Return a copy with missing samples filled, lead by lead.

    Args:
        waveform: float32, shape (leads, samples).
        missing: bool, same shape.
        max_gap: gaps of up to so many samples are interpolated linearly; longer ones, and gaps at either end, take
            the value of the nearest sample that is there. A lead that is missing altogether becomes 0.

    Returns:
        float32, same shape, free of NaN where `missing` marked every NaN.
    """
    filled = waveform.copy()
    for lead in np.flatnonzero(missing.any(axis=1)):
        filled[lead] = _fill_lead(waveform[lead], missing[lead], max_gap)
    return filled


def _fill_lead(samples: NDArray[np.float32], missing: NDArray[np.bool_], max_gap: int) -> NDArray[np.float32]:
    there = np.flatnonzero(~missing)
    if there.size == 0:
        return np.zeros_like(samples)
    gone = np.flatnonzero(missing)
    right = np.searchsorted(there, gone)
    before = there[np.maximum(right - 1, 0)]
    after = there[np.minimum(right, there.size - 1)]
    filled = samples.copy()
    filled[gone] = np.interp(gone, there, samples[there])  # constant beyond both ends
    long_gap = (after - before - 1) > max_gap
    nearest = np.where(gone - before <= after - gone, before, after)
    filled[gone[long_gap]] = samples[nearest[long_gap]]
    return filled


def _check_flat(samples: Samples, order: tuple[int, ...], record_id: str) -> list[str]:
    """Return the flag that names the constant leads, if any, or reject if there are too many."""
    constant = constant_signals(samples)
    flat = [lead for lead, place in zip(LEADS, order, strict=True) if place in constant]
    if not flat:
        return []
    if len(flat) > MAX_FLAT_LEADS:
        detail = f"{len(flat)} leads are constant ({', '.join(flat)}); at most {MAX_FLAT_LEADS} may be."
        raise RecordReject(record_id, "flat", detail)
    return ["flat:" + ",".join(flat)]


def _check_labels(samples: Samples, order: tuple[int, ...], units_per_mv: float, record_id: str) -> list[str]:
    """Return the flag for limb leads that contradict each other, or reject if wrong labels explain it."""
    every = samples.shape[1] // _ENOUGH_SAMPLES
    if every > 1 and einthoven_holds(limb_covariance(samples, order, every) / units_per_mv**2, of_limit=0.5):
        return []  # by far: settles nearly every record
    covariance = limb_covariance(samples, order) / units_per_mv**2
    if einthoven_holds(covariance):
        return []
    fault = find_label_fault(covariance)
    if fault is None:
        return ["einthoven"]
    detail = f"the limb leads contradict Einthoven's identities as labelled and fulfil them with {fault}."
    raise RecordReject(record_id, "lead-mismatch", detail)


def einthoven_holds(covariance: NDArray[np.float64], of_limit: float = 1.0) -> bool:
    """Tell whether the limb leads fulfil Einthoven's identities up to rounding and filtering.

    Args:
        covariance: of the limb leads in mV^2, shape (6, 6): a constant offset of a lead is no contradiction.
        of_limit: the share of what is allowed by which they may fail.
    """
    return _fulfils(covariance, _FORMS, of_limit)


def find_label_fault(covariance: NDArray[np.float64]) -> str | None:
    """Name the exchange of labels, or the inverted lead, that would make the identities hold; None if there is none.

    Args:
        covariance: of the limb leads in mV^2, shape (6, 6), contradicting Einthoven's identities.
    """
    for position in range(N_LIMB):
        signs = np.ones(N_LIMB)
        signs[position] = -1
        if _fulfils(covariance, _quadratic_forms(_IDENTITIES * signs)):
            return f"{LEADS[position]} inverted"
    orders, forms = _relabelled_identities()
    residuals = (forms @ covariance.ravel()).max(axis=-1)
    best = int(residuals.argmin())
    if not _fulfils(covariance, forms[best]):
        return None
    return "the labels " + "/".join(LEADS[i] for i in range(N_LIMB) if orders[best][i] != i) + " exchanged"


def _quadratic_forms(identities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what gives the residuals' mean squares from a covariance; shape (..., 4, 6) to (..., 4, 36)."""
    forms = identities[..., :, None] * identities[..., None, :]
    return forms.reshape(*identities.shape[:-1], -1)


_FORMS = _quadratic_forms(_IDENTITIES)


@lru_cache(maxsize=1)
def _relabelled_identities() -> tuple[list[tuple[int, ...]], NDArray[np.float64]]:
    """Every order of the six limb leads, and the forms of the identities written for it; shape (720, 4, 36)."""
    orders = list(permutations(range(N_LIMB)))
    return orders, _quadratic_forms(np.stack([_IDENTITIES[:, order] for order in orders]))


def _fulfils(covariance: NDArray[np.float64], forms: NDArray[np.float64], of_limit: float = 1.0) -> bool:
    """Tell whether every identity fails by no more than that share of what is allowed."""
    worst = sqrt(max(0.0, *(forms @ covariance.ravel()).tolist()))
    return worst <= of_limit * _limit(float(covariance.trace()))


def _limit(power_mv2: float) -> float:
    """Return the RMS in mV up to which identities may fail where the limb leads have so much power together."""
    return _RESIDUAL_FLOOR_MV + _RESIDUAL_FRACTION * sqrt(power_mv2 / N_LIMB)


def resample(waveform: Waveform, fs_hz: float, target_hz: float) -> Waveform:
    """Resample by a polyphase filter that continues a lead linearly beyond its ends, so that an offset does not ring.

    Args:
        waveform: float32, shape (leads, samples), free of NaN.
        fs_hz: its rate.
        target_hz: the wanted rate.

    Returns:
        float32, shape (leads, ceil(samples * target_hz / fs_hz)).
    """
    if fs_hz == target_hz:
        return waveform
    from fractions import Fraction

    from scipy.signal import resample_poly

    ratio = Fraction(target_hz / fs_hz).limit_denominator(10_000)
    resampled = resample_poly(waveform, ratio.numerator, ratio.denominator, axis=1, padtype="line")
    return np.ascontiguousarray(resampled, dtype=np.float32)


def to_contract(waveform: Waveform, fs_hz: float) -> tuple[Waveform, NDArray[np.bool_]]:
    """Bring a waveform to 12 x 5000 samples at 500 Hz: its first ten seconds, padded with zeros.

    Args:
        waveform: float32, shape (12, samples), mV, free of NaN.
        fs_hz: its rate.

    Returns:
        The waveform, float32 (12, 5000), and a mask, bool (5000,), that is true where samples are real.
    """
    head = waveform[:, : int(np.ceil((CONTRACT_SAMPLES / CONTRACT_HZ + 1) * fs_hz))]  # a second more: no edge at 10 s
    resampled = resample(head, fs_hz, CONTRACT_HZ)[:, :CONTRACT_SAMPLES]
    n_real = resampled.shape[1]
    mask = np.arange(CONTRACT_SAMPLES) < n_real
    if n_real == CONTRACT_SAMPLES:
        return np.ascontiguousarray(resampled), mask
    padded = np.zeros((len(waveform), CONTRACT_SAMPLES), np.float32)
    padded[:, :n_real] = resampled
    return padded, mask
