"""Stages of an index build alone, and search from a cold shell and in one process.

    python benchmarks/embed_and_search.py DATA [--model NAME|PATH] [--limit 1000] [--index NAME|PATH]

DATA is any data set that `fgclep data scan` recognises; the index is the one `fgclep search` would use. Prints records
per second of reading with checks, of preparing and of encoding (torch's threads as set by OMP_NUM_THREADS), then the
median, minimum and maximum time of searches. A cold search is a fresh process with a text never asked before.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np

from cli import settings
from cli.demo import find_index
from fgclep.datasets import open_dataset
from fgclep.preprocessing import EcgProcessor
from fgclep.pretrained import load_model, resolve_model
from indexer.open import matching_model, open_index
from retrieval.cache import QueryCache
from retrieval.encoder import BundleEncoder
from retrieval.query import Query
from retrieval.searcher import Searcher

TEXTS = ("low QRS voltage", "inverted T waves", "atrial fibrillation", "left bundle branch block", "ST elevation in V2")


def main() -> None:
    """Parse the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--index")
    arguments = parser.parse_args()
    measure_stages(arguments.data, resolve_model(arguments.model), arguments.limit)
    measure_search(arguments.index)


def measure_stages(data: Path, bundle: Path, limit: int) -> None:
    """Print records per second of each stage alone, over the same records, read once before."""
    processor, model = EcgProcessor.from_pretrained(bundle), load_model(bundle)
    dataset = open_dataset(data)
    suitable = [rate for rate in dataset.rates if rate >= processor.fs_hz]
    dataset = open_dataset(data, fs_hz=min(suitable)) if suitable else dataset
    infos = list(islice(dataset.iter_infos(), limit))
    for info in infos:
        dataset.read(info)
    started = time.perf_counter()
    records = [dataset.read(info) for info in infos]
    report("read and check, one core", len(infos), time.perf_counter() - started)
    started = time.perf_counter()
    prepared = np.stack([processor.prepare(record.waveform, record.fs_hz) for record in records])
    report("prepare, one core", len(infos), time.perf_counter() - started)
    model.encode_ecg(prepared[:64])
    started = time.perf_counter()
    model.encode_ecg(prepared)
    report("encode, torch's threads", len(infos), time.perf_counter() - started)


def measure_search(name: str | None) -> None:
    """Print how long a search takes: a new process with a new text, one with a known text, and inside one process."""
    with tempfile.TemporaryDirectory() as home:
        path = find_index(name)
        index = open_index(path)
        manifest = index.manifest
        print(f"index {manifest.name}: {manifest.counts.indexed:,} records")
        command = [sys.executable, "-m", "cli.main", "search", "--index", str(path), "--json"]

        def run(text: str) -> None:
            environment = {**settings_environment(), "FGCLEP_HOME": home}
            subprocess.run([*command, text], check=True, capture_output=True, env=environment)

        report_times("cold search, new text", [timed(lambda text=text: run(text)) for text in TEXTS])
        report_times("cold search, text asked before", [timed(lambda text=text: run(text)) for text in TEXTS])
        searcher = Searcher(
            index, BundleEncoder(manifest, lambda: matching_model(manifest), QueryCache(Path(home) / "warm"))
        )
        searcher.search(Query(text="sinus rhythm", limit=10))
        new = [timed(lambda text=text: searcher.search(Query(text=text, limit=10))) for text in TEXTS]
        report_times("warm search, new text", new)
        known = [timed(lambda text=text: searcher.search(Query(text=text, limit=10))) for text in TEXTS * 4]
        report_times("warm search, text asked before", known)


def settings_environment() -> dict[str, str]:
    """Return the environment for a fresh process, with this checkout on its path."""
    return {**os.environ, "PYTHONPATH": str(Path(settings.__file__).parents[1])}


def timed(action: Callable[[], object]) -> float:
    """Return the seconds an action takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def report(stage: str, records: int, seconds: float) -> None:
    """Print a rate."""
    print(f"{stage:32} {records / seconds:10,.0f} records/s", flush=True)


def report_times(what: str, seconds: list[float]) -> None:
    """Print median, minimum and maximum in milliseconds."""
    milliseconds = [1000 * value for value in seconds]
    print(
        f"{what:32} median {statistics.median(milliseconds):8.1f} ms  "
        f"({min(milliseconds):.1f} to {max(milliseconds):.1f}, {len(seconds)} runs)",
        flush=True,
    )


if __name__ == "__main__":
    main()
