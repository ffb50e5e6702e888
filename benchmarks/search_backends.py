"""Exact search at full size: ours against plain numpy, FAISS as it comes and an approximate index, in one table.

    python benchmarks/search_backends.py [--rows 773268] [--dim 256] [--index NAME|PATH] [--seed 0]

With --index the rows are the index's own vectors, repeated with noise, and the queries are texts encoded by its model;
without, the rows are a mixture of Gaussians on the sphere and the queries lie near its centres, turned away from all
rows as texts are. Every method searches the same rows for the 10 best: one query at a time (median), one query among
1 % of the rows, and 64 queries at once. "x floor" is the time of a query over that of reading the method's bytes once,
by the fastest of three ways with as many threads, in turn with the queries (medians). Recall is against the exact
answer over the float32 rows. All files are memory-mapped and in the page cache.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.backends import NumpyMatmul, self_test
from indexer.backends.int8_codes import Codes, write_codes
from indexer.backends.scan import in_threads

K = 10
BATCH = 64
SINGLE = 32
SHARE = 0.01
FINDINGS = (
    "low QRS voltage", "inverted T waves", "atrial fibrillation", "left bundle branch block", "ST elevation in V2",
    "right bundle branch block", "first degree AV block", "sinus bradycardia", "left ventricular hypertrophy",
    "anterior myocardial infarction", "prolonged QT interval", "premature ventricular contractions",
    "paced rhythm", "left axis deviation", "normal ECG", "ischemic ST depression",
)  # fmt: skip
TEXTS = [f"{manner}{finding}" for manner in ("", "marked ", "probable ", "ECG with ") for finding in FINDINGS]

Floats = NDArray[np.float32]
Search = Callable[[Floats, NDArray[np.bool_] | None], NDArray[np.int64]]


@dataclass(frozen=True)
class Method:
    """A way to search: takes queries (Q, D) and a mask, gives rows (Q, K); `bytes` are what a query reads."""

    name: str
    search: Search
    array: NDArray[np.generic] | None
    bytes: int


def main() -> None:
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=773_268)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--index")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.index is None:
            queries = write_mixture(folder / "float32.npy", arguments.rows, arguments.dim, rng)
        else:
            queries = write_tiled(folder / "float32.npy", arguments.rows, arguments.index, rng)
        vectors = np.load(folder / "float32.npy", mmap_mode="r")
        mask = rng.random(len(vectors)) < SHARE
        truth = exact_rows(vectors, queries[:SINGLE])
        print(f"{len(vectors):,} rows of {vectors.shape[1]}, {int(mask.sum()):,} pass the filter", flush=True)
        head = ("method", "MB", "floor", "one", "x floor", "1 % filter", "faster", "of 64", "faster", "recall")
        print("{:<28}{:>7}{:>10}{:>11}{:>9}{:>12}{:>8}{:>11}{:>8}{:>8}".format(*head))
        for make in (*ours(folder), *faiss_defaults(vectors, rng)):
            print(measured(make(), queries, mask, truth), flush=True)


def exact_rows(vectors: Floats, queries: Floats) -> NDArray[np.int64]:
    """Return the rows of the K largest float64 products, (Q, K), in no order."""
    blocks = (vectors[start : start + 65_536].astype(np.float64) for start in range(0, len(vectors), 65_536))
    products = np.concatenate([block @ queries.T.astype(np.float64) for block in blocks])
    return np.argpartition(products, -K, axis=0)[-K:].T


def measured(method: Method, queries: Floats, mask: NDArray[np.bool_], truth: NDArray[np.int64]) -> str:
    """Time one method and return its line of the table; each query takes turns with reading the method's bytes."""
    ways = [] if method.array is None else readers(method.array)
    method.search(queries[:1], None)
    singles: list[float] = []
    reads: list[list[float]] = [[] for _ in ways]
    for query in queries[:SINGLE]:
        singles.append(timed(lambda query=query: method.search(query[None], None)))
        for times, way in zip(reads, ways, strict=True):
            times.append(timed(way))
    filtered = [timed(lambda query=query: method.search(query[None], mask)) for query in queries[:SINGLE]]
    batches = [timed(lambda: method.search(queries, None)) / len(queries) for _ in range(3)]
    found = method.search(queries[:SINGLE], None)
    recall = np.mean([len(np.intersect1d(*pair)) / K for pair in zip(found, truth, strict=True)])
    one, few, many = (1000 * statistics.median(times) for times in (singles, filtered, batches))
    floor = min((1000 * statistics.median(times) for times in reads), default=float("nan"))
    return (
        f"{method.name:<28}{method.bytes / 1e6:>7,.0f}{floor:>7.1f} ms{one:>8.1f} ms{one / floor:>9.2f}"
        f"{few:>9.2f} ms{one / few:>7.1f}x{many:>8.2f} ms{one / many:>7.1f}x{recall:>8.3f}"
    )


def readers(array: NDArray[np.generic]) -> list[Callable[[], object]]:
    """Return three ways to read an array once in as many threads as a search takes."""
    flat = np.asarray(array).reshape(-1).view(np.uint8)
    words = flat[: len(flat) // 8 * 8].view(np.int64)
    step = 1 << 15  # 256 KB: what is copied stays in the processor's cache

    def copy(start: int, stop: int) -> None:
        buffer = np.empty(step, np.int64)
        for first in range(start, stop, step):
            block = words[first : min(first + step, stop)]
            np.copyto(buffer[: len(block)], block)

    def add(start: int, stop: int) -> None:
        words[start:stop].sum()

    def look(start: int, stop: int) -> None:
        np.bitwise_or.reduce(words[start:stop])

    return [lambda way=way: in_threads(way, len(words)) for way in (copy, add, look)]


def timed(action: Callable[[], object]) -> float:
    """Return the seconds an action takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def ours(folder: Path) -> list[Callable[[], Method]]:
    """Return the ways of `fgclep index build --dtype`, after plain numpy."""
    vectors = np.load(folder / "float32.npy", mmap_mode="r")

    def plain() -> Method:
        def search(queries: Floats, mask: NDArray[np.bool_] | None) -> NDArray[np.int64]:
            allowed = None if mask is None else np.flatnonzero(mask)
            products = queries @ (vectors if allowed is None else vectors[allowed]).T
            best = np.argpartition(products, -K, axis=1)[:, -K:]
            rows = np.take_along_axis(best, np.argsort(-np.take_along_axis(products, best, 1), axis=1), 1)
            return rows if allowed is None else allowed[rows]

        return Method("numpy @ and argpartition", search, vectors, vectors.nbytes)

    def float32() -> Method:
        return backend("fgclep fp32", vectors, None)

    def float16() -> Method:
        return backend("fgclep fp16", halves(), None)

    def int8() -> Method:
        stored = halves()
        write_codes(stored, folder / "codes.npy", folder / "scales.npy")
        return backend(
            "fgclep int8, re-ranked", stored,
            Codes(np.load(folder / "codes.npy", mmap_mode="r"), np.load(folder / "scales.npy")),
        )  # fmt: skip

    def halves() -> NDArray[np.float16]:
        file = folder / "float16.npy"
        if not file.exists():
            np.save(file, vectors.astype(np.float16))
        return np.load(file, mmap_mode="r")

    def backend(name: str, stored: NDArray[np.float32] | NDArray[np.float16], codes: Codes | None) -> Method:
        engine = NumpyMatmul(stored, codes)
        self_test(engine, stored)
        read = stored if codes is None else codes.values
        return Method(name, lambda queries, mask: engine.search(queries, K, mask)[1], read, read.nbytes)

    return [plain, float32, float16, int8]


def faiss_defaults(vectors: Floats, rng: np.random.Generator) -> list[Callable[[], Method]]:
    """Return FAISS's flat indexes as they come and one approximate index; built when their turn comes."""

    def made(kind: str, name: str, probes: int | None = None) -> Callable[[], Method]:
        def make() -> Method:
            started = time.perf_counter()
            index = faiss.index_factory(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
            if not index.is_trained:
                sample = np.sort(rng.choice(len(vectors), min(len(vectors), 100_000), replace=False))
                index.train(np.asarray(vectors[sample]))
            for start in range(0, len(vectors), 65_536):
                index.add(np.asarray(vectors[start : start + 65_536]))
            print(f"{name}: built in {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
            width = {"Flat": 4, "SQfp16": 2}[kind.rpartition(",")[2]]
            share = 1.0 if probes is None else probes / index.nlist
            read = vectors if probes is None and width == 4 else None
            if probes is None and width == 2:
                read = np.asarray(vectors).reshape(-1)[: vectors.size // 2]  # as many bytes as the halves have
            return Method(name, searching(index, probes), read, int(vectors.size * width * share))

        return make

    return [
        made("Flat", "faiss IndexFlatIP"),
        made("SQfp16", "faiss SQ fp16"),
        made("IVF1024,Flat", "faiss IVF1024, 16 probes", 16),
    ]


def searching(index: faiss.Index, probes: int | None) -> Search:
    """Return a FAISS index as a search; the mask becomes a selector."""

    def search(queries: Floats, mask: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        selector = None if mask is None else faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        if probes is not None:
            chosen = {} if selector is None else {"sel": selector}
            return index.search(queries, K, params=faiss.SearchParametersIVF(nprobe=probes, **chosen))[1]
        parameters = None if selector is None else faiss.SearchParameters(sel=selector)
        return index.search(queries, K, params=parameters)[1]

    return search


def write_mixture(file: Path, rows: int, dim: int, rng: np.random.Generator) -> Floats:
    """Write unit rows around 500 centres that share a direction; return queries near centres, turned away from it."""
    common = unit(rng.standard_normal((1, dim), np.float32))
    centres = unit(unit(rng.standard_normal((500, dim), np.float32)) + 0.7 * common)

    def blocks() -> Iterator[Floats]:
        for start in range(0, rows, 65_536):
            count = min(65_536, rows - start)
            noise = rng.standard_normal((count, dim), np.float32) * np.float32(0.6 / dim**0.5)
            yield unit(centres[rng.integers(0, len(centres), count)] + noise)

    write_rows(file, (rows, dim), blocks())
    turned = centres[rng.choice(len(centres), BATCH, replace=False)] - 0.8 * common
    return unit(turned + rng.standard_normal((BATCH, dim), np.float32) * np.float32(0.3 / dim**0.5))


def write_tiled(file: Path, rows: int, name: str, rng: np.random.Generator) -> Floats:
    """Write an index's rows, repeated with noise until there are enough; return its model's vectors of `TEXTS`."""
    from cli.demo import find_index
    from fgclep.pretrained import load_model
    from indexer.open import matching_model, open_index

    index = open_index(find_index(name), backend="numpy")
    own = np.asarray(index.vectors, np.float32)
    dim = own.shape[1]

    def blocks() -> Iterator[Floats]:
        for start in range(0, rows, 65_536):
            block = own[np.arange(start, min(start + 65_536, rows)) % len(own)]
            noise = rng.standard_normal(block.shape, np.float32) * np.float32(0.2 / dim**0.5)
            yield unit(block + noise)

    write_rows(file, (rows, dim), blocks())
    return load_model(matching_model(index.manifest)).encode_text(TEXTS)


def write_rows(file: Path, shape: tuple[int, int], blocks: Iterable[Floats]) -> None:
    """Write blocks of rows as one `.npy` file."""
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
        for block in blocks:
            stream.write(block.tobytes())


def unit(rows: NDArray[np.floating]) -> Floats:
    """Scale rows to length 1."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


if __name__ == "__main__":
    main()
