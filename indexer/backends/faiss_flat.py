"""Search with a flat FAISS index, memory-mapped from disk; masks become ID selectors."""

from functools import partial
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from fgclep.errors import CorruptionError
from indexer.backends.base import (
    SPARE,
    Mask,
    Rows,
    Similarities,
    Vectors,
    check_arguments,
    exact_top,
    rounding_margin,
    settled,
)
from indexer.backends.numpy_matmul import NumpyMatmul

_SORT_SHARE = 4  # above a quarter of the rows, FAISS's heap is slower than one product and a partition
_ROWS_AT = 8  # position of the number of rows: after the kind of index and the dimension
_KINDS = {np.dtype(np.float32): "Flat", np.dtype(np.float16): "SQfp16"}


def write_faiss_index(vectors: Vectors, path: Path) -> None:
    """Derive a flat inner-product index from vectors (N, D) and write it to `path`, in constant memory.

    FAISS would hold the whole index in memory to write it. A flat index's file is a header, two counts and the rows
    as they are, so the frame is taken from FAISS's own file of one row and the rows are streamed into it. A test
    compares the bytes with FAISS's; a build searches the file before it is published.

    Raises:
        OSError: if it cannot be written, for instance for lack of space.
    """
    one_row = np.ascontiguousarray(vectors[:1])
    index = faiss.index_factory(vectors.shape[1], _KINDS[vectors.dtype], faiss.METRIC_INNER_PRODUCT)
    index.add(one_row.astype(np.float32))
    file = faiss.serialize_index(index).tobytes()
    size_at = len(file) - one_row.nbytes - 8
    size_of_row = int.from_bytes(file[size_at : size_at + 8], "little")
    with path.open("wb") as stream:
        stream.write(file[:_ROWS_AT] + len(vectors).to_bytes(8, "little") + file[_ROWS_AT + 8 : size_at])
        stream.write((size_of_row * len(vectors)).to_bytes(8, "little"))
        for start in range(0, len(vectors), 65_536):
            stream.write(vectors[start : start + 65_536].tobytes())


class FaissFlat:
    """Exact search by FAISS, re-ranked so that the answer equals every other backend's.

    Args:
        path: a file of `write_faiss_index`.
        vectors: the rows it was derived from, (N, D).

    Raises:
        CorruptionError: if the file cannot be read or does not fit the vectors.
    """

    name = "faiss"

    def __init__(self, path: Path, vectors: Vectors) -> None:
        hint = "Build the index again: `fgclep index build`."
        try:
            self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise CorruptionError(f"{path} is not a readable FAISS index: {error}", hint) from error
        if (self._index.ntotal, self._index.d) != vectors.shape:
            found = f"{self._index.ntotal} x {self._index.d}"
            raise CorruptionError(f"{path} holds {found} vectors; the embeddings are {vectors.shape}.", hint)
        self._vectors = vectors
        self._matmul = NumpyMatmul(vectors)

    def search(self, queries: NDArray[np.float32], k: int, mask: Mask | None = None) -> tuple[Similarities, Rows]:
        """Find the `k` most similar rows of every query; see `Backend.search`."""
        check_arguments(queries, k, mask, self._vectors.shape)
        allowed = len(self._vectors) if mask is None else int(np.count_nonzero(mask))
        width = min(k, allowed)
        if width == 0 or (width + SPARE) * _SORT_SHARE > len(self._vectors):
            return self._matmul.search(queries, k, mask)
        similarities = np.empty((len(queries), width), np.float32)
        rows = np.empty((len(queries), width), np.int64)
        parameters = None
        if mask is not None:
            bitmap = np.packbits(mask, bitorder="little")
            # FAISS's type stubs know only the C++ signatures, not the Python ones it adds.
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bitmap))  # type: ignore[call-arg, arg-type]
        for position, query in enumerate(queries):
            ask = partial(self._best, query, parameters)
            candidates = settled(ask, width, allowed, rounding_margin(query))
            similarities[position], rows[position] = exact_top(self._vectors, query, candidates, width)
        return similarities, rows

    def _best(
        self, query: NDArray[np.float32], parameters: faiss.SearchParameters | None, asked: int
    ) -> tuple[Similarities, Rows]:
        products, rows = self._index.search(query[None], asked, params=parameters)
        return products[0], rows[0]
