"""Make a tree in MIMIC-IV-ECG's layout of any size, from a few hundred synthetic ECGs.

    python benchmarks/mimic_tree.py OUT RECORDS [--base 300] [--seed 7]

`record_list.csv`, `machine_measurements.csv` and `files/pNNNN/p<subject>/s<study>/<study>.{hea,dat}`: 12 leads of 10 s
at 500 Hz in MIMIC's order, format 16, 200 units per mV. Each record is one of the base records, turned in time and
scaled a little, so that no two files are equal and Einthoven's identities hold as exactly as in the generator's own
files; it has the report and the measurements of its base record. Every header says that the record is synthetic.
"""

import argparse
import csv
import os
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgclep.datasets.synthetic import MIMIC_LEADS, UNITS_PER_MV, write_tree
from fgclep.pool import map_in_order
from fgclep.wfdb_io import SYNTHETIC_COMMENT

TABLES = ("record_list.csv", "machine_measurements.csv")
_BASE, _SAMPLES, _FS_HZ = 300, 5000, 500
_BLOCK = 250  # records that a process writes at a time
_INDEPENDENT = [0, 1, 6, 7, 8, 9, 10, 11]  # rows of I, II and V1 to V6 in MIMIC's order


@dataclass(frozen=True)
class Writer:
    """Writes stretches of the tree; travels to every process once.

    Attributes:
        base: tree of the base records.
        out: the tree to write.
        paths: of the base records below `base`, without extension.
    """

    base: Path
    out: Path
    paths: tuple[str, ...]

    def __call__(self, numbers: range) -> None:
        """Write some records by number."""
        for number in numbers:
            path = self.out / record_path(number)
            path.parent.mkdir(parents=True)
            units = perturbed(self._units[number % len(self.paths)], number)
            path.with_suffix(".dat").write_bytes(units.T.tobytes())
            path.with_suffix(".hea").write_text(header(number, units), encoding="ascii")

    @cached_property
    def _units(self) -> list[NDArray[np.int16]]:
        return [
            np.fromfile((self.base / path).with_suffix(".dat"), "<i2").reshape(-1, len(MIMIC_LEADS)).T
            for path in self.paths
        ]


def make_tree(out: Path, records: int, base: int = _BASE, seed: int = 7) -> None:
    """Write a tree of so many records; `out` must not exist."""
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "base")
        write_tree(source, n=min(base, records), seed=seed, fs_hz=_FS_HZ)
        with (source / TABLES[0]).open(newline="", encoding="utf-8") as file:
            paths = tuple(row["path"] for row in csv.DictReader(file))
        for name in TABLES:
            _write_table(source / name, out / name, records)
        blocks = (range(start, min(start + _BLOCK, records)) for start in range(0, records, _BLOCK))
        for _ in map_in_order(Writer(source, out, paths), blocks, os.cpu_count() or 1):
            pass


def subject_of(number: int) -> int:
    """Return the person that a record is of: five records each, as in MIMIC on average."""
    return 10_000_000 + number // 5


def study_of(number: int) -> int:
    """Return a record's study id."""
    return 40_000_000 + number


def record_path(number: int) -> str:
    """Return a record's path below the root, without extension."""
    subject, study = subject_of(number), study_of(number)
    return f"files/p{subject // 10_000}/p{subject}/s{study}/{study}"


def perturbed(units: NDArray[np.int16], number: int) -> NDArray[np.int16]:
    """Turn a record in time and scale it by up to a tenth; the six limb leads stay consistent.

    Args:
        units: shape (12, samples), MIMIC's lead order.
        number: decides both.
    """
    rng = np.random.default_rng(number)
    independent = np.roll(units[_INDEPENDENT], int(rng.integers(units.shape[1])), axis=1)
    i, ii, *chest = np.rint(independent * rng.uniform(0.9, 1.1)).clip(-15_000, 15_000)
    limb = [i, ii, ii - i, np.rint(-(i + ii) / 2), np.rint(ii - i / 2), np.rint(i - ii / 2)]
    return np.stack([*limb, *chest]).astype("<i2")


def header(number: int, units: NDArray[np.int16]) -> str:
    """Return a record's header as MIMIC writes it."""
    name = study_of(number)
    sums = (units.sum(axis=1, dtype=np.int64) + 32768) % 65536 - 32768
    lines = [f"{name} {len(units)} {_FS_HZ} {units.shape[1]} 08:44:00 23/07/2180"]
    lines += [
        f"{name}.dat 16 {UNITS_PER_MV}.0(0)/mV 16 0 {samples[0]} {checksum} 0 {lead}"
        for lead, samples, checksum in zip(MIMIC_LEADS, units, sums, strict=True)
    ]
    return "\n".join([*lines, f"# <subject_id>: {subject_of(number)}", f"# {SYNTHETIC_COMMENT}", ""])


def _write_table(source: Path, target: Path, records: int) -> None:
    """Repeat a table's rows with other ids."""
    with source.open(newline="", encoding="utf-8") as file, target.open("w", newline="", encoding="utf-8") as out:
        reader = csv.DictReader(file)
        writer = csv.DictWriter(out, reader.fieldnames or [])
        writer.writeheader()
        for number, row in enumerate(islice(cycle(list(reader)), records)):
            ids = {"subject_id": subject_of(number), "study_id": study_of(number)}
            place = {"file_name": study_of(number), "path": record_path(number)} if "path" in row else {}
            writer.writerow({**row, **ids, **place})


def main() -> None:
    """Parse the arguments and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("records", type=int)
    parser.add_argument("--base", type=int, default=_BASE)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    started = time.perf_counter()
    make_tree(arguments.out, arguments.records, arguments.base, arguments.seed)
    seconds = time.perf_counter() - started
    print(f"{arguments.records:,} records in {seconds:.1f} s, {arguments.records / seconds:,.0f} records/s")


if __name__ == "__main__":
    main()
