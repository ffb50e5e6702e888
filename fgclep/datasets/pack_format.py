"""The files of a pack, and one record in them.

    pack.json         manifest: source, counts, splits, reports, and size and SHA-256 of every other file; written last
    00000.i16, ...    samples of 1,024 listed records, int16 little-endian, one record after another, lead by lead
    00000.jsonl, ...  what is known of those records, one JSON object a line; rejected ones with their reason
    lookup.npy        uint64 (3, records): hash of each record id, ascending, its shard, the place of its line there
    rejects.csv       records that cannot be used, and why
    missing.csv       records that the source lists and has no files of

Samples are whole units of the record's own gain: a 16-bit source's own units, so that its waveforms come back bit for
bit, and 1 uV where the source has no such units or the rate was changed.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import CompatibilityError, CorruptionError
from fgclep.record import EcgRecord, Measurements, RecordInfo, RecordReject
from fgclep.signal import StoredEcg
from fgclep.wfdb_io import to_mv

MANIFEST = "pack.json"
UNFINISHED = "unfinished.json"
LOOKUP, REJECTS, MISSING = "lookup.npy", "rejects.csv", "missing.csv"
SCHEMA = 1
SHARD_RECORDS = 1024
"""Listed records per shard: 123 MB where all are twelve leads of ten seconds at 500 Hz."""

UNITS_PER_MV = 1000
"""Of records that do not bring units of their own: 1 uV steps, +-32.767 mV."""

_LARGEST = np.iinfo(np.int16).max

Units = NDArray[np.int16]


@dataclass(frozen=True)
class PackedRow:
    """Where a usable record's samples are, and what they are.

    Attributes:
        shard: number of its shard.
        offset: of its first sample in the shard's file, in samples.
        samples: per lead.
        units_per_mv: gain.
    """

    shard: int
    offset: int
    samples: int
    fs_hz: float
    units_per_mv: float


def shard_files(number: int) -> tuple[str, str]:
    """Return the names of a shard's samples and lines."""
    return f"{number:05d}.i16", f"{number:05d}.jsonl"


def id_key(record_id: str) -> int:
    """Return the 64 bits by which the lookup finds a record."""
    return int.from_bytes(hashlib.blake2b(record_id.encode(), digest_size=8).digest(), "little")


def quantise(record: EcgRecord) -> tuple[Units, float, bool]:
    """Turn a record's waveform into int16.

    Returns:
        The units, shape (12, samples); units per mV; whether dividing the one by the other gives the very waveform.
        Always so where the source's file is 16-bit. Elsewhere (filled gaps, other rates, other formats) a unit is 1 uV,
        or as much as the largest sample asks for, and no sample is off by more than half a unit.
    """
    if isinstance(record, StoredEcg):
        return record.units.astype("<i2", copy=False), float(record.units_per_mv), True
    peak = float(np.abs(record.waveform).max())
    gain = min(float(UNITS_PER_MV), _LARGEST / peak) if peak else float(UNITS_PER_MV)
    units = np.clip(np.rint(record.waveform.astype(np.float64) * gain), -_LARGEST, _LARGEST).astype("<i2")
    return units, gain, np.array_equal(to_mv(units, gain), record.waveform)


def record_line(record: EcgRecord, listed: RecordInfo, more: dict[str, Any]) -> dict[str, Any]:
    """Describe a usable record; `listed` is what the data set said of it before it was read."""
    line = _info_fields(listed) | more | {"fs_hz": record.fs_hz, "flags": list(record.flags)}
    return line if record.info.dataset == listed.dataset else line | {"read_as": record.info.dataset}


def reject_line(info: RecordInfo, reject: RecordReject) -> dict[str, Any]:
    """Describe a record that cannot be used."""
    return _info_fields(info) | {"reject": reject.reason, "detail": reject.detail}


def encode_line(line: dict[str, Any]) -> bytes:
    """Return a line of a shard's table."""
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _info_fields(info: RecordInfo) -> dict[str, Any]:
    measured = {name: value for name, value in asdict(info.measurements).items() if value is not None}
    return {field.name: getattr(info, field.name) for field in fields(RecordInfo)} | {"measurements": measured}


_INFO_FIELDS = tuple(field.name for field in fields(RecordInfo))


def decode_info(line: dict[str, Any]) -> RecordInfo:
    """Return what the data set said of a record."""
    values = {name: line[name] for name in _INFO_FIELDS}
    values["report_lines"] = tuple(values["report_lines"])
    values["tags"] = tuple(values["tags"])
    values["measurements"] = Measurements(**values["measurements"])
    return RecordInfo(**values)


def decode_row(line: dict[str, Any], shard: int) -> PackedRow | None:
    """Return where a record's samples are, None if it was rejected."""
    if "reject" in line:
        return None
    return PackedRow(shard, line["offset"], line["samples"], line["fs_hz"], line["units_per_mv"])


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_manifest(root: Path) -> dict[str, Any]:
    """Read the manifest of a pack.

    Raises:
        CorruptionError: if it is not readable.
        CompatibilityError: if a newer fgclep wrote it.
    """
    path = root / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        schema = manifest["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptionError(f"{path} is not a readable manifest of a pack: {error}.", _AGAIN) from error
    if schema != SCHEMA:
        raise CompatibilityError(
            f"{root} is a pack of schema {schema}; this fgclep reads schema {SCHEMA}.",
            "Use the fgclep that made it, or pack the data again.",
        )
    found: dict[str, Any] = manifest
    return found


_AGAIN = "Pack the data again: fgclep data pack PATH OUT --restart"


def check_files(root: Path, files: dict[str, dict[str, Any]], *, whole: bool) -> None:
    """Compare files with what the manifest says of them.

    Args:
        root: of the pack.
        files: name -> `bytes` and `sha256`.
        whole: compare the contents too, not only the sizes.

    Raises:
        CorruptionError: naming the first file that differs.
    """
    for name, expected in files.items():
        path = root / name
        try:
            size = path.stat().st_size
        except OSError as error:
            raise CorruptionError(f"{path} of this pack cannot be read: {error.strerror}.", _AGAIN) from error
        if size != expected["bytes"]:
            raise CorruptionError(f"{path} has {size:,} bytes; the manifest says {expected['bytes']:,}.", _AGAIN)
        if whole and sha256_of(path) != expected["sha256"]:
            raise CorruptionError(f"{path} was altered after it was packed: its checksum differs.", _AGAIN)
