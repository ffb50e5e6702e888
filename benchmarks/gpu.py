"""Encoding, search and a build on a GPU; where there is none it says so and measures nothing.

    python benchmarks/gpu.py [--rows 773268] [--dim 256] [--records 8192] [--batch 256]

Prints records/s of encoding for every preset (random weights, waveforms brought to the GPU and vectors back), then for
every GPU backend that passes its self-test one query, one query among 1 % of the rows and batches of 64 and 1,024,
then the seconds of making an index's vectors and search file for --rows records with the `small` preset, without
reading: `benchmarks/read_records.py` measures that, and it does not need a GPU.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import FgclepError
from indexer.backends import Backend, self_test
from indexer.backends.faiss_gpu import FaissGpu
from indexer.backends.torch_matmul import TorchMatmul

K = 10
SHARE = 0.01


def main() -> None:
    """Parse the arguments, measure and print."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=773_268)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--records", type=int, default=8192)
    parser.add_argument("--batch", type=int, default=256)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("No GPU was found (torch.cuda.is_available() is False): nothing was measured.")
        return
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    measure_encoding(arguments.records, arguments.batch)
    measure_search(arguments.rows, arguments.dim)
    measure_build(arguments.rows, arguments.batch)


def encoder(preset: str) -> tuple[Callable[[NDArray[np.float32]], NDArray[np.float32]], int]:
    """Return an untrained ECG encoder of a preset on the GPU, and how many samples it takes."""
    from fgclep.models.config import ECG_PRESETS, FGCLEPConfig
    from fgclep.models.dual_encoder import FGCLEPModel

    chosen = ECG_PRESETS[preset]
    samples = chosen["input"]["n_samples"]
    text = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 99}
    config = FGCLEPConfig(ecg=chosen["ecg"], pool=chosen["pool"], n_samples=samples, text=text, text_pool="mean")
    return FGCLEPModel(config).eval().to("cuda").encode_ecg, samples


def measure_encoding(records: int, batch: int) -> None:
    """Print records per second for every preset."""
    from fgclep.models.config import ECG_PRESETS

    for preset in ECG_PRESETS:
        encode, samples = encoder(preset)
        waveforms = np.random.default_rng(0).standard_normal((batch, 12, samples), np.float32)
        encode(waveforms)
        rounds = max(1, records // batch)
        seconds = timed(lambda encode=encode, waveforms=waveforms, n=rounds: [encode(waveforms) for _ in range(n)])
        print(f"encode {preset:14} {rounds * batch / seconds:12,.0f} records/s", flush=True)


def measure_search(rows: int, dim: int) -> None:
    """Print latency and throughput of every GPU backend."""
    rng = np.random.default_rng(0)
    vectors, queries = unit(rng, rows, dim), unit(rng, 1024, dim)
    mask = rng.random(rows) < SHARE
    makers: tuple[Callable[[], Backend], ...] = (
        lambda: TorchMatmul(vectors),
        lambda: TorchMatmul(vectors.astype(np.float16)),
        lambda: FaissGpu(vectors),
    )
    for name, make in zip(("torch fp32", "torch fp16", "faiss-gpu fp32"), makers, strict=True):
        try:
            backend = make()
            self_test(backend, vectors if "16" not in name else vectors.astype(np.float16))
        except (FgclepError, RuntimeError) as error:
            print(f"search {name:14} left out: {error}")
            continue
        one = [timed(lambda q=q, b=backend: b.search(q[None], K)) for q in queries[:64]]
        few = [timed(lambda q=q, b=backend: b.search(q[None], K, mask)) for q in queries[:64]]
        many = {n: timed(lambda n=n, b=backend: b.search(queries[:n], K)) / n for n in (64, 1024)}
        print(
            f"search {name:14} one {1000 * statistics.median(one):8.2f} ms  1 % filter "
            f"{1000 * statistics.median(few):8.2f} ms  "
            + "  ".join(f"of {n} {1000 * seconds:7.3f} ms" for n, seconds in many.items()),
            flush=True,
        )


def measure_build(rows: int, batch: int) -> None:
    """Print the seconds of encoding `rows` records and of writing their vectors and search file."""
    from indexer.backends.faiss_flat import write_faiss_index

    encode, samples = encoder("small")
    waveforms = np.random.default_rng(0).standard_normal((batch, 12, samples), np.float32)
    dim = encode(waveforms).shape[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (rows, dim))

        def fill() -> None:
            for start in range(0, rows, batch):
                vectors[start : start + batch] = encode(waveforms)[: rows - start]
            vectors.flush()

        encoding = timed(fill)
        writing = timed(lambda: write_faiss_index(vectors, folder / "index.faiss"))
    print(f"build of {rows:,}: encode and write vectors {encoding:.1f} s, search file {writing:.1f} s")


def timed(action: Callable[[], object]) -> float:
    """Return the seconds an action takes; everything measured here ends with a copy to the host."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def unit(rng: np.random.Generator, rows: int, dim: int) -> NDArray[np.float32]:
    """Draw random unit rows."""
    vectors = rng.standard_normal((rows, dim), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
