"""Search with FAISS on a GPU, whose flat index knows no filters and gives no more than 2048 hits."""

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import NotSetUpError
from indexer.backends.base import (
    SPARE,
    Mask,
    Rows,
    Similarities,
    Vectors,
    check_arguments,
    exact_top,
    rounding_margin,
)
from indexer.backends.numpy_matmul import NumpyMatmul

_MOST = 2048  # hits that FAISS gives on a GPU
_BLOCK_ROWS = 65_536


class FaissGpu:
    """Exact search by FAISS on a GPU, re-ranked so that the answer equals every other backend's.

    FAISS ignores selectors on a GPU without a word, so none is given: it is asked for more hits than are wanted, and
    those that the mask forbids are dropped. Where 2048 are not enough, because of the mask or because more are
    wanted, numpy answers. Vectors are kept as float32: FAISS would round the queries of a float16 index too.

    Args:
        vectors: float32 or float16, shape (N, D), unit rows; copied to the GPU.

    Raises:
        NotSetUpError: if faiss is missing, built without GPUs, or finds none.
        RuntimeError: if the vectors do not fit.
    """

    name = "faiss-gpu"

    def __init__(self, vectors: Vectors) -> None:
        try:
            import faiss
        except ImportError as error:
            raise NotSetUpError("The package faiss is not installed.", "pip install 'fgclep[gpu]'") from error
        if not hasattr(faiss, "StandardGpuResources"):
            raise NotSetUpError(
                "The installed faiss knows no GPUs.", "pip uninstall faiss-cpu, then pip install 'fgclep[gpu]'"
            )
        if faiss.get_num_gpus() == 0:
            raise NotSetUpError("faiss finds no GPU that it can use.", "fgclep doctor tells what torch sees")
        self._vectors = vectors
        self._matmul = NumpyMatmul(vectors)
        self._resources = faiss.StandardGpuResources()  # must outlive the index
        self._index = faiss.GpuIndexFlatIP(self._resources, vectors.shape[1])
        for start in range(0, len(vectors), _BLOCK_ROWS):
            self._index.add(np.ascontiguousarray(vectors[start : start + _BLOCK_ROWS], np.float32))

    def search(self, queries: NDArray[np.float32], k: int, mask: Mask | None = None) -> tuple[Similarities, Rows]:
        """Find the `k` most similar rows of every query; see `Backend.search`."""
        check_arguments(queries, k, mask, self._vectors.shape)
        allowed = len(self._vectors) if mask is None else int(np.count_nonzero(mask))
        width = min(k, allowed)
        asked = self._asked(width, allowed)
        if asked is None or len(queries) == 0:
            return self._matmul.search(queries, k, mask)
        similarities = np.empty((len(queries), width), np.float32)
        rows = np.empty((len(queries), width), np.int64)
        products, found = self._index.search(np.ascontiguousarray(queries), asked)
        for place, query in enumerate(queries):
            candidates = self._candidates(products[place], found[place], width, rounding_margin(query), mask)
            if candidates is None:
                alone = self._matmul.search(query[None], k, mask)
                similarities[place], rows[place] = alone[0][0], alone[1][0]
            else:
                similarities[place], rows[place] = exact_top(self._vectors, query, candidates, width)
        return similarities, rows

    def _asked(self, width: int, allowed: int) -> int | None:
        """Return how many hits should hold `width` allowed ones, or None if FAISS gives no so many."""
        total = len(self._vectors)
        if width == 0:
            return None
        expected = (width + SPARE) * total // allowed
        asked = min(total, expected if allowed == total else 2 * expected)  # those allowed may be rarer at the top
        return asked if asked <= _MOST else None

    def _candidates(
        self, products: Similarities, rows: Rows, width: int, margin: float, mask: Mask | None
    ) -> Rows | None:
        """Return allowed rows that hold the best `width`, or None if the hits found may lack one."""
        last, complete = products[-1], len(rows) == len(self._vectors)
        if mask is not None:
            products, rows = products[mask[rows]], rows[mask[rows]]
        if len(products) < width:
            return None
        edge = products[width - 1] - margin
        return rows[products >= edge] if complete or last < edge else None
