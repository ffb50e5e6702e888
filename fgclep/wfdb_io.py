"""Read one WFDB record: directly where it is plain format 16 (nearly every 12-lead ECG), by `wfdb` otherwise.

The direct reader exists for speed only: it parses the header and reinterprets the sample file's bytes. Whatever it
does not recognise at once (other formats, several files, several segments, odd gains) goes to `wfdb`, so there is one
judge of unusual headers. Files wrapped as MATLAB v4, as in the PhysioNet Challenges, are format 16 behind a byte
offset and count as plain.
"""

import os
import re
import tempfile
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fgclep.leads import canonical_lead
from fgclep.record import RecordReject

MISSING_SAMPLE = -32768
"""What format 16 stores where a sample is missing."""

SYNTHETIC_COMMENT = "Source: synthetic ECG made by fgclep"
"""The header comment that marks a made-up record, wherever its file is copied to."""

SUFFIXES = (".hea", ".dat", ".mat")
"""Of a record's files."""

_SOME_BYTES, _MOST_AT_ONCE = 1 << 14, 1 << 30
_MV_PER_UNIT = {"": 1.0, "mv": 1.0, "uv": 1e-3, "µv": 1e-3, "v": 1e3}
_PACKED_BYTES = {"212": 3 / 2, "310": 4 / 3, "311": 4 / 3}
_FORMAT_16 = re.compile(r"16(?:x1)?(?::0)?(?:\+(\d+))?")
_GAIN = re.compile(r"(\d+\.?\d*(?:e[+-]?\d+)?)(?:\((-?\d+)\))?(?:/(\S+))?", re.IGNORECASE)


@dataclass(frozen=True)
class RawEcg:
    """A record as it is stored.

    Attributes:
        samples: shape (signals, samples), stored order. int16 in units, where the file holds nothing but whole units
            of one size and none is missing: a view of the file's bytes, in which the signals alternate. Otherwise
            float32 in mV, NaN where a sample is missing.
        units_per_mv: of `samples`; 1 where they are in mV.
        fs_hz: sampling rate.
        sig_names: signal names in stored order, as written.
        comments: comment lines of the header without their `#`.
        reader: which of the two readers read it.
    """

    samples: NDArray[np.int16] | NDArray[np.float32]
    units_per_mv: float
    fs_hz: float
    sig_names: tuple[str, ...]
    comments: tuple[str, ...]
    reader: Literal["direct", "wfdb"]

    @cached_property
    def waveform(self) -> NDArray[np.float32]:
        """The samples in mV, float32 of the same shape."""
        return to_mv(self.samples, self.units_per_mv)


class _Scales(NamedTuple):
    """What makes physical units of the signals' stored ones."""

    gains: tuple[float, ...]
    baselines: tuple[int, ...]
    units: tuple[str, ...]
    units_per_mv: float | None  # if all signals are whole multiples of the same size


class _PlainHeader(NamedTuple):
    """The header of a record whose signals lie interleaved as format 16 in one file."""

    fs_hz: float
    n_samples: int  # 0: as many as the file holds
    file_name: str
    byte_offset: int
    scales: _Scales
    sig_names: tuple[str, ...]


def read_wfdb(source: Path | str | tuple[bytes, bytes], record_id: str) -> RawEcg:
    """Read one WFDB record.

    Args:
        source: the record's path with or without extension, or the bytes of its header and of its sample file.
        record_id: names the record in errors.

    Returns:
        The signals in mV, in stored order.

    Raises:
        RecordReject: `missing-file`, `truncated`, `bad-header` or `unreadable`.
    """
    if isinstance(source, tuple):
        header_bytes = source[0]
    else:
        stem = _without_suffix(source)
        header_bytes = _read_file(f"{stem}.hea", record_id)
    text = _decode(header_bytes, record_id)
    comments = header_comments(text)
    header = _parse_plain([line for line in map(str.strip, text.splitlines()) if line and line[0] != "#"])
    if header is None:
        lines = [line for line in text.splitlines() if line and not line.isspace()]
        return _read_by_wfdb(source if isinstance(source, tuple) else Path(stem), lines, comments, record_id)
    if isinstance(source, tuple):
        data = source[1]
    else:
        path = os.path.join(os.path.dirname(stem), header.file_name)  # noqa: PTH118, PTH120
        announced = header.byte_offset + 2 * len(header.sig_names) * header.n_samples
        data = _read_file(path, record_id, announced if header.n_samples else None)
    digital = _plain_samples(header, data, record_id)
    units_per_mv = header.scales.units_per_mv
    if units_per_mv is not None and digital.min() != MISSING_SAMPLE:
        return RawEcg(digital, units_per_mv, header.fs_hz, header.sig_names, comments, "direct")
    waveform = _physical(header.scales, digital)
    _scale_to_mv(waveform, header.scales.units, header.sig_names, record_id)
    return RawEcg(waveform, 1.0, header.fs_hz, header.sig_names, comments, "direct")


def to_mv(samples: NDArray[np.int16] | NDArray[np.float32], units_per_mv: float) -> NDArray[np.float32]:
    """Return samples in mV, float32 of the same shape; samples that are float32 are in mV already."""
    if samples.dtype != np.int16:
        return np.asarray(samples, np.float32)
    waveform = samples.astype(np.float32, order="C")
    waveform /= np.float32(units_per_mv)
    return waveform


def record_stem(path: Path | str) -> Path:
    """Return a record's path without `.hea`, `.dat` or `.mat`; other dots belong to its name."""
    return Path(_without_suffix(path))


def _without_suffix(path: Path | str) -> str:
    """Return a record's path as text: with 800,000 records, a Path for each takes as long as parsing its header."""
    stem, suffix = os.path.splitext(path)  # noqa: PTH122
    return stem if suffix in SUFFIXES else os.fspath(path)


def header_path(stem: Path) -> Path:
    """Return the path of a record's header."""
    return stem.with_name(stem.name + ".hea")


def header_comments(text: str) -> tuple[str, ...]:
    """Return the comment lines of a header without their `#`."""
    first = text.find("#")
    if first < 0:
        return ()
    rest = text[text.rfind("\n", 0, first) + 1 :]  # comments mostly stand at the end
    return tuple(line.strip(" \t#") for line in rest.splitlines() if line.lstrip().startswith("#"))


def header_rate(path: Path | str) -> float | None:
    """Return the sampling rate in a record's header, None if the header cannot be read or names none."""
    try:
        with header_path(record_stem(path)).open(encoding="latin-1") as file:
            record = next((line.split() for line in file if line.strip() and not line.startswith("#")), [])
        return float(record[2].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return None


def _read_file(path: str, record_id: str, announced_bytes: int | None = None) -> bytes:
    """Read a file in as few system calls as can be; a Path and a buffer would take as long as the reading."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            first = _SOME_BYTES if announced_bytes is None else min(announced_bytes, _MOST_AT_ONCE) + 1
            content = os.read(descriptor, first)
            # One byte more was asked for. If it came, or less than announced, only an empty read tells the end.
            while len(content) != announced_bytes and (more := os.read(descriptor, max(len(content), _SOME_BYTES))):
                content += more
            return content
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise RecordReject(record_id, "missing-file", f"{path} does not exist.") from None
    except OSError as error:
        raise RecordReject(record_id, "unreadable", f"{path} cannot be read: {error.strerror}.") from error


def _decode(header: bytes, record_id: str) -> str:
    if b"\0" in header:
        raise RecordReject(record_id, "bad-header", "the header is not text: it holds NUL bytes.")
    try:
        return header.decode()
    except UnicodeDecodeError:
        return header.decode("latin-1")  # old headers carry names with accents


def _parse_plain(lines: list[str]) -> _PlainHeader | None:
    """Parse the lines of a header that are no comments, or return None unless the record is plain."""
    record = lines[0].split() if lines else []
    if len(record) < 3 or "/" in record[0] or not record[1].isdigit():
        return None
    n_sig = int(record[1])
    fields = " ".join(lines[1:]).split()
    if len(fields) != 9 * n_sig:
        fields = [field for line in lines[1:] for field in line.split(None, 8)]  # the last, a name, may hold spaces
    if n_sig == 0 or len(lines) != n_sig + 1 or len(fields) != 9 * n_sig:
        return None
    files, storages = {*fields[::9]}, {*fields[1::9]}  # one file's name in every ninth place: nine fields in every line
    file_name, storage = files.pop(), storages.pop()
    fmt = _FORMAT_16.fullmatch(storage)
    if fmt is None or files or storages or not _is_bare_name(file_name):
        return None
    scales = _parse_gains(tuple(fields[2::9]), tuple(fields[4::9]))
    try:
        fs_hz = float(record[2].partition("/")[0])
        n_samples = int(record[3]) if len(record) > 3 else 0
    except ValueError:
        return None
    if n_samples < 0 or not 0 < fs_hz < float("inf") or scales is None:
        return None
    return _PlainHeader(fs_hz, n_samples, file_name, int(fmt[1] or 0), scales, tuple(fields[8::9]))


@lru_cache(maxsize=1024)  # a data set has few kinds of headers
def _parse_gains(gains: tuple[str, ...], adc_zeros: tuple[str, ...]) -> _Scales | None:
    """Parse all signals' `200.0(0)/mV` into units per mV, baselines and units, or return None if one is not plain."""
    scales = [_parse_gain(gain, adc_zero) for gain, adc_zero in zip(gains, adc_zeros, strict=True)]
    plain = [scale for scale in scales if scale is not None]
    if len(plain) < len(scales):
        return None
    factors, baselines, units = zip(*plain, strict=True)
    whole = len({*factors}) == 1 and not any(baselines)
    in_mv = all(_MV_PER_UNIT.get(unit.casefold()) == 1 for unit in {*units})
    return _Scales(factors, baselines, units, factors[0] if whole and in_mv else None)


def _parse_gain(gain: str, adc_zero: str) -> tuple[float, int, str] | None:
    """Parse one signal's; a gain of 0 means unknown and is not plain."""
    match = _GAIN.fullmatch(gain)
    if match is None or float(match[1]) == 0:
        return None
    try:
        return float(match[1]), int(match[2] or adc_zero), match[3] or ""
    except ValueError:
        return None


def _plain_samples(header: _PlainHeader, data: bytes, record_id: str) -> NDArray[np.int16]:
    """Look at the bytes of a sample file as stored units; shape (signals, samples)."""
    n_sig = len(header.sig_names)
    frame = 2 * n_sig
    present = len(data) - header.byte_offset
    expected = header.n_samples * frame if header.n_samples else present - present % frame
    if present < expected or expected <= 0:
        raise RecordReject(
            record_id,
            "truncated",
            f"{header.file_name} holds {max(present, 0)} bytes of samples; its header announces "
            f"{header.n_samples or 'at least 1'} samples of {n_sig} signals, {max(expected, frame)} bytes.",
        )
    if present > expected:
        raise RecordReject(
            record_id,
            "bad-header",
            f"{header.file_name} holds {present} bytes of samples, more than the {expected} that its header announces "
            f"({header.n_samples} samples of {n_sig} signals): one of the two is wrong.",
        )
    return np.frombuffer(data, "<i2", expected // 2, header.byte_offset).reshape(-1, n_sig).T


def _physical(scales: _Scales, digital: NDArray[np.int16]) -> NDArray[np.float32]:
    """Turn stored units into the header's physical ones; NaN where a sample is missing."""
    missing = digital == MISSING_SAMPLE if digital.min() == MISSING_SAMPLE else None
    waveform = digital.astype(np.float32, order="C")
    if any(scales.baselines):
        waveform -= np.array(scales.baselines, np.float32)[:, None]
    if len(set(scales.gains)) == 1:  # one divisor is measurably faster than a column of twelve
        waveform /= np.float32(scales.gains[0])
    else:
        waveform /= np.array(scales.gains, np.float32)[:, None]
    if missing is not None:
        waveform[missing] = np.nan
    return waveform


def _scale_to_mv(waveform: NDArray[np.float32], units: tuple[str, ...], names: tuple[str, ...], record_id: str) -> None:
    """Convert signals to mV in place; a signal that is no ECG lead may have any unit."""
    for row, (unit, name) in enumerate(zip(units, names, strict=True)):
        if unit == "mV":
            continue
        scale = _MV_PER_UNIT.get(unit.casefold())
        if scale is None and canonical_lead(name) is not None:
            raise RecordReject(record_id, "bad-header", f"lead {name} is in {unit!r}; expected mV, uV or V.")
        if scale is not None and scale != 1:
            waveform[row] *= np.float32(scale)


def _is_bare_name(name: str) -> bool:
    return os.path.basename(name) == name and name not in (".", "..")  # noqa: PTH119 - as in `_without_suffix`


def _read_by_wfdb(
    source: Path | tuple[bytes, bytes], lines: list[str], comments: tuple[str, ...], record_id: str
) -> RawEcg:
    """Read a record that is not plain."""
    if isinstance(source, Path):
        return _rdrecord(source, comments, record_id)
    words = [line.split() for line in lines if not line.lstrip().startswith("#")]
    if len(words) < 2 or "/" in words[0][0] or len({spec[0] for spec in words[1:]}) > 1:
        detail = "the header names no single sample file, so the bytes of one are not enough."
        raise RecordReject(record_id, "bad-header", detail)
    name, file_name = words[0][0], words[1][0]
    if not _is_bare_name(name) or not _is_bare_name(file_name):
        raise RecordReject(record_id, "bad-header", f"the header names a file in another folder: {file_name}.")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, name + ".hea").write_bytes(source[0])
        Path(folder, file_name).write_bytes(source[1])
        return _rdrecord(Path(folder, name), comments, record_id)


def _rdrecord(stem: Path, comments: tuple[str, ...], record_id: str) -> RawEcg:
    import wfdb

    try:
        record = wfdb.rdrecord(str(stem))
    except FileNotFoundError as error:
        raise RecordReject(record_id, "missing-file", f"{error.filename or stem} does not exist.") from error
    except Exception as error:  # wfdb raises whatever its parsers stumble over
        detail = f"the wfdb library cannot read {stem.name} ({type(error).__name__}: {str(error).rstrip('.')})."
        raise RecordReject(record_id, "unreadable", detail) from error
    if record.p_signal is None or record.sig_name is None or record.p_signal.size == 0 or not record.fs:
        raise RecordReject(record_id, "bad-header", f"{stem.name}.hea describes no signal.")
    _check_file_sizes(record, stem.parent, record_id)
    waveform = np.ascontiguousarray(record.p_signal.T, dtype=np.float32)
    names = tuple(record.sig_name)
    _scale_to_mv(waveform, tuple(record.units or [""] * len(names)), names, record_id)
    return RawEcg(waveform, 1.0, float(record.fs), names, comments, "wfdb")


def _check_file_sizes(record: Any, folder: Path, record_id: str) -> None:
    """Reject sample files shorter than announced; of some packed formats wfdb makes up the rest."""
    if not record.file_name:  # joined from segments, whose files are not named any more
        return
    announced: dict[str, float] = {}
    for file_name, fmt, per_frame, offset in zip(
        record.file_name, record.fmt, record.samps_per_frame, record.byte_offset, strict=True
    ):
        announced.setdefault(file_name, offset or 0)
        announced[file_name] += record.sig_len * per_frame * _PACKED_BYTES.get(fmt, 0)
    for file_name, n_bytes in announced.items():
        size = (folder / file_name).stat().st_size
        if size < int(n_bytes):
            detail = (
                f"{file_name} holds {size} bytes; its header announces {record.sig_len} samples, {n_bytes:.0f} bytes."
            )
            raise RecordReject(record_id, "truncated", detail)
