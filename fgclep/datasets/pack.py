"""A packed data set: the same records as the tree it was made of, in few large files instead of many small ones.

It presents as that tree: the same kind, record ids, order, folds and tags, the same missing and rejected records, and
the small tables that evaluation looks into lie beside it. So whatever asks for PTB-XL takes a pack of it.
"""

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgclep.datasets.base import Dataset
from fgclep.datasets.pack_format import (
    LOOKUP,
    MISSING,
    PackedRow,
    Units,
    check_files,
    decode_info,
    decode_row,
    id_key,
    read_manifest,
    shard_files,
)
from fgclep.errors import CorruptionError
from fgclep.record import EcgRecord, RecordInfo, RecordReject
from fgclep.signal import StoredEcg


class Pack(Dataset):
    """What `fgclep data pack` wrote.

    Attributes:
        manifest: content of pack.json.
    """

    def __init__(self, root: Path, fs_hz: int | None = None) -> None:
        self.manifest = read_manifest(root)
        self.kind = self.manifest["kind"]
        self.name = self.manifest["name"]
        self.side_tables = tuple(self.manifest["tables"])
        super().__init__(root, self.manifest["rates"], fs_hz)
        self._samples: dict[int, Units] = {}
        self._lookup: NDArray[np.uint64] | None = None

    def iter_infos(self) -> Iterator[RecordInfo]:
        """Yield what is known about each record whose files existed, rejected ones included, as the source did."""
        return (info for info, _ in self.iter_rows())

    def iter_rows(self) -> Iterator[tuple[RecordInfo, PackedRow | None]]:
        """Yield each record with the place of its samples, None for a rejected one."""
        for shard in range(len(self.manifest["shards"])):
            path = self._checked(shard, 1)
            with path.open("rb") as lines:
                for text in lines:
                    line = _parse(text, path)
                    yield decode_info(line), decode_row(line, shard)

    def iter_listed(self) -> Iterator[tuple[str, str]]:
        """Yield the record id and the path of every record that the source listed, those without files last."""
        for info in self.iter_infos():
            yield info.record_id, info.path
        yield from self._iter_missing()

    @cached_property
    def _survey(self) -> tuple[int, tuple[str, ...]]:
        return self.manifest["counts"]["listed"], tuple(record_id for record_id, _ in self._iter_missing())

    def _iter_missing(self) -> Iterator[tuple[str, str]]:
        check_files(self.root, {MISSING: self.manifest["files"][MISSING]}, whole=False)
        with (self.root / MISSING).open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                yield row["record_id"], row["path"]

    def read(self, info: RecordInfo) -> EcgRecord:
        """Return one record.

        Raises:
            RecordReject: with the reason that packing found, or `missing-file` if the pack has no such record.
            CorruptionError: if the pack is damaged.
        """
        line, shard = self._find(info.record_id)
        row = decode_row(line, shard)
        if row is None:
            raise RecordReject(info.record_id, line["reject"], line["detail"])
        read_info = replace(info, dataset=line["read_as"]) if "read_as" in line else info
        return StoredEcg(read_info, np.array(self.units(row)), row.units_per_mv, row.fs_hz, tuple(line["flags"]))

    def stamp(self, info: RecordInfo) -> list[tuple[int, int]]:
        """Return size and checksum of all samples and lines: a pack that was made again is taken as changed."""
        return self._stamp

    @cached_property
    def _stamp(self) -> list[tuple[int, int]]:
        files = [file for shard in self.manifest["shards"] for file in shard["files"].values()]
        digest = hashlib.sha256("".join(file["sha256"] for file in files).encode()).digest()
        return [(sum(file["bytes"] for file in files), int.from_bytes(digest[:8], "big"))]

    def units(self, row: PackedRow) -> Units:
        """Return a record's samples as they are stored, int16 (12, samples), mapped from disk and not yet read."""
        if row.shard not in self._samples:
            self._samples[row.shard] = np.memmap(self._checked(row.shard, 0), "<i2", "r")
        end = row.offset + 12 * row.samples
        return self._samples[row.shard][row.offset : end].reshape(12, row.samples)

    def verify(self) -> None:
        """Compare every file with its checksum.

        Raises:
            CorruptionError: naming the first one that differs.
        """
        check_files(self.root, self.manifest["files"], whole=True)
        for shard in self.manifest["shards"]:
            check_files(self.root, shard["files"], whole=True)

    def _find(self, record_id: str) -> tuple[dict[str, Any], int]:
        """Return a record's line and its shard."""
        if self._lookup is None:
            check_files(self.root, {LOOKUP: self.manifest["files"][LOOKUP]}, whole=False)
            self._lookup = np.load(self.root / LOOKUP, mmap_mode="r", allow_pickle=False)
        keys, shards, places = self._lookup
        key = np.uint64(id_key(record_id))
        for position in range(int(np.searchsorted(keys, key)), len(keys)):
            if keys[position] != key:
                break
            shard = int(shards[position])
            path = self.root / shard_files(shard)[1]
            with path.open("rb") as lines:
                lines.seek(int(places[position]))
                line = _parse(lines.readline(), path)
            if line["record_id"] == record_id:  # two ids may share a hash
                return line, shard
        raise RecordReject(record_id, "missing-file", f"the pack {self.root} has no such record.")

    def _checked(self, shard: int, which: int) -> Path:
        """Return the path of a shard's samples (0) or lines (1) after a look at its size."""
        name = shard_files(shard)[which]
        check_files(self.root, {name: self.manifest["shards"][shard]["files"][name]}, whole=False)
        return self.root / name

    def __getstate__(self) -> dict[str, Any]:
        """Leave the manifest of hundreds of shards and the mapped files behind."""
        return {"root": self.root, "fs_hz": self.fs_hz}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the pack again."""
        self.__init__(state["root"], state["fs_hz"])  # type: ignore[misc]


def _parse(text: bytes, path: Path) -> dict[str, Any]:
    try:
        line = json.loads(text)
        if not isinstance(line, dict) or "record_id" not in line:
            raise ValueError("a line is no record")
    except ValueError as error:
        raise CorruptionError(
            f"{path} of this pack is damaged: {error}.", "Pack the data again: fgclep data pack PATH OUT --restart"
        ) from error
    return line
