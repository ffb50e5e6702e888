"""What is known of a pack once all its shards are there: counts, splits, reports, the lookup, the manifest."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fgclep import __version__
from fgclep.datasets.base import Dataset
from fgclep.datasets.pack_files import PackFolder, ShardEntry
from fgclep.datasets.pack_format import (
    LOOKUP,
    MISSING,
    REJECTS,
    SCHEMA,
    decode_info,
    id_key,
    sha256_of,
    shard_files,
)
from fgclep.datasets.splits import SPLITS, split_rule
from fgclep.durable import write_durably
from fgclep.errors import DataError
from fgclep.reports import REPORT_FAULTS


@dataclass
class _Summary:
    """Counts over the usable records of a pack."""

    exact: int = 0
    rates: Counter[str] = field(default_factory=Counter)
    split_records: Counter[str] = field(default_factory=Counter)
    split_subjects: dict[str, set[str]] = field(default_factory=lambda: {split: set() for split in SPLITS})
    split_rules: set[str] = field(default_factory=set)
    report_faults: Counter[str] = field(default_factory=Counter)
    texts: set[str] = field(default_factory=set)

    def count(self, line: dict[str, Any]) -> None:
        self.exact += line["exact"]
        self.rates[f"{line['fs_hz']:g}"] += 1
        self.split_records[line["split"]] += 1
        self.split_subjects[line["split"]].add(line["subject_id"])
        self.split_rules.add(split_rule(decode_info(line)))
        if line["report_fault"] is None:
            self.texts.add(line["report_hash"])
        else:
            self.report_faults[line["report_fault"]] += 1

    def as_json(self, packed: int) -> dict[str, Any]:
        left_out = {fault: self.report_faults[fault] for fault in REPORT_FAULTS}
        subjects = set().union(*self.split_subjects.values())
        return {
            "rates_hz": {rate: self.rates[rate] for rate in sorted(self.rates, key=float)},
            "bit_for_bit": self.exact,
            "subjects": len(subjects),
            "splits": {
                "rules": sorted(self.split_rules),
                **{
                    split: {"records": self.split_records[split], "subjects": len(self.split_subjects[split])}
                    for split in SPLITS
                },
            },
            "reports": {
                "usable": packed - sum(left_out.values()),
                "left_out": left_out,
                "left_out_means": REPORT_FAULTS,
                "unique_texts": len(self.texts),
            },
        }


def publish(folder: PackFolder, dataset: Dataset, fs_hz: int | None, entries: Sequence[ShardEntry]) -> None:
    """Write everything that follows from the shards, the manifest last.

    Args:
        folder: whose shards are all finished.
        dataset: the source.
        fs_hz: rate that records were brought to; None where they kept their own.
        entries: of all shards, in order.

    Raises:
        DataError: if no record is usable, or the source gave others than it listed.
    """
    packed = sum(entry.records for entry in entries)
    rejects: Counter[str] = Counter()
    for entry in entries:
        rejects.update(entry.rejects)
    if not packed:
        why = ", ".join(f"{count:,} {reason}" for reason, count in sorted(rejects.items())) or "none is there"
        raise DataError(
            f"No record of {dataset.root} can be used: {why}. There is no pack.", f"fgclep data scan {dataset.root}"
        )
    if packed + rejects.total() != dataset.listed - len(dataset.missing):
        raise DataError(
            f"{dataset.root} gave {packed + rejects.total():,} records where {dataset.listed - len(dataset.missing):,} "
            "were listed: it changed while it was packed.",
            "Add --restart to the command to pack anew.",
        )
    summary, places, rejected = _Summary(), [], io.StringIO()
    table = csv.writer(rejected, lineterminator="\n")
    table.writerow(("record_id", "path", "reason", "detail"))
    for shard in range(len(entries)):
        for place, line in _iter_lines(folder.root, shard):
            places.append((id_key(line["record_id"]), shard, place))
            if "reject" in line:
                table.writerow((line["record_id"], line["path"], line["reject"], line["detail"]))
            else:
                summary.count(line)
    lookup = io.BytesIO()
    np.save(lookup, np.array(sorted(places), np.uint64).T.copy(), allow_pickle=False)
    tables = {
        name: (dataset.root / name).read_bytes() for name in dataset.side_tables if (dataset.root / name).exists()
    }
    contents = {
        LOOKUP: lookup.getvalue(),
        REJECTS: rejected.getvalue().encode(),
        MISSING: _missing_csv(dataset).encode(),
        **tables,
    }
    rate = fs_hz or dataset.fs_hz
    for name, content in contents.items():
        write_durably(folder.root / name, content)
    folder.publish(
        {
            "schema": SCHEMA,
            "made_by": f"fgclep {__version__}",
            "kind": dataset.kind,
            "name": dataset.name,
            "rates": [] if rate is None else [rate],
            "tables": list(tables),
            "counts": {
                "listed": dataset.listed,
                "missing": len(dataset.missing),
                "packed": packed,
                "rejected": rejects.total(),
                "rejected_by_reason": dict(sorted(rejects.items())),
                **summary.as_json(packed),
            },
            "files": {
                name: {"bytes": len(content), "sha256": sha256_of(folder.root / name)}
                for name, content in contents.items()
            },
            "shards": [{"listing": entry.listing, "records": entry.records, "files": entry.files} for entry in entries],
        }
    )


def _iter_lines(root: Path, shard: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each line of a shard with its place in the file."""
    place = 0
    with (root / shard_files(shard)[1]).open("rb") as lines:
        for text in lines:
            yield place, json.loads(text)
            place += len(text)


def _missing_csv(dataset: Dataset) -> str:
    missing = set(dataset.missing)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("record_id", "path"))
    if missing:
        table.writerows((record_id, path) for record_id, path in dataset.iter_listed() if record_id in missing)
    return text.getvalue()
