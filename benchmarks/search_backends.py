"""Time one exact query by each search backend, with and without a filter: `search_backends.py [ROWS] [DIM]`.

Random unit vectors in a memory-mapped file, as an index has them. Prints one line per backend, type and filter.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from indexer.backends import NumpyMatmul, self_test
from indexer.backends.faiss_flat import FaissFlat, write_faiss_index

_QUERIES = 15
_FILTERS = (None, 0.5, 0.05)


def write_vectors(path: Path, rows: int, dim: int, dtype: str) -> np.ndarray:
    """Write random unit rows and map them read-only."""
    vectors = np.lib.format.open_memmap(path, "w+", dtype, (rows, dim))
    rng = np.random.default_rng(0)
    for start in range(0, rows, 65_536):
        block = rng.standard_normal((min(65_536, rows - start), dim), np.float32)
        vectors[start : start + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    vectors.flush()
    return np.load(path, mmap_mode="r")


def main(rows: int = 200_000, dim: int = 256) -> None:
    """Measure and print."""
    rng = np.random.default_rng(1)
    queries = rng.standard_normal((_QUERIES, dim), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        for dtype in ("float32", "float16"):
            vectors = write_vectors(Path(folder, f"{dtype}.npy"), rows, dim, dtype)
            write_faiss_index(vectors, Path(folder, f"{dtype}.faiss"))
            for backend in (NumpyMatmul(vectors), FaissFlat(Path(folder, f"{dtype}.faiss"), vectors)):
                self_test(backend, vectors)
                for share in _FILTERS:
                    mask = None if share is None else rng.random(rows) < share
                    seconds = []
                    for query in queries:
                        start = time.perf_counter()
                        backend.search(query[None], 10, mask)
                        seconds.append(time.perf_counter() - start)
                    passing = "all rows" if share is None else f"{share:.0%} of the rows"
                    print(f"{backend.name:<6} {dtype}  {passing:<15} {1000 * np.median(seconds):7.1f} ms")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
