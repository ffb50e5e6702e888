"""Records per second of the direct reader against `wfdb.rdrecord`, on the same plain records in one run.

The readers take turns, round by round, so that a busy machine slows all of them. Usage:

    python benchmarks/read_records.py DATA [--fs-hz 500] [--limit 1000] [--rounds 3]

DATA is any data set that `fgclep data scan` recognises. The files are read once before, so both meet a warm cache.
"""

import argparse
import sys
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import wfdb

from fgclep.datasets import open_dataset
from fgclep.record import RecordInfo, RecordReject
from fgclep.signal import clean
from fgclep.wfdb_io import RawEcg, read_wfdb


def main() -> None:
    """Parse the arguments, check that both readers agree, and time them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--fs-hz", type=int)
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    dataset = open_dataset(arguments.data, fs_hz=arguments.fs_hz)
    plain = []
    for info in islice(dataset.iter_infos(), arguments.limit):
        stem = dataset.root / info.path
        try:
            raw = read_wfdb(stem, info.record_id)
        except RecordReject:
            continue
        if raw.reader == "direct" and agrees_with_wfdb(raw, stem):
            plain.append((info, stem))
    if not plain:
        sys.exit(f"error: {arguments.data} has no record that both readers read.")
    report(plain, arguments.rounds)


def agrees_with_wfdb(raw: RawEcg, stem: Path) -> bool:
    """Tell whether wfdb reads the record too; exit if it reads anything else."""
    try:
        oracle = wfdb.rdrecord(str(stem), return_res=32)
    except Exception:  # some headers of the Challenges are beyond wfdb
        return False
    if not np.array_equal(raw.waveform, oracle.p_signal.T, equal_nan=True):
        sys.exit(f"error: the two readers disagree on {stem}.")
    return True


def report(plain: list[tuple[RecordInfo, Path]], rounds: int) -> None:
    """Time the readers over all records, by turns, and print records per second over all rounds."""
    seconds = {"direct reader": 0.0, "direct reader and clean": 0.0, "wfdb.rdrecord": 0.0}
    readers = (read_directly, read_and_clean, read_by_library)
    for _ in range(rounds):
        for name, read in zip(seconds, readers, strict=True):
            start = time.perf_counter()
            for info, stem in plain:
                read(info, stem)
            seconds[name] += time.perf_counter() - start
    print(f"{len(plain)} plain records x {rounds} rounds by turns, one process")
    for name, total in seconds.items():
        print(f"{name:<24}{rounds * len(plain) / total:8.0f} records/s")
    print(f"{'direct / wfdb':<24}{seconds['wfdb.rdrecord'] / seconds['direct reader']:8.1f} times")


def read_directly(info: RecordInfo, stem: Path) -> None:
    """Read with fgclep, up to the waveform in mV that the library gives."""
    _ = read_wfdb(stem, info.record_id).waveform


def read_and_clean(info: RecordInfo, stem: Path) -> None:
    """Read with fgclep and make the record usable; a reject costs what a record costs."""
    with suppress(RecordReject):
        _ = clean(read_wfdb(stem, info.record_id), info).waveform


def read_by_library(info: RecordInfo, stem: Path) -> None:
    """Read with wfdb."""
    wfdb.rdrecord(str(stem))


if __name__ == "__main__":
    main()
