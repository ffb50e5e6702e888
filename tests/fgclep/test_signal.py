"""Cleaning, resampling and the input contract, against slow rewrites and made-up faults."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fgclep.frames import limb_covariance
from fgclep.leads import LEADS
from fgclep.record import RecordInfo, RecordReject
from fgclep.signal import clean, einthoven_holds, fill_missing, resample, to_contract
from fgclep.wfdb_io import RawEcg, read_wfdb

INFO = RecordInfo("set:7", "set", "s", "7", "7")
MIMIC_ORDER = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
PTBXL_NAMES = tuple(lead.upper() for lead in LEADS)


def make_ecg(seed=0, n_samples=1500, unit_mv=0.0):
    """Twelve leads of smooth noise that obey Einthoven's identities, rounded to `unit_mv`; float32 (12, samples)."""
    rng = np.random.default_rng(seed)
    kernel = np.hanning(15) / 7
    source = np.stack([np.convolve(rng.normal(0, 0.3, n_samples + 14), kernel, "valid") for _ in range(8)])
    i, ii = source[0], source[1] + 0.5 * source[0]
    limb = [i, ii, ii - i, -(i + ii) / 2, i - ii / 2, ii - i / 2]
    waveform = np.stack([*limb, *source[2:]])
    return (np.round(waveform / unit_mv) * unit_mv if unit_mv else waveform).astype(np.float32)


def raw(waveform, names=LEADS, fs_hz=500.0):
    return RawEcg(waveform, 1.0, fs_hz, tuple(names), (), "direct")


def reject_of(record):
    with pytest.raises(RecordReject) as caught:
        clean(record, INFO)
    return caught.value


@given(st.permutations(LEADS), st.sampled_from([str, str.upper, str.lower]), st.integers(0, 5))
def test_leads_come_out_in_canonical_order_whatever_order_they_are_stored_in(order, spell, seed):
    waveform = make_ecg(seed)
    stored = waveform[[LEADS.index(lead) for lead in order]]
    record = clean(raw(stored, [spell(lead) for lead in order]), INFO)
    np.testing.assert_array_equal(record.waveform, waveform)
    assert (record.flags, record.fs_hz, record.info) == ((), 500.0, INFO)


@pytest.mark.parametrize("names", [MIMIC_ORDER, PTBXL_NAMES])
def test_the_orders_and_spellings_of_the_data_sets(names):
    waveform = make_ecg(3)
    by_name = dict(zip((lead.casefold() for lead in LEADS), waveform, strict=True))
    record = clean(raw(np.stack([by_name[name.casefold()] for name in names]), names), INFO)
    np.testing.assert_array_equal(record.waveform, waveform)


def test_other_signals_are_left_out():
    waveform = make_ecg()
    record = clean(raw(np.vstack([np.full((1, 1500), np.nan, np.float32), waveform]), ("RESP", *LEADS)), INFO)
    np.testing.assert_array_equal(record.waveform, waveform)


@pytest.mark.parametrize("lead", LEADS)
def test_a_missing_lead_is_rejected_by_name(lead):
    keep = [i for i, name in enumerate(LEADS) if name != lead]
    reject = reject_of(raw(make_ecg()[keep], [LEADS[i] for i in keep]))
    assert reject.reason == "missing-lead"
    assert f"lead {lead} is missing" in reject.detail


def test_a_lead_that_occurs_twice_is_rejected():
    assert reject_of(raw(np.vstack([make_ecg(), make_ecg()[:1]]), (*LEADS, "i"))).reason == "duplicate-lead"


@settings(max_examples=60)
@given(st.permutations(range(6)), st.integers(0, 20), st.sampled_from([0.0, 0.001, 0.005]))
def test_exchanged_limb_labels_are_found_and_never_used(order, seed, unit_mv):
    assume(list(order) != list(range(6)))
    # Exchanged arm (or left arm and leg) electrodes but for one lead's sign: "I inverted", "III inverted" say the same.
    assume(list(order) not in ([0, 2, 1, 4, 3, 5], [1, 0, 2, 3, 5, 4]))
    waveform = make_ecg(seed, unit_mv=unit_mv)
    reject = reject_of(raw(waveform[[*order, *range(6, 12)]]))
    assert reject.reason == "lead-mismatch"
    for position, source in enumerate(order):
        named = LEADS[position] in reject.detail.split("with the labels ")[1].split(" exchanged")[0].split("/")
        assert named == (position != source)


@pytest.mark.parametrize("lead", range(6))
def test_an_inverted_limb_lead_is_found(lead):
    waveform = make_ecg()
    waveform[lead] *= -1
    reject = reject_of(raw(waveform))
    assert reject.reason == "lead-mismatch"
    assert f"{LEADS[lead]} inverted" in reject.detail


@pytest.mark.parametrize("unit_mv", [0.001, 0.005])
def test_rounding_and_constant_offsets_are_no_contradiction(unit_mv):
    waveform = make_ecg(unit_mv=unit_mv) * np.float32(0.2)  # a very small ECG
    waveform = np.round(waveform / unit_mv).astype(np.float32) * np.float32(unit_mv)
    waveform += np.linspace(-1, 1, 12, dtype=np.float32)[:, None]
    assert clean(raw(waveform), INFO).flags == ()


@given(
    seed=st.integers(0, 2**31),
    error_mv=st.floats(0, 0.1),
    wrong=st.integers(0, 5),
    units_per_mv=st.sampled_from([1, 200, 1000]),
)
@settings(deadline=None, max_examples=60)
def test_the_identities_are_judged_as_in_float64(seed, error_mv, wrong, units_per_mv):
    rng = np.random.default_rng(seed)
    limb = make_ecg(seed % 97, 700)[:6] * rng.uniform(0.05, 2) + rng.uniform(-1, 1, (6, 1))
    limb[wrong] += rng.normal(0, error_mv, 700)
    stored = np.round(limb * units_per_mv).astype(np.int16) if units_per_mv > 1 else limb.astype(np.float32)
    i, ii, iii, avr, avl, avf = stored.astype(np.float64) / units_per_mv
    failures = [(x - x.mean()).std() for x in (ii - i - iii, avr + (i + ii) / 2, avl - i + ii / 2, avf - ii + i / 2)]
    limit = 0.01 + 0.05 * np.sqrt(np.mean([lead.var() for lead in (i, ii, iii, avr, avl, avf)]))
    assume(abs(max(failures) - limit) > 1e-5)
    covariance = limb_covariance(stored, tuple(range(6))) / units_per_mv**2
    assert einthoven_holds(covariance) == (max(failures) < limit)


def test_a_lead_that_moves_only_between_the_samples_looked_at_first_is_not_flat():
    waveform = make_ecg()
    waveform[9] = 0.25
    waveform[9, 500] = 0.5
    assert clean(raw(waveform), INFO).flags == ()


def test_a_contradiction_that_no_exchange_explains_is_flagged_and_kept():
    waveform = make_ecg()
    waveform[2] = make_ecg(99)[7]
    assert clean(raw(waveform), INFO).flags == ("einthoven",)


def test_real_records_are_clean(shared_data):
    headers = [*shared_data.glob("ptbxl/records*/*/*.hea"), *shared_data.glob("challenge2021/*/*.hea")]
    assert len(headers) >= 158
    assert {clean(read_wfdb(header, "x"), INFO).flags for header in headers} == {()}


@pytest.mark.parametrize("unit_mv", [0.001, 0.005])
def test_real_records_with_exchanged_labels_are_rejected(shared_data, unit_mv):
    """At PTB-XL's rounding and at MIMIC-IV-ECG's; the same records pass with their own labels."""
    headers = sorted(shared_data.glob("ptbxl/records500/*/*.hea"))
    assert len(headers) >= 60
    for header in headers:
        stored = read_wfdb(header, "x")
        waveform = np.round(stored.waveform / unit_mv).astype(np.float32) * np.float32(unit_mv)
        assert clean(raw(waveform, stored.sig_names), INFO).flags == ()
        names = list(stored.sig_names)
        names[4], names[5] = names[5], names[4]
        assert reject_of(raw(waveform, names)).reason == "lead-mismatch"


def slow_fill(samples, max_gap):
    """The NaN policy, one sample at a time."""
    there = [i for i, value in enumerate(samples) if np.isfinite(value)]
    if not there:
        return [0.0] * len(samples)
    filled = []
    for i, value in enumerate(samples):
        left = max((j for j in there if j <= i), default=None)
        right = min((j for j in there if j >= i), default=None)
        if left == right:
            filled.append(value)
        elif left is None or right is None:
            filled.append(samples[right if left is None else left])
        elif right - left - 1 > max_gap:
            filled.append(samples[left if i - left <= right - i else right])
        else:
            filled.append(samples[left] + (samples[right] - samples[left]) * (i - left) / (right - left))
    return filled


@settings(max_examples=200)
@given(
    st.lists(st.lists(st.none() | st.floats(-5, 5, width=32), min_size=12, max_size=12), min_size=1, max_size=3),
    st.integers(0, 6),
)
def test_missing_samples_are_filled_as_the_slow_rewrite_does(leads, max_gap):
    waveform = np.array([[np.nan if value is None else value for value in lead] for lead in leads], np.float32)
    before = waveform.copy()
    filled = fill_missing(waveform, ~np.isfinite(waveform), max_gap)
    np.testing.assert_allclose(filled, [slow_fill(lead, max_gap) for lead in waveform], atol=1e-5)
    np.testing.assert_array_equal(waveform, before)


def test_gaps_are_filled_and_flagged_and_do_not_disturb_the_lead_check():
    waveform = make_ecg()
    broken = waveform.copy()
    broken[1, 100:350] = np.nan
    broken[7, 0] = np.inf
    record = clean(raw(broken), INFO)
    assert record.flags == ("nan-filled",)
    assert np.isfinite(record.waveform).all()
    untouched = np.isfinite(broken)
    np.testing.assert_array_equal(record.waveform[untouched], waveform[untouched])
    assert np.isinf(broken[7, 0])


@pytest.mark.parametrize(("n_missing", "rejected"), [(1800, False), (1801, True), (18000, True)])
def test_more_than_a_tenth_missing_is_rejected(n_missing, rejected):
    waveform = make_ecg()
    waveform.flat[:n_missing] = np.nan
    if rejected:
        assert reject_of(raw(waveform)).reason == "nan"
    else:
        assert "nan-filled" in clean(raw(waveform), INFO).flags


def test_a_lead_without_any_sample_is_flat():
    waveform = make_ecg()
    waveform[8] = np.nan
    assert clean(raw(waveform), INFO).flags == ("nan-filled", "flat:V3")
    waveform = make_ecg()
    waveform[1] = np.nan
    assert clean(raw(waveform), INFO).flags == ("nan-filled", "flat:II", "einthoven")


@pytest.mark.parametrize(("n_flat", "rejected"), [(1, False), (3, False), (4, True), (12, True)])
def test_more_than_three_constant_leads_are_rejected(n_flat, rejected):
    waveform = make_ecg()
    waveform[12 - n_flat :] = 0.25
    if rejected:
        reject = reject_of(raw(waveform))
        assert reject.reason == "flat"
        assert "V6" in reject.detail
    else:
        assert clean(raw(waveform), INFO).flags == ("flat:" + ",".join(LEADS[12 - n_flat :]),)


@pytest.mark.parametrize(
    ("n_samples", "fs_hz", "reason"),
    [
        (1249, 500, "too-short"),
        (1250, 500, None),
        (642, 257, "too-short"),
        (643, 257, None),
        (5000, 49.9, "bad-rate"),
        (5000, 50, None),
        (25_000, 10_000, None),
        (25_000, 10_001, "bad-rate"),
    ],
)
def test_length_and_rate(n_samples, fs_hz, reason):
    record = raw(make_ecg(n_samples=n_samples), fs_hz=fs_hz)
    if reason:
        assert reject_of(record).reason == reason
    else:
        assert clean(record, INFO).waveform.shape == (12, n_samples)


RATES = st.sampled_from([100, 250, 257, 360, 500, 1000, 128.5])


@settings(max_examples=40, deadline=None)
@given(RATES, RATES, st.floats(1, 20), st.floats(0, 6))
def test_resampling_a_sine_gives_the_sine_at_the_other_rate(fs_hz, target_hz, frequency, phase):
    def sine(rate):
        return np.sin(2 * np.pi * frequency * np.arange(int(10 * rate)) / rate + phase).astype(np.float32)

    resampled = resample(np.stack([sine(fs_hz), 3 + sine(fs_hz)]), fs_hz, target_hz)
    assert resampled.dtype == np.float32
    assert resampled.shape == (2, np.ceil(int(10 * fs_hz) * target_hz / fs_hz))
    expected = sine(target_hz)
    inside = slice(int(target_hz), int(9 * target_hz))  # the filter has no samples beyond the ends
    np.testing.assert_allclose(resampled[0, inside], expected[inside], atol=0.02)
    np.testing.assert_allclose(resampled[1, inside], 3 + expected[inside], atol=0.02)


def test_resampling_removes_what_the_lower_rate_cannot_hold():
    t = np.arange(5000) / 500
    waveform = np.sin(2 * np.pi * 120 * t)[None].astype(np.float32)
    assert np.abs(resample(waveform, 500, 100)[:, 50:-50]).max() < 0.01


def test_a_constant_stays_constant_to_its_ends():
    np.testing.assert_allclose(resample(np.full((12, 1000), 1.5, np.float32), 100, 500), 1.5, atol=2e-3)


@pytest.mark.parametrize("fs_hz", [100, 257, 500, 1000])
@pytest.mark.parametrize("seconds", [3, 10, 60])
def test_contract_shape_and_mask(fs_hz, seconds):
    n = int(seconds * fs_hz)
    waveform, mask = to_contract(make_ecg(n_samples=n), fs_hz)
    assert (waveform.shape, waveform.dtype, mask.shape, mask.dtype) == ((12, 5000), np.float32, (5000,), np.bool_)
    n_real = min(5000, int(np.ceil(n * 500 / fs_hz)))
    np.testing.assert_array_equal(mask, np.arange(5000) < n_real)
    assert not waveform[:, ~mask].any()
    assert waveform[:, mask].any()


def test_contract_keeps_a_500_hz_record_as_it_is():
    waveform = make_ecg(n_samples=6000)
    np.testing.assert_array_equal(to_contract(waveform, 500)[0], waveform[:, :5000])


def test_contract_of_a_long_record_is_its_first_ten_seconds():
    waveform = make_ecg(n_samples=60_000)
    np.testing.assert_allclose(
        to_contract(waveform, 1000)[0][:, :4990], resample(waveform, 1000, 500)[:, :4990], atol=5e-3
    )
