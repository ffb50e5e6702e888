"""How long the program takes from a cold shell, and what it imports meanwhile.

    python benchmarks/cold_start.py [--index NAME|PATH] [--runs 9] [--top 15]

Every run is a fresh process, the page cache warm: `--help`, a search with a text never asked before, and one whose
vector is in the user's library. Prints median, minimum and maximum of wall and processor time, then the import-time
profiles of `--help` and of a search with a new text: own time by package, and the modules that take longest by
themselves. The index is the one `fgclep search` would use, the built-in demo where there is none.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import cli
from cli.demo import find_index
from indexer.manifest import read_manifest


def main() -> None:
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--top", type=int, default=15)
    arguments = parser.parse_args()
    index = find_index(arguments.index)
    search = ["search", "--json", "--index", str(index)]
    print(f"index {read_manifest(index).name}: {read_manifest(index).counts.indexed:,} records")
    with tempfile.TemporaryDirectory() as home:
        start(home, [*search, "warm the page cache"])
        report("--help", [start(home, ["--help"]) for _ in range(arguments.runs)])
        report("search, new text", [start(home, [*search, f"low QRS voltage {n}"]) for n in range(arguments.runs)])
        report(
            "search, text asked before", [start(home, [*search, "low QRS voltage 0"]) for _ in range(arguments.runs)]
        )
        print_profile("--help", import_times(home, ["--help"]), arguments.top)
        print_profile("a search with a new text", import_times(home, [*search, "inverted T waves"]), arguments.top)


def start(home: str, words: Sequence[str]) -> tuple[float, float]:
    """Run the program once in a fresh process; returns seconds of wall time and of processor time."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run_program(home, [], words)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run_program(home: str, flags: Sequence[str], words: Sequence[str]) -> str:
    """Run `fgclep` of this checkout with flags of the interpreter and a home of its own; returns its stderr."""
    command = [sys.executable, *flags, "-m", "cli.main", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment(home)).stderr


def environment(home: str | Path) -> dict[str, str]:
    """Return the environment of a user whose home folder is `home`; modules stay compiled, as after an installation."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, "FGCLEP_HOME": str(home), "PYTHONPATH": str(Path(cli.__file__).parents[1])}


def report(what: str, seconds: Sequence[tuple[float, float]]) -> None:
    """Print median, minimum and maximum of wall and processor time in milliseconds."""
    cells = []
    for name, values in zip(("wall", "processor"), zip(*seconds, strict=True), strict=True):
        low, middle, high = (1000 * value for value in (min(values), statistics.median(values), max(values)))
        cells.append(f"{name} {middle:5.0f} ms ({low:.0f} to {high:.0f})")
    print(f"{what:26} {'  '.join(cells)}  {len(seconds)} runs", flush=True)


def import_times(home: str, words: Sequence[str]) -> dict[str, float]:
    """Return the milliseconds that every module took by itself, as the interpreter tells (-X importtime)."""
    times = {}
    for line in run_program(home, ["-X", "importtime"], words).splitlines():
        own, _, module = line.removeprefix("import time:").replace("|", " ").strip().partition(" ")
        if line.startswith("import time:") and own.isdigit():
            times[module.split()[-1]] = int(own) / 1000
    return times


def print_profile(what: str, times: dict[str, float], top: int) -> None:
    """Print own import time by package and the slowest modules."""
    packages: dict[str, float] = defaultdict(float)
    for module, milliseconds in times.items():
        packages[module.partition(".")[0]] += milliseconds
    print(f"\nimports of {what}: {len(times)} modules, {sum(times.values()):.0f} ms while profiled")
    for title, ranked in (("package", packages.items()), ("module", times.items())):
        print(f"\n{'own ms':>8}  {title}")
        for name, milliseconds in sorted(ranked, key=lambda entry: -entry[1])[:top]:
            print(f"{milliseconds:8.1f}  {name}")


if __name__ == "__main__":
    main()
