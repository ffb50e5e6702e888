"""An index of MIMIC-IV-ECG's size and its life on the command line, measured.

    python benchmarks/scale.py --home DIR [-n 773268] [--dtype float32] [--steps make search verify life move]

`make` writes a tree of 500 synthetic ECGs to add, a list of n records, and an index of them named `scale`: vectors
around those of the built-in demo, reports made of the demo's lines, 1.3 GB to 4 GB in all. Shards, store, FAISS file
and manifest go through the writers of `fgclep index build`; only reading and encoding are left out. The other steps run
`fgclep` as a user would, each command in a process of its own: `search` a cold shell with and without filters, `verify`
both verifications, `life` an addition while others search, the way back, and the removal of a version that is being
read, `move` an archive there and back.

Every command must do what it should, or the benchmark ends. Steps may be run one at a time; what they measured is kept
in DIR/scale.json, and one Markdown table of all of it is printed at the end. Peak memory is that of the largest process
of a command and counts the pages of the vectors that it maps, which are shared with the page cache.
"""

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cold_start import environment
from scale_index import FIRST_STUDY, put_together, stage, write_list

from indexer.home import current_version, index_dir
from indexer.manifest import STORED, read_manifest
from indexer.publish import become_default, build_lock, publish
from indexer.staging import Staging

NAME = "scale"
TO_ADD = 500
RUNS = 7
BATCH = """
import sys, time, numpy
from pathlib import Path
from indexer.open import open_index
index = open_index(Path(sys.argv[1]))
queries = numpy.asarray(index.vectors[:64], numpy.float32)
index.backend.search(queries, 10)
started = time.perf_counter()
index.backend.search(queries, 10)
print(f"{1000 * (time.perf_counter() - started) / len(queries):.1f} ms a query once warm, {index.backend.name}")
"""
HOLD = """
import sys
from pathlib import Path
from indexer.open import open_index
index = open_index(Path(sys.argv[1]), backend="numpy")
print("open", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Row:
    """One line of the table; seconds and processor time are medians of `runs` processes."""

    step: str
    what: str
    seconds: float
    processor: float
    peak_mb: float
    found: str
    runs: int = 1


@dataclass(frozen=True)
class Done:
    """What one process took, and its output."""

    seconds: float
    processor: float
    peak_mb: float
    out: str
    err: str


def main() -> None:
    """Parse the arguments, run the steps, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("-n", type=int, default=773_268, dest="records")
    parser.add_argument("--dtype", choices=list(STORED), default="float32")
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS))
    arguments = parser.parse_args()
    home = arguments.home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    for step in arguments.steps:
        rows = made(home, arguments.records, arguments.dtype) if step == "make" else STEPS[step](home)
        keep(home / "scale.json", step, rows)
    print_table(home)


def made(home: Path, records: int, dtype: str) -> list[Row]:
    """Run `make` in a process of its own: commands started later would count the peak memory of this one as theirs."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(make, home, records, dtype).result()


def make(home: Path, records: int, dtype: str) -> list[Row]:
    """Write the trees and the index."""
    rows = [told("make", f"data synth new -n {TO_ADD}", fgclep(home, "data", "synth", str(home / "new"), "-n", TO_ADD))]
    write_list(home / "listed", home / "new", records)
    directory = index_dir(home, NAME)
    with build_lock(directory):
        staging = Staging(directory / "staging")
        started, before = time.perf_counter(), time.process_time()
        shards = stage(staging, records, dtype)
        rows.append(took("make", f"{shards} shards", records, started, before))
        started, before = time.perf_counter(), time.process_time()
        assembled = put_together(staging, shards, records, dtype, home / "listed", NAME)
        version = publish(assembled, directory, read_manifest(assembled).version)
        staging.discard()
    become_default(home, NAME)
    rows.append(took("make", "store, FAISS file, self-test, manifest, swap", records, started, before))
    sizes = {name: file.bytes / 1e6 for name, file in read_manifest(version).files.items()}
    print(", ".join(f"{name} {size:,.0f} MB" for name, size in sizes.items()), file=sys.stderr)
    return rows


def took(step: str, what: str, records: int, started: float, before: float) -> Row:
    """Describe work of this process."""
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return Row(step, what, seconds, time.process_time() - before, peak, f"{records / seconds:,.0f} records/s")


def search(home: Path) -> list[Row]:
    """Search from a cold shell."""
    total = records_of(home)
    found(fgclep(home, "search", "warm the page cache", "--json"), total)
    example = f"mimic-iv-ecg:{FIRST_STUDY + 7}"
    asked: dict[str, tuple[str, ...]] = {
        "a new text": ("low QRS voltage {run}",),
        "a text asked before": ("low QRS voltage",),
        "--sex F --age 60:80": ("low QRS voltage", "--sex", "F", "--age", "60:80"),
        '--where "qrs >= 160 and age < 40"': ("low QRS voltage", "--where", "qrs >= 160 and age < 40"),
        "--tag AFIB": ("low QRS voltage", "--tag", "AFIB"),
        '--report-has "sinus rhythm"': ("low QRS voltage", "--report-has", "sinus rhythm"),
        "--like RECORD": ("--like", example),
        "-n 1000 --per-patient 1": ("low QRS voltage", "-n", "1000", "--per-patient", "1"),
    }
    fgclep(home, "search", "low QRS voltage", "--json")
    rows = []
    for what, words in asked.items():
        runs = [
            fgclep(home, "search", *(word.format(run=f"{time.time_ns()}") for word in words), "--json")
            for _ in range(RUNS)
        ]
        rows.append(median("search", what, runs, found(runs[0], total)))
    batch = finish([sys.executable, "-c", BATCH, str(current_version(index_dir(home, NAME)))], home)
    rows.append(told("search", "64 vectors at once, in one process", batch))
    return [*rows, measured("search", "index info", fgclep(home, "index", "info", NAME), "")]


def found(done: Done, total: int) -> str:
    """Check an answer of `search --json` and say how many records were ranked."""
    answer = json.loads(done.out)
    if answer["total"] != total or not answer["hits"]:
        raise SystemExit(
            f"expected hits among {total:,} records, found {len(answer['hits'])} among {answer['total']:,}"
        )
    return f"{answer['considered']:,} ranked"


def verify(home: Path) -> list[Row]:
    """Verify the index, quickly and fully."""
    rows = []
    for words in (("index", "verify", NAME), ("index", "verify", NAME, "--full")):
        done = fgclep(home, *words, "--json")
        checks = json.loads(done.out)["checks"]
        rows.append(measured("verify", " ".join(words), done, f"{len(checks)} checks passed"))
        print(*(f"{check['name']}: {check['detail']}" for check in checks), sep="\n", file=sys.stderr)
    return rows


def life(home: Path) -> list[Row]:
    """Add while others search, go back, go forth, and remove a version while it is read and afterwards."""
    before, old = records_of(home), current_version(index_dir(home, NAME))
    with searching(home) as totals:
        added = fgclep(home, "index", "add", "--data", str(home / "new"), "--name", NAME)
    after, new = records_of(home), current_version(index_dir(home, NAME))
    seen = ", ".join(f"{totals.count(total)} of {total:,}" for total in sorted(set(totals)))
    if not set(totals) <= {before, after} or after != before + TO_ADD:
        raise SystemExit(f"searches during the addition of {TO_ADD} to {before:,} saw {seen}; {after:,} are there now")
    rows = [measured("life", f"index add of {TO_ADD} while a search runs all the time", added, f"answered: {seen}")]
    back = fgclep(home, "index", "rollback", NAME)
    if current_version(index_dir(home, NAME)) != old:
        raise SystemExit(f"the rollback did not lead to {old}")
    rows += [told("life", "index rollback", back), told("life", "search then", searched(home, before))]
    rows.append(told("life", "index use --version NEW", fgclep(home, "index", "use", NAME, "--version", new.name)))
    rows.append(told("life", "search then", searched(home, after)))
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(old)],
        env=environment(home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as reader:
        assert reader.stdin is not None and reader.stdout is not None
        reader.stdout.readline()
        kept = fgclep(home, "index", "gc", NAME, "--keep", 1)
        rows.append(measured("life", "index gc --keep 1, the old one open", kept, kept.err.splitlines()[0]))
        if not old.is_dir():
            raise SystemExit(f"{old} was removed while it was read")
        reader.stdin.close()
    rows.append(told("life", "index gc --keep 1", fgclep(home, "index", "gc", NAME, "--keep", 1)))
    if old.is_dir():
        raise SystemExit(f"{old} is still there")
    return rows


def move(home: Path) -> list[Row]:
    """Write an archive and make another index of it."""
    total, archive, copy = records_of(home), home / "scale.tar.zst", "copy"
    archive.unlink(missing_ok=True)
    exported = fgclep(home, "index", "export", str(archive), NAME)
    size = f"archive of {archive.stat().st_size / 1e6:,.0f} MB"
    rows = [measured("move", "index export", exported, f"{size}, read back")]
    imported = fgclep(home, "index", "import", str(archive), "--name", copy)
    rows.append(measured("move", "index import", imported, size))
    answer = fgclep(home, "search", "low QRS voltage", "--index", copy, "--json")
    return [*rows, measured("move", "search in it", answer, found(answer, total))]


STEPS: dict[str, Any] = {"make": make, "search": search, "verify": verify, "life": life, "move": move}


def records_of(home: Path) -> int:
    """Return the number of records of the current version."""
    return read_manifest(current_version(index_dir(home, NAME))).counts.indexed


def searched(home: Path, total: int) -> Done:
    """Search once and put what was found in place of the output."""
    done = fgclep(home, "search", "low QRS voltage", "--json")
    return replace(done, out=found(done, total), err="")


@contextmanager
def searching(home: Path) -> Iterator[list[int]]:
    """Search again and again in processes of their own; gives the number of records that each answer was drawn from."""
    totals: list[int] = []
    problems: list[BaseException] = []
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            try:
                totals.append(int(json.loads(fgclep(home, "search", "low QRS voltage", "--json").out)["total"]))
            except BaseException as problem:
                problems.append(problem)
                return

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield totals
    finally:
        stop.set()
        thread.join()
    if problems:
        raise SystemExit(f"a search failed meanwhile: {problems[0]}")


def fgclep(home: Path, *words: object) -> Done:
    """Run `fgclep` of this checkout."""
    return finish([sys.executable, "-m", "cli.main", *map(str, words)], home)


def finish(command: Sequence[str], home: Path) -> Done:
    """Run a process to its end; ends the benchmark if it fails."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        process = subprocess.Popen(command, env=environment(home), stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode())
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{texts[1]}")
    return Done(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000, *texts)


def told(step: str, what: str, done: Done) -> Row:
    """Describe a command by the last thing it said that is no hint what to do next."""
    lines = [line for line in (done.err or done.out).splitlines() if line and not line.startswith("Next:")]
    return measured(step, what, done, lines[-1] if lines else "")


def measured(step: str, what: str, done: Done, said: str) -> Row:
    """Describe one process."""
    return Row(step, what, done.seconds, done.processor, done.peak_mb, said)


def median(step: str, what: str, runs: Sequence[Done], said: str) -> Row:
    """Describe several processes that did the same."""
    seconds, processor, peak = (
        statistics.median(values) for values in zip(*((d.seconds, d.processor, d.peak_mb) for d in runs), strict=True)
    )
    slowest = max(done.seconds for done in runs)
    return Row(step, what, seconds, processor, peak, f"{said}; slowest {slowest:.2f} s", len(runs))


def keep(file: Path, step: str, rows: Sequence[Row]) -> None:
    """Put the rows of a step into the file in place of earlier ones."""
    kept = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**kept, step: [asdict(row) for row in rows]}, indent=1))


def print_table(home: Path) -> None:
    """Print everything that was measured, as one Markdown table."""
    kept = json.loads((home / "scale.json").read_text())
    manifest = read_manifest(current_version(index_dir(home, NAME)))
    size = sum(file.bytes for file in manifest.files.values())
    print(f"{manifest.counts.indexed:,} records, {manifest.dtype}, {size / 1e9:.2f} GB; {os.cpu_count()} cores\n")
    print("| step | command | wall s | processor s | peak MB | found |")
    print("|---|---|---:|---:|---:|---|")
    for row in (Row(**entry) for step in STEPS for entry in kept.get(step, [])):
        what = f"{row.what}, median of {row.runs}" if row.runs > 1 else row.what
        cells = f"{row.seconds:.2f} | {row.processor:.2f} | {row.peak_mb:,.0f}"
        print(f"| {row.step} | {what} | {cells} | {row.found.replace('|', '/')} |")


if __name__ == "__main__":
    main()
