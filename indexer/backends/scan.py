"""The pass over an index's rows: products with one or many queries at the speed at which the rows come from memory.

A single query is limited by memory, not arithmetic, so every processor takes a stretch of the rows. Where
rows are multiplied as they are stored, queries may be rounded to their type, and the bound on the error says so.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from indexer.backends.base import NORM_BOUND, Rows, Similarities, Vectors, exact_top, rounding_margin
from indexer.backends.int8_codes import Codes
from indexer.backends.kernels import (
    Kernel,
    compiled_code_kernel,
    compiled_kernel,
    packed_kernel,
    packs,
    widening_kernel,
)
from indexer.backends.native import native_kernel
from indexer.resources import usable_cores

_ROWS = 65_536  # multiplied at once where nothing is copied: each call costs as much as a few hundred rows
_COPIED_BYTES = 1 << 20  # of rows that are widened or picked out: they stay in the cache of a processor's core
_ROWS_PER_THREAD = 32_768  # fewer are multiplied before another thread has started
_BLAS_LIMITED = Lock()

T = TypeVar("T")


@dataclass(frozen=True)
class Prepared:
    """Queries as `Scan.multiply` needs them.

    Attributes:
        kernel: multiplies rows with the queries.
        errors: float32, shape (Q,): how far a product may be from that of the exact vectors.
        block_rows: how many rows to multiply at once.
        picked_rows: how many rows to multiply at once where they are picked out by number.
        blas: the kernel calls the library behind `matmul`, which has threads of its own.
    """

    kernel: Kernel
    errors: NDArray[np.float32]
    block_rows: int
    picked_rows: int
    blas: bool


class Scan:
    """Products of queries with rows.

    Args:
        matrix: float32, float16 or codes, N rows of D.
    """

    def __init__(self, matrix: Vectors | Codes) -> None:
        self._codes = matrix if isinstance(matrix, Codes) else None
        # A memory map's own slices take microseconds each; those of the plain array over the same memory do not.
        self._rows: NDArray[Any] = np.asarray(matrix.values if isinstance(matrix, Codes) else matrix)
        self.shape: tuple[int, int] = (self._rows.shape[0], self._rows.shape[1])
        narrow = self._rows.dtype != np.float32
        self._native = native_kernel() if narrow and self._rows.flags.c_contiguous else None
        needed = narrow and (self._native is None or self._codes is not None)
        self._packs = needed and packs(self._rows.dtype.name)  # importing and checking it takes a start some ms

    def prepare(self, queries: NDArray[np.float32]) -> Prepared:
        """Bring queries (Q, D) into the form in which they are multiplied, and bound the error of their products."""
        errors = np.array([rounding_margin(query) / 2 for query in queries])
        if self._codes is not None:
            errors += self._codes.bounds(queries)
        if self._native is not None and self._codes is None:
            kernel = compiled_kernel(self._native, np.asarray(queries, np.float32))
            return Prepared(kernel, errors.astype(np.float32), _ROWS, _ROWS, blas=False)
        if self._native is not None and len(queries) == 1:
            values, factors, lost = self._rounded(queries)
            kernel = compiled_code_kernel(self._native, values[0].astype(np.int8, copy=False), factors[0])
            return Prepared(kernel, (errors + lost).astype(np.float32), _ROWS, _ROWS, blas=False)
        copied = max(1, _COPIED_BYTES // (4 * self.shape[1]))
        if self._packs:
            values, factors, lost = self._rounded(queries)
            kernel = packed_kernel(values, factors)
            return Prepared(kernel, (errors + lost).astype(np.float32), _ROWS, copied, blas=False)
        kernel = widening_kernel(queries if self._codes is None else queries * self._codes.scales)
        block_rows = _ROWS if self._rows.dtype == np.float32 else copied
        return Prepared(kernel, errors.astype(np.float32), block_rows, copied, blas=len(queries) > 1)

    def _rounded(
        self, queries: NDArray[np.float32]
    ) -> tuple[NDArray[np.float16] | NDArray[np.int8], NDArray[np.float32], NDArray[np.float64]]:
        """Round queries (Q, D) to the rows' type; return them, their factors (Q,), and what that may change (Q,)."""
        scales = np.float32(1) if self._codes is None else self._codes.scales
        steps = queries * scales
        factors = np.abs(steps).max(axis=1) / np.float32(1 if self._codes is None else 127)
        factors[factors == 0] = 1
        steps /= factors[:, None]
        values: NDArray[np.float16] | NDArray[np.int8]
        if self._codes is None:
            values, length = steps.astype(np.float16), NORM_BOUND
        else:
            values = np.rint(steps).astype(np.int8)
            length = NORM_BOUND + float(np.linalg.norm(self._codes.scales)) / 2  # of a row of rounded vectors
        lost = queries - values.astype(np.float64) * factors[:, None] / scales
        return values, factors, length * np.linalg.norm(lost, axis=1)

    def multiply(
        self, prepared: Prepared, start: int, stop: int, out: Similarities, *, among: Rows | None = None
    ) -> None:
        """Multiply prepared queries with a stretch of the rows.

        Args:
            prepared: Q queries.
            start, stop: the stretch, B rows.
            out: float32, shape (B, Q); gets the products.
            among: the stretch is one of these row numbers; None means of all rows.
        """
        step = prepared.block_rows if among is None else prepared.picked_rows
        for first in range(start, stop, step):
            block = slice(first, min(first + step, stop))
            products = out[first - start : block.stop - start]
            if among is None:
                prepared.kernel(self._rows[block], None, products)
            else:
                prepared.kernel(self._rows, among[block], products)

    def all_products(self, prepared: Prepared) -> Similarities:
        """Multiply every row with one prepared query; float32, shape (N,)."""
        products = np.empty((self.shape[0], 1), np.float32)
        in_threads(lambda start, stop: self.multiply(prepared, start, stop, products[start:stop]), self.shape[0])
        alone: Similarities = products[:, 0]
        return alone

    def products_of(self, prepared: Prepared, rows: Rows) -> Similarities:
        """Multiply some rows, by number, with one prepared query; float32, shape (len(rows),)."""
        products = np.empty((len(rows), 1), np.float32)
        self.multiply(prepared, 0, len(rows), products, among=rows)
        alone: Similarities = products[:, 0]
        return alone


def in_threads(work: Callable[[int, int], T], rows: int) -> list[T]:
    """Call `work(start, stop)` for stretches that cover `rows`, one for each processor if there are enough rows."""
    parts = max(1, min(usable_cores(), rows // _ROWS_PER_THREAD))
    edges = [rows * part // parts for part in range(parts + 1)]
    if parts == 1:
        return [work(0, rows)]
    with ThreadPoolExecutor(parts - 1) as pool:
        others = [pool.submit(work, *stretch) for stretch in pairwise(edges[1:])]
        return [work(0, edges[1]), *(other.result() for other in others)]


def lower_edge(products: Similarities, k: int) -> Similarities:
    """Bound the `k`-th largest product of each query from below, in one pass.

    The largest of each of many groups are looked at: `k` groups hold at least `k` products that are no smaller.

    Args:
        products: float32, shape (B, Q).
        k: at least 1.

    Returns:
        float32, shape (Q,); minus infinity where there are fewer than `k` products.
    """
    rows, queries = products.shape
    if rows < k:
        return np.full(queries, -np.inf, np.float32)
    size = min(64, rows // k)
    groups = products[: rows - rows % size].reshape(size, -1, queries).max(axis=0)
    edge: Similarities = np.partition(groups, len(groups) - k, axis=0)[len(groups) - k]
    return edge


class Ranker:
    """Ranks the rows that a scan proposes, exactly.

    Args:
        vectors: float32 or float16, shape (N, D), unit rows.
        codes: the same rows rounded to bytes, if those were scanned. Their products are too rough to rank by, and the
            rows within their error are many: those are multiplied again first, as they are stored.
    """

    def __init__(self, vectors: Vectors, codes: Codes | None) -> None:
        self._vectors = vectors
        self._stored = None if codes is None else Scan(vectors)

    def best(
        self, query: NDArray[np.float32], rows: Rows, products: Similarities, width: int, error: float
    ) -> tuple[Similarities, Rows]:
        """Return the best of the proposed rows, exactly as `Backend.search` does: ties go by row.

        Args:
            query: float32, shape (D,).
            rows: proposed rows, shape (C,), the best `width` among them.
            products: of the query with them, float32, shape (C,).
            width: hits wanted, at least 1 and at most C.
            error: how far a product may be from the exact one.

        Returns:
            similarities float32 and rows int64, shape (width,).
        """
        edge = _kth(products, width)
        if self._stored is not None:
            prepared = self._stored.prepare(query[None])
            of_stored = float(prepared.errors[0])
            certain = _kth(self._stored.products_of(prepared, rows[products >= edge]), width) - of_stored
            rows = rows[products >= certain - error]
            products, error = self._stored.products_of(prepared, rows), of_stored
            edge = _kth(products, width)
        return exact_top(self._vectors, query, rows[products >= edge - 2 * error], width)


def _kth(products: Similarities, k: int) -> float:
    """Return the `k`-th largest product."""
    return float(np.partition(products, len(products) - k)[len(products) - k])


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let every call of the library behind `matmul` stay in its thread, so that threads of ours can share the rows."""
    with _BLAS_LIMITED, _blas().limit(limits=1):  # of two at once, one would take the other's limit for what was set
        yield


@cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
