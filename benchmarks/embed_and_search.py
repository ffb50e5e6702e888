"""Search from a cold shell and in one process.

    python benchmarks/embed_and_search.py [--index NAME|PATH]

The index is the one `fgclep search` would use. Prints the median, minimum and maximum time of searches. A cold search
is a fresh process with a text never asked before. For building, see throughput.py.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cli import settings
from cli.demo import find_index
from indexer.open import matching_model, open_index
from retrieval.cache import QueryCache
from retrieval.encoder import BundleEncoder
from retrieval.query import Query
from retrieval.searcher import Searcher

TEXTS = ("low QRS voltage", "inverted T waves", "atrial fibrillation", "left bundle branch block", "ST elevation in V2")


def main() -> None:
    """Parse the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index")
    measure_search(parser.parse_args().index)


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
