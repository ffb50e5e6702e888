"""Both readers agree on every record, real or made up, and each bad file has one clear reason."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from fgclep.leads import LEADS
from fgclep.record import RecordReject
from fgclep.wfdb_io import MISSING_SAMPLE, header_rate, read_wfdb


def make_header(digital, names=LEADS, *, gain="200.0(0)/mV", storage="16", n_samples=None, fs="500", comments=()):
    """The header of `digital`, int (samples, signals), as MIMIC-IV-ECG writes it."""
    n = len(digital) if n_samples is None else n_samples
    gains = [gain] * len(names) if isinstance(gain, str) else gain
    lines = [f"rec {len(names)} {fs} {n} 08:44:00 23/07/2180"]
    lines += [f"rec.dat {storage} {g} 16 0 0 0 0 {name}" for g, name in zip(gains, names, strict=True)]
    return "\n".join(lines + [f"# {comment}" for comment in comments] + [""])


def write(folder: Path, header: str, data: bytes) -> Path:
    (folder / "rec.hea").write_text(header)
    (folder / "rec.dat").write_bytes(data)
    return folder / "rec"


def noise(n_samples=400, n_signals=12, seed=0):
    return np.random.default_rng(seed).integers(-500, 500, (n_samples, n_signals)).astype("<i2")


def assert_same_as_wfdb(raw, stem):
    oracle = wfdb.rdrecord(str(stem), return_res=32)
    np.testing.assert_array_equal(raw.waveform, oracle.p_signal.T)
    assert raw.waveform.dtype == np.float32
    assert (raw.fs_hz, list(raw.sig_names), list(raw.comments)) == (oracle.fs, oracle.sig_name, oracle.comments)


def all_headers(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.hea"))


@pytest.mark.parametrize("tree", ["ptbxl/records100", "ptbxl/records500"])
def test_direct_equals_wfdb_on_ptbxl(shared_data, tree):
    headers = all_headers(shared_data / tree)
    assert len(headers) >= 60
    for header in headers:
        raw = read_wfdb(header, "x")
        assert raw.reader == "direct"
        assert_same_as_wfdb(raw, header.with_suffix(""))


def test_direct_equals_wfdb_on_challenge_records(shared_data, tmp_path):
    headers = all_headers(shared_data / "challenge2021")
    assert len(headers) >= 38
    for header in headers:
        raw = read_wfdb(header, "x")
        assert raw.reader == "direct"
        # wfdb refuses record names with a dot, which some of these headers have
        name, _, rest = header.read_text().partition(" ")
        (tmp_path / header.name).write_text(f"{name.removesuffix('.mat')} {rest}")
        mat = header.with_suffix(".mat")
        (tmp_path / mat.name).write_bytes(mat.read_bytes())
        assert_same_as_wfdb(raw, tmp_path / header.stem)


def test_direct_equals_wfdb_on_the_archive_of_500_hz_records(shared_data, tmp_path):
    with tarfile.open(shared_data / "ptbxl" / "records500_300.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    headers = all_headers(tmp_path)
    assert len(headers) == 300
    for header in headers:
        assert_same_as_wfdb(read_wfdb(header, "x"), header.with_suffix(""))


def test_direct_equals_wfdb_on_unpacked_ptbxl(shared_data, tmp_path):
    unpack = [sys.executable, str(shared_data / "unpack_ptbxl.py"), str(tmp_path)]
    subprocess.run([*unpack, "--folds", "9", "--limit", "100"], check=True, capture_output=True)
    headers = all_headers(tmp_path)
    assert len(headers) == 100
    for header in headers:
        assert_same_as_wfdb(read_wfdb(header, "x"), header.with_suffix(""))


GAINS = st.tuples(
    st.sampled_from(["200", "1000.0", "204.8", "1e3", "4.88e2"]), st.none() | st.integers(-3000, 3000)
).map(lambda pair: f"{pair[0]}/mV" if pair[1] is None else f"{pair[0]}({pair[1]})/mV")


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_direct_equals_wfdb_on_made_up_records(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("made-up")
    names = data.draw(st.sampled_from([LEADS, tuple(reversed(LEADS)), (*LEADS, "RESP"), ("II",)]))
    digital = noise(data.draw(st.integers(1, 60)), len(names), data.draw(st.integers(0, 99)))
    for position in data.draw(st.lists(st.integers(0, digital.size - 1), max_size=5)):
        digital.flat[position] = MISSING_SAMPLE
    offset = data.draw(st.sampled_from([0, 24]))
    header = make_header(
        digital,
        names,
        gain=data.draw(st.lists(GAINS, min_size=len(names), max_size=len(names))),
        storage=data.draw(st.sampled_from(["16+24", "16x1+24"] if offset else ["16", "16x1", "16:0"])),
        fs=data.draw(st.sampled_from(["500", "257", "128.5", "500/500(0)"])),
        comments=data.draw(st.lists(st.sampled_from(["Age: 81", "<subject_id>: 7"]), max_size=2)),
    )
    stem = write(folder, header, bytes(offset) + digital.tobytes())
    raw = read_wfdb(stem, "x")
    assert raw.reader == "direct"
    assert_same_as_wfdb(raw, stem)


@pytest.mark.parametrize("storage", ["212", "24", "32", "80"])
def test_other_formats_are_read_by_wfdb(tmp_path, storage):
    signal = np.random.default_rng(1).integers(-100, 100, (300, 12)) / 100
    wfdb.wrsamp(
        "rec", 500, ["mV"] * 12, list(LEADS), p_signal=signal, fmt=[storage] * 12, adc_gain=[100.0] * 12,
        baseline=[0] * 12, write_dir=str(tmp_path),
    )  # fmt: skip
    raw = read_wfdb(tmp_path / "rec", "x")
    assert raw.reader == "wfdb"
    np.testing.assert_allclose(raw.waveform, signal.T, atol=1e-6)
    from_bytes = read_wfdb(((tmp_path / "rec.hea").read_bytes(), (tmp_path / "rec.dat").read_bytes()), "x")
    np.testing.assert_array_equal(from_bytes.waveform, raw.waveform)


def test_segments_are_joined_by_wfdb(tmp_path):
    parts = [noise(200, seed=1), noise(100, seed=2)]
    for number, part in enumerate(parts):
        name = f"seg{number}"
        (tmp_path / f"{name}.hea").write_text(make_header(part).replace("rec", name))
        (tmp_path / f"{name}.dat").write_bytes(part.tobytes())
    (tmp_path / "whole.hea").write_text("whole/2 12 500 300\nseg0 200\nseg1 100\n")
    raw = read_wfdb(tmp_path / "whole", "x")
    assert raw.reader == "wfdb"
    np.testing.assert_allclose(raw.waveform, np.concatenate(parts).T / 200, atol=1e-6)


def test_signals_in_two_files_are_read_by_wfdb(tmp_path):
    halves = noise(200, 6, 1), noise(200, 6, 2)
    lines = make_header(np.hstack(halves)).splitlines()
    lines[7:13] = [line.replace("rec.dat", "other.dat") for line in lines[7:13]]
    write(tmp_path, "\n".join(lines), halves[0].tobytes())
    (tmp_path / "other.dat").write_bytes(halves[1].tobytes())
    raw = read_wfdb(tmp_path / "rec", "x")
    assert raw.reader == "wfdb"
    np.testing.assert_allclose(raw.waveform, np.hstack(halves).T / 200, atol=1e-6)


def test_path_spellings_and_bytes_give_the_same_record(tmp_path):
    digital = noise()
    stem = write(tmp_path, make_header(digital), digital.tobytes())
    whole = read_wfdb(stem, "x")
    sources = [str(stem), f"{stem}.hea", stem.with_suffix(".dat")]
    sources.append(((tmp_path / "rec.hea").read_bytes(), digital.tobytes()))
    for source in sources:
        again = read_wfdb(source, "x")
        np.testing.assert_array_equal(again.waveform, whole.waveform)
        assert again.sig_names == whole.sig_names


@pytest.mark.parametrize(("unit", "scale"), [("mV", 1), ("mv", 1), ("uV", 1e-3), ("V", 1e3)])
def test_units_become_millivolts(unit, scale):
    digital = noise()
    raw = read_wfdb((make_header(digital, gain=f"200(0)/{unit}").encode(), digital.tobytes()), "x")
    np.testing.assert_allclose(raw.waveform, digital.T / 200 * scale, rtol=1e-5)


def test_names_may_hold_spaces():
    digital, names = noise(), [f"lead {lead}" for lead in LEADS]
    raw = read_wfdb((make_header(digital, names).encode(), digital.tobytes()), "x")
    assert (raw.reader, list(raw.sig_names)) == ("direct", names)


def test_length_comes_from_the_file_where_the_header_gives_none():
    digital = noise(321)
    raw = read_wfdb((make_header(digital, n_samples=0).encode(), digital.tobytes()), "x")
    assert raw.waveform.shape == (12, 321)


def test_header_rate(tmp_path):
    stem = write(tmp_path, make_header(noise(), fs="257"), b"")
    assert header_rate(stem) == 257
    assert header_rate(tmp_path / "absent") is None
    (tmp_path / "rec.hea").write_text("nonsense")
    assert header_rate(stem) is None


DIGITAL = noise()
GOOD = make_header(DIGITAL)
BAD = {
    "truncated": (GOOD, DIGITAL.tobytes()[:-2], "truncated", r"holds 9598 bytes.*400 samples.*9600 bytes"),
    "empty": (GOOD, b"", "truncated", "holds 0 bytes"),
    "empty, no length": (make_header(DIGITAL, n_samples=0), b"", "truncated", "at least 1 samples"),
    "length too small": (make_header(DIGITAL, n_samples=399), DIGITAL.tobytes(), "bad-header", "more than the 9576"),
    "length absurd": (make_header(DIGITAL, n_samples=10**12), DIGITAL.tobytes(), "truncated", "1000000000000 samples"),
    "absurd in a packed format": (
        make_header(DIGITAL, n_samples=10**12, storage="212"), DIGITAL.tobytes(), "unreadable", "wfdb",
    ),
    "truncated packed format": (make_header(DIGITAL, storage="212"), b"abc" * 99, "unreadable", "wfdb"),
    "one packed sample": (make_header(DIGITAL, storage="212"), b"abc", "truncated", "holds 3 bytes.*7200 bytes"),
    "no header": ("", DIGITAL.tobytes(), "bad-header", "names no single sample file"),
    "no text": ("rec\0 12", DIGITAL.tobytes(), "bad-header", "NUL"),
    "no signal": ("rec 0 500 400\n", DIGITAL.tobytes(), "bad-header", "names no single sample file"),
    "fewer signal lines": ("\n".join(GOOD.splitlines()[:-1]), DIGITAL.tobytes(), "unreadable", "wfdb"),
    "unit of pressure": (make_header(DIGITAL, gain="200/mmHg"), DIGITAL.tobytes(), "bad-header", "lead I is in 'mmHg'"),
    "folder as sample file": (GOOD.replace("rec.dat", "."), DIGITAL.tobytes(), "bad-header", "another folder"),
    "parent as sample file": (GOOD.replace("rec.dat", ".."), DIGITAL.tobytes(), "bad-header", "another folder"),
    "other folder": (GOOD.replace("rec.dat", "../rec.dat"), DIGITAL.tobytes(), "bad-header", "another folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_record_has_one_clear_reason(name):
    header, data, reason, sentence = BAD[name]
    with pytest.raises(RecordReject, match=sentence) as caught:
        read_wfdb((header.encode(), data), "set:7")
    assert caught.value.reason == reason
    assert str(caught.value).startswith("set:7: ")


@pytest.mark.parametrize("name", ["truncated", "empty", "empty, no length", "length too small", "length absurd"])
def test_bad_files_have_the_same_reason_as_their_bytes(name, tmp_path):
    header, data, reason, sentence = BAD[name]
    with pytest.raises(RecordReject, match=sentence) as caught:
        read_wfdb(write(tmp_path, header, data), "set:7")
    assert caught.value.reason == reason


@pytest.mark.parametrize("at_once", [1 << 30, 1000, 1])
@pytest.mark.parametrize("n_samples", [None, 0])
@pytest.mark.parametrize("header_bytes", [0, 1 << 14, (1 << 14) + 1, 50_000])
def test_files_are_read_to_their_end_however_little_comes_at_once(
    header_bytes, n_samples, at_once, tmp_path, monkeypatch
):
    comment = "x" * max(0, header_bytes - len(GOOD) - 3)
    header = make_header(DIGITAL, n_samples=n_samples, comments=[comment] if comment else [])
    stem, read = write(tmp_path, header, DIGITAL.tobytes()), os.read
    monkeypatch.setattr("os.read", lambda descriptor, count: read(descriptor, min(count, at_once)))
    raw = read_wfdb(stem, "x")
    assert raw.comments == ((comment,) if comment else ())
    np.testing.assert_array_equal(raw.samples, DIGITAL.T)


@pytest.mark.parametrize("absent", ["rec.hea", "rec.dat"])
def test_missing_file_is_named(tmp_path, absent):
    stem = write(tmp_path, GOOD, DIGITAL.tobytes())
    (tmp_path / absent).unlink()
    with pytest.raises(RecordReject, match=rf"{absent} does not exist") as caught:
        read_wfdb(stem, "x")
    assert caught.value.reason == "missing-file"


def test_folder_in_place_of_a_file_is_unreadable(tmp_path):
    stem = write(tmp_path, GOOD, DIGITAL.tobytes())
    (tmp_path / "rec.dat").unlink()
    (tmp_path / "rec.dat").mkdir()
    with pytest.raises(RecordReject) as caught:
        read_wfdb(stem, "x")
    assert caught.value.reason == "unreadable"


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=0, max_size=3), st.integers(0, 3))
def test_damaged_header_never_fails_in_another_way(position, inserted, removed):
    damaged = GOOD.encode()[:position] + inserted + GOOD.encode()[position + removed :]
    try:
        raw = read_wfdb((damaged, DIGITAL.tobytes()), "x")
    except RecordReject as reject:
        assert reject.detail.endswith(".")
    else:
        assert len(raw.sig_names) == len(raw.waveform)
