"""The compiled kernel turns frames into leads as numpy does, reads and writes nothing else, and is never needed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgclep import frames
from fgclep.frames import constant_signals, copy_leads, limb_covariance

needs_kernel = pytest.mark.skipif(not frames.has_kernel(), reason="no kernel: it was not compiled for this processor")
ORDERS = st.permutations(range(12)).map(tuple)


def stored(seed: int, count: int, start: int = 0) -> np.ndarray:
    """Samples of any size (12, count) as they lie in a file from some byte on."""
    content = np.random.default_rng(seed).integers(-32768, 32768, 12 * count).astype("<i2").tobytes()
    return np.frombuffer(bytes(start) + content, "<i2", 12 * count, start).reshape(-1, 12).T


@needs_kernel
@given(
    seed=st.integers(0, 999), order=ORDERS, count=st.integers(1, 70), cut=st.integers(0, 9), start=st.integers(0, 30)
)
@settings(deadline=None)
def test_leads_are_copied_in_order_and_nothing_beside_them_is_touched(seed, order, count, cut, start):
    samples, kept = stored(seed, count, start), max(0, count - cut)
    guarded = np.full(12 * kept + 64, 77, np.int16)
    copy_leads(samples, order, guarded[32:-32].reshape(12, kept))
    assert np.array_equal(guarded[32:-32].reshape(12, kept), samples[list(order), :kept])
    assert (guarded[:32] == 77).all() and (guarded[-32:] == 77).all()


@given(seed=st.integers(0, 999), order=ORDERS, count=st.integers(1, 70), every=st.integers(1, 80))
@settings(deadline=None)
def test_the_covariance_is_numpy_s(seed, order, count, every):
    samples = stored(seed, count)
    exact = np.cov(samples[list(order[:6]), ::every].astype(np.float64), bias=True)
    np.testing.assert_allclose(limb_covariance(samples, order, every), exact, atol=1e-5 * 32768**2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "_kernel", lambda: None)
        np.testing.assert_allclose(limb_covariance(samples, order, every), exact, atol=1e-5 * 32768**2)


@given(seed=st.integers(0, 999), count=st.integers(1, 300), flat=st.sets(st.integers(0, 11)), at=st.integers(0, 299))
@settings(deadline=None)
def test_constant_signals_are_those_whose_samples_are_all_equal(seed, count, flat, at):
    samples = stored(seed, count).copy(order="F")
    samples[sorted(flat)] = 7
    samples[3, :], samples[3, min(at, count - 1)] = -5, 5  # all but one sample
    exact = [place for place, signal in enumerate(samples) if len(set(signal.tolist())) == 1]
    assert constant_signals(samples) == exact
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "_kernel", lambda: None)
        assert constant_signals(samples) == exact


@needs_kernel
def test_the_kernel_does_a_whole_record_of_every_common_length():
    order = (0, 1, 2, 3, 5, 4, 6, 7, 8, 9, 10, 11)
    for count in (1000, 1250, 2500, 4999, 5000, 5001):
        samples, into = stored(count, count), np.empty((12, count), np.int16)
        copy_leads(samples, order, into)
        assert np.array_equal(into, samples[list(order)])
        exact = np.cov(samples[list(order[:6])].astype(np.float64), bias=True)
        np.testing.assert_allclose(limb_covariance(samples, order), exact, rtol=1e-9, atol=1e-3)


@pytest.mark.parametrize(
    ("samples", "order"),
    [
        (np.arange(120, dtype=np.int16).reshape(12, 10), tuple(range(12))),
        (np.arange(150, dtype=np.int16).reshape(10, 15).T, (3, 1, 2, 0, 4, 5, 14, 7, 8, 9, 10, 11)),
        (np.arange(240, dtype=np.int16).reshape(20, 12)[::2].T, tuple(range(12))),
        (np.arange(240, dtype=np.int16).reshape(12, 20)[:, ::2], tuple(range(12))),
        (np.arange(120, dtype=np.int16).reshape(10, 12).astype(">i2").T, tuple(range(12))),
    ],
    ids=["lead by lead", "fifteen signals", "every other frame", "every other sample", "the other byte order"],
)
def test_what_the_kernel_does_not_know_is_done_without_it(samples, order):
    into = np.empty((12, 8), np.int16)
    copy_leads(samples, order, into)
    assert np.array_equal(into, samples[list(order), :8])
    exact = np.cov(samples[list(order[:6])].astype(np.float64), bias=True)
    np.testing.assert_allclose(limb_covariance(samples, order), exact, rtol=1e-6)
    flattened = samples.copy(order="K")
    flattened[[2, 9]] = 0
    assert constant_signals(flattened) == [2, 9]


def test_a_place_for_more_samples_than_there_are_is_refused():
    with pytest.raises(ValueError, match="broadcast"):
        copy_leads(stored(0, 10), tuple(range(12)), np.empty((12, 11), np.int16))


@needs_kernel
def test_an_order_that_is_none_is_refused():
    with pytest.raises(ValueError, match="no order of twelve"):
        copy_leads(stored(0, 10), (0,) * 12, np.empty((12, 10), np.int16))
    with pytest.raises(ValueError, match="no order of twelve"):
        limb_covariance(stored(0, 10), (*range(11), 12))
