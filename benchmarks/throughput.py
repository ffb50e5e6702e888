"""How fast an index is built, stage by stage, against what this machine could do at most.

    python benchmarks/throughput.py [--tree FOLDER] [--records 8192] [--memory 1000 4000] [--workers N]
                                    [--exact] [--model NAME|PATH | --preset NAME]

Makes a tree in MIMIC-IV-ECG's layout (see mimic_tree.py) and builds an index of it in a scratch folder of build/bench.
Reading is to be measured out of the page cache, and some machines evict pages that nothing has touched for seconds; so
the tree is made in /dev/shm, whose files are nowhere else, and removed at the end. Where that has too little room, or
with --tree, it is made on disk and kept for the next run; what of it has left the page cache is then read from there.
With --preset an untrained ECG tower of that kind encodes, such as the paper's `resnet1d-50`.

A stage's rate is that of all worker processes together, each timing its own work on the same records. Stages and builds
take turns, as a shared machine's speed drifts: every build is compared with the stages before and after it. `read and
check` ends with the leads in order in a batch's memory, `encode` begins there: centring, filter, change of rate and
tower. The floor is the time that a raw copy of the same bytes takes, or the same number of arithmetic operations in a
large matrix product of the same type on one core, measured in the same run. The pipeline's rate is the slope of the
line through the moments at which batches were finished, the whole build's is from start to end, starting the processes
included.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mimic_tree import make_tree
from torch.utils.flop_counter import FlopCounterMode

from fgclep.models.config import ECG_PRESETS, FGCLEPConfig
from fgclep.models.dual_encoder import FGCLEPModel
from fgclep.pool import map_in_order
from fgclep.preprocessing import EcgProcessor, StoredStack
from fgclep.pretrained import load_calibration, load_model, resolve_model, save_bundle
from fgclep.record import EcgRecord, RecordInfo
from fgclep.signal import StoredEcg
from indexer.build import open_for_model, plan_build, run_build
from indexer.embed import Embedder, Encode, Tally, load_embedder
from indexer.reading import Chunk
from indexer.resources import choose_batch_size, choose_workers, free_memory
from indexer.rows import record_row
from indexer.sources import Sources
from indexer.staging import ShardContent, ShardEntry, Staging, as_lines

LEADS, MATRIX = 12, 2048
ROUNDS = 4
WORK, SHARED_MEMORY = Path("build/bench"), Path("/dev/shm")
RECORD_BYTES = 128_000  # of the tree
OTHER_BYTES = 4_000_000_000  # of all else


@dataclass(frozen=True)
class Stages:
    """Does a chunk's work stage by stage with a clock; travels to every process once."""

    sources: Sources
    embedder: Embedder
    batch_size: int

    def __call__(self, chunk: Chunk) -> dict[str, float]:
        """Return the seconds that each stage took; the first chunk of a process warms up and is done twice."""
        if "_warm" not in self.__dict__:
            self.__dict__["_warm"] = True
            self(chunk)
        seconds: dict[str, float] = {}
        _ = self._encode
        torch.set_num_threads(1)

        def timed(stage: str, work: Callable[[], Any]) -> Any:
            started = time.perf_counter()
            result = work()
            seconds[stage] = time.perf_counter() - started
            return result

        records = timed("read and check", lambda: self._read(chunk))
        timed("tags and rows", lambda: as_lines("record", [_row(*record) for record in records]))
        timed("encode", lambda: self._encode(self._stack.batch()))
        return seconds

    @cached_property
    def _encode(self) -> Encode:
        return self.embedder.encode

    @cached_property
    def _stack(self) -> StoredStack:
        return StoredStack(self.embedder.processor, self.batch_size)

    def _read(self, chunk: Chunk) -> list[tuple[RecordInfo, float, tuple[str, ...]]]:
        """Read a chunk's records into the stack; every file of the tree is of one kind."""
        self._stack.clear()
        known = []
        for key, info in chunk.items:
            record = self.sources.read(key, info)
            if not self._stack.add(record):
                raise ValueError(f"{info.path} is unlike the records before it")
            known.append((record.info, record.fs_hz, record.flags))
        return known


def _row(info: RecordInfo, fs_hz: float, flags: Sequence[str]) -> dict[str, Any]:
    return record_row(0, info, fs_hz=fs_hz, duration_s=10.0, flags=flags)


@dataclass(frozen=True)
class Build:
    """One build of the first `records` of a tree, in a process of its own."""

    data: Path
    model: str | None
    records: int
    workers: int
    exact: bool

    def __call__(self) -> dict[str, float]:
        """Return rates in records/s, the seconds of the writing stages, and peak memory in MB."""
        times: list[tuple[float, int]] = []
        commits: list[float] = []
        original = Staging.commit

        def commit(staging: Staging, number: int, content: ShardContent) -> ShardEntry:
            started = time.perf_counter()
            entry = original(staging, number, content)
            commits.append(time.perf_counter() - started)
            return entry

        Staging.commit = commit  # type: ignore[method-assign]
        with tempfile.TemporaryDirectory(dir=WORK) as home:
            embedder = load_embedder(self.model, exact=self.exact)
            dataset = open_for_model(self.data, embedder)
            started = time.perf_counter()
            plan = plan_build(dataset, embedder, "bench", home=Path(home), limit=self.records, workers=self.workers)
            version = run_build(plan, partial(_note, times))
            ended = time.perf_counter()
            size = sum(path.stat().st_size for path in version.rglob("*"))
        moments, counts = zip(*times, strict=True)
        last, done = times[-1]
        peaks = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return {
            "pipeline": float(np.polyfit(np.subtract(moments, last), counts, 1)[0]),
            "build": done / (ended - started),
            "commit_s": sum(commits) / done,
            "assemble_s": (ended - last) / done,
            "bytes": size / done,
            "main_mb": peaks[0],
            "worker_mb": peaks[1],
        }


@dataclass(frozen=True)
class Round:
    """One build, and each stage's seconds for one record in one process, measured around it."""

    seconds: dict[str, float]
    built: dict[str, float]


def _note(times: list[tuple[float, int]], tally: Tally) -> None:
    times.append((time.perf_counter(), tally.done))


def main() -> None:
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, help="make the tree there and keep it; default: in memory, or build/bench")
    parser.add_argument("--records", type=int, default=8192)
    parser.add_argument("--memory", type=int, nargs="*", default=[1000, 4000])
    parser.add_argument("--model")
    parser.add_argument("--preset", choices=list(ECG_PRESETS))
    parser.add_argument("--workers", type=int, default=choose_workers("cpu"))
    parser.add_argument("--exact", action="store_true", help="float32 even where bfloat16 is faster")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # what lies in memory is removed
    with tree_of(max(arguments.records, *arguments.memory, 0), arguments.tree) as data:
        measure(data, arguments)


def measure(data: Path, arguments: argparse.Namespace) -> None:
    """Measure the stages and the builds of a tree, and print."""
    if arguments.preset is not None:
        arguments.model = str(untrained(arguments.preset))
    embedder = load_embedder(arguments.model, exact=arguments.exact)
    dataset = open_for_model(data, embedder)
    infos = list(islice(dataset.iter_infos(), arguments.records))
    sources = Sources((dataset,))
    warm_cache(data, [info.path for info in infos])
    stages = Stages(sources, embedder, choose_batch_size("cpu", len(infos), arguments.workers))
    build = Build(data, arguments.model, arguments.records, arguments.workers, arguments.exact)
    rounds, before = [], stage_seconds(stages, infos, arguments.workers)
    for _ in range(ROUNDS):
        built = in_own_process(build)
        after = stage_seconds(stages, infos, arguments.workers)
        rounds.append(Round({stage: (before[stage] + after[stage]) / 2 for stage in before}, built))
        before = after
    floors = find_floors(
        data, infos[0].path, sources.read(0, infos[0]), embedder, arguments.model, rounds[0].built["bytes"]
    )
    print(f"{arguments.records:,} records of 10 s at {dataset.fs_hz} Hz, {arguments.workers} processes, ", end="")
    print(f"model {embedder.model.name}, {embedder.arithmetic}, {os.cpu_count()} cores\n")
    report_stages(rounds, floors, arguments.workers)
    memory = {size: in_own_process(Build(data, *asdict_tail(build, size))) for size in arguments.memory}
    report_memory(memory, arguments.workers)
    if arguments.json:
        print(json.dumps({"rounds": [asdict(one) for one in rounds], "floors": floors, "memory": memory}))


def asdict_tail(build: Build, records: int) -> list[Any]:
    """Return a build's arguments after the data, with another number of records."""
    return list({**asdict(build), "records": records}.values())[1:]


@contextmanager
def tree_of(records: int, folder: Path | None) -> Iterator[Path]:
    """Give a tree of so many records: one in the folder, or one in memory that is removed afterwards."""
    needed = records * RECORD_BYTES + OTHER_BYTES
    if folder is None and SHARED_MEMORY.is_dir():
        room = min(shutil.disk_usage(SHARED_MEMORY).free, free_memory() or 0)
        if room > needed:
            with tempfile.TemporaryDirectory(dir=SHARED_MEMORY, prefix="fgclep-bench-") as scratch:
                yield find_tree(Path(scratch), records)
            return
        print(f"{SHARED_MEMORY} has room for {room / 1e9:.1f} GB, {needed / 1e9:.1f} GB are wanted: ", end="")
        print("the tree is made on disk; what leaves the page cache is read from there.")
    yield find_tree(folder or WORK, records)


def find_tree(folder: Path, records: int) -> Path:
    """Return the smallest tree of the folder that has so many records, made now if there is none."""
    sizes = sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())
    size = next((size for size in sizes if size >= records), records)
    tree = folder / str(size)
    if not tree.exists():
        started = time.perf_counter()
        shutil.rmtree(unfinished := folder / f"{size}.part", ignore_errors=True)
        make_tree(unfinished, size)
        unfinished.rename(tree)
        print(f"made {size:,} records in {time.perf_counter() - started:.0f} s: {tree}")
    return tree


def untrained(preset: str) -> Path:
    """Write a bundle with a fresh ECG tower of a preset and the shipped text tower."""
    shipped = resolve_model(None)
    known, chosen = load_model(shipped), ECG_PRESETS[preset]
    processor = EcgProcessor(**chosen["input"])
    model = FGCLEPModel(
        FGCLEPConfig(
            ecg=chosen["ecg"],
            pool=chosen["pool"],
            n_samples=processor.n_samples,
            text=known.config.text,
            text_pool=known.config.text_pool,
        )
    )
    bundle = WORK / preset
    save_bundle(bundle, model, known.tokenizer, processor, load_calibration(shipped), f"untrained {preset}\n")
    return bundle


def warm_cache(data: Path, paths: Sequence[str]) -> None:
    """Read every file once."""
    for path in paths:
        for suffix in (".hea", ".dat"):
            (data / f"{path}{suffix}").read_bytes()


def stage_seconds(stages: Stages, infos: Sequence[Any], workers: int) -> dict[str, float]:
    """Return each stage's seconds for one record in one process, with so many processes at work."""
    keyed, size = list(enumerate(infos)), stages.batch_size
    chunks = [Chunk(0, keyed[at : at + size], last=False) for at in range(0, len(keyed), size)]
    total: Counter[str] = Counter()
    for _, seconds in map_in_order(stages, chunks, workers):
        total.update(seconds)
    return {stage: seconds / len(infos) for stage, seconds in total.items()}


def in_own_process(build: Build) -> dict[str, float]:
    """Run a build in a fresh process, so that its peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(build).result()


def find_floors(
    data: Path, path: str, record: EcgRecord, embedder: Embedder, model: str | None, written_bytes: float
) -> dict[str, float]:
    """Return the least seconds for one record in one process, by stage."""
    processor = embedder.processor
    blocks = processor.block_filter(record.fs_hz)
    samples = min(record.waveform.shape[1], processor.native_samples(record.fs_hz))
    products = 0 if blocks is None else LEADS * (-(-samples // blocks.hop) + 2) * blocks.hop * 3 * blocks.made
    narrow = torch.bfloat16 if "bfloat16" in embedder.arithmetic else torch.float32
    stored = record.units.nbytes if isinstance(record, StoredEcg) else record.waveform.nbytes
    change_of_rate = 2 * products / matrix_flops(torch.float32)
    tower = encoder_flop(model, processor.n_samples) / matrix_flops(narrow)
    return {
        "read and check": copy_seconds([data / f"{path}{suffix}" for suffix in (".hea", ".dat")]),
        "encode": stored / copy_bandwidth() + change_of_rate + tower,
        "write": written_bytes / write_bandwidth(WORK),
    }


def copy_seconds(paths: Sequence[Path]) -> float:
    """Return the median seconds to copy files out of the page cache into one buffer, without opening them."""
    buffer = bytearray(max(path.stat().st_size for path in paths))
    files = [path.open("rb", buffering=0) for path in paths]
    times = []
    for _ in range(200):
        started = time.perf_counter()
        for file in files:
            file.seek(0)
            file.readinto(buffer)
        times.append(time.perf_counter() - started)
    for file in files:
        file.close()
    return float(np.median(times))


def copy_bandwidth() -> float:
    """Return the bytes per second that one core copies from memory to memory."""
    source = np.ones(1 << 26, np.uint8)
    target = np.empty_like(source)
    return source.nbytes / best_seconds(lambda: np.copyto(target, source))


def write_bandwidth(folder: Path) -> float:
    """Return the bytes per second of a durable write to the disk of a folder."""
    content = os.urandom(1 << 26)
    with tempfile.NamedTemporaryFile(dir=folder) as file:

        def write() -> None:
            file.seek(0)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

        return len(content) / best_seconds(write)


def matrix_flops(dtype: torch.dtype) -> float:
    """Return the operations per second of one core in a large matrix product."""
    torch.set_num_threads(1)
    a, b = (torch.randn(MATRIX, MATRIX).to(dtype) for _ in range(2))
    return 2 * MATRIX**3 / best_seconds(lambda: a @ b)


def encoder_flop(model: str | None, samples: int) -> float:
    """Return the operations that the model's ECG side needs for one record."""
    encoder = load_model(resolve_model(model)).ecg_encoder
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        encoder(torch.randn(1, LEADS, samples))
    return float(counter.get_total_flops())


def best_seconds(work: Callable[[], object]) -> float:
    """Return the shortest of a few runs."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def report_stages(rounds: Sequence[Round], floors: dict[str, float], workers: int) -> None:
    """Print a line for each stage, then the pipeline against the slowest of them and against their sum."""
    seconds = {stage: float(np.mean([one.seconds[stage] for one in rounds])) for stage in rounds[0].seconds}
    built = {name: float(np.mean([one.built[name] for one in rounds])) for name in rounds[0].built}
    print(f"{'stage':<26}{'records/s':>11}{'a core':>9}{'ms each':>9}{'floor ms':>10}{'of floor':>10}")
    writing = built["commit_s"] + built["assemble_s"]
    for stage, each, processes in (*((name, own, workers) for name, own in seconds.items()), ("write", writing, 1)):
        floor = floors.get(stage)
        known = f"{1000 * floor:10.3f}{floor / each:10.0%}" if floor is not None else ""
        print(f"{stage:<26}{processes / each:11,.0f}{1 / each:9,.0f}{1000 * each:9.3f}{known}")
    slowest = max(seconds, key=lambda stage: seconds[stage])
    alone = [one.built["pipeline"] * one.seconds[slowest] / workers for one in rounds]
    together = np.mean([one.built["pipeline"] * sum(one.seconds.values()) / workers for one in rounds])
    print(f"\n{'pipeline, steady':<26}{built['pipeline']:11,.0f}  {np.mean(alone):.1%} of `{slowest}` alone ", end="")
    print(f"on all cores ({min(alone):.1%} to {max(alone):.1%} in {len(rounds)} rounds)")
    print(f"{'':<26}{'':11}  {together:.1%} of all stages' work shared by {workers} cores")
    print(f"{'whole build':<26}{built['build']:11,.0f}  starting the processes and the finished index included\n")


def report_memory(memory: dict[int, dict[str, float]], workers: int) -> None:
    """Print the peak memory of builds of several sizes."""
    if memory:
        print(f"{'records':>10}{'build/s':>9}{'main MB':>9}{'a worker':>10}{'together':>10}   peak resident memory")
    for size, found in memory.items():
        main_mb, worker_mb = found["main_mb"], found["worker_mb"]
        together = main_mb + workers * worker_mb
        print(f"{size:10,}{found['build']:9,.0f}{main_mb:9,.0f}{worker_mb:10,.0f}{together:10,.0f}")


if __name__ == "__main__":
    main()
