"""The pass over an index's rows: products with one or many queries at the speed at which the rows come from memory.

A single query is limited by memory, not arithmetic, so every processor takes a stretch of the rows. Halves and bytes
are multiplied by simsimd where it is installed and precise; else they are widened in blocks that stay in the
processor's cache. Many queries share the widening and a matrix product.
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
from indexer.resources import usable_cores

_ROWS = 16_384  # multiplied at once where nothing is widened: each call costs as much as a few hundred rows
_WIDE_BYTES = 1 << 20  # of widened rows: they stay in the cache of a processor's core
_ROWS_PER_THREAD = 32_768  # fewer are multiplied before another thread has started
_HALF_BITS = np.int32(-0x70000001)  # all bits but 28 to 30, into which widening copies the sign
_HALF_SCALE = np.float32(2.0**112)  # a half's exponent counts from -15, a single's from -127
_BLAS_LIMITED = Lock()
_HALF_SUMS = ("sapphire", "sve_f16")  # processors on which simsimd would add halves up as halves

T = TypeVar("T")
Kernel = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float32]]
"""Rows (B, D) and one query (1, D) of the same type to products, float32 (B,)."""


@dataclass(frozen=True)
class Prepared:
    """Queries as `Scan.multiply` needs them.

    Attributes:
        values: shape (Q, D), float32; or one query of the rows' own type.
        factor: what the products of such a query are multiplied by.
        errors: float32, shape (Q,): how far a product may be from that of the exact vectors.
        block_rows: how many rows to multiply at once.
    """

    values: NDArray[np.float32] | NDArray[np.float16] | NDArray[np.int8]
    factor: np.float32
    errors: NDArray[np.float32]
    block_rows: int


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
        self._kernel = None if self._rows.dtype == np.float32 else precise_kernel(self._rows.dtype.name)

    def prepare(self, queries: NDArray[np.float32]) -> Prepared:
        """Bring queries (Q, D) into the form in which they are multiplied, and bound the error of their products."""
        errors = [rounding_margin(query) / 2 for query in queries]
        if self._codes is not None:
            errors = [error + self._codes.bound(query) for error, query in zip(errors, queries, strict=True)]
        values: NDArray[Any] = queries
        factor, block_rows = np.float32(1), _ROWS
        if self._kernel is not None and len(queries) == 1:
            values, factor, lost = self._rounded(queries)
            errors = [errors[0] + lost]
        elif self._codes is not None:
            values = queries * self._codes.scales
        elif self._rows.dtype == np.float16:
            values = queries * _HALF_SCALE
        if values.dtype != self._rows.dtype:
            block_rows = max(1, _WIDE_BYTES // (4 * self.shape[1]))
        return Prepared(values, factor, np.array(errors, np.float32), block_rows)

    def _rounded(self, query: NDArray[np.float32]) -> tuple[NDArray[np.float16] | NDArray[np.int8], np.float32, float]:
        """Round a query (1, D) to the rows' type; return it, its factor, and what that may change in a product."""
        scales = np.float32(1) if self._codes is None else self._codes.scales
        steps = query * scales
        largest = np.abs(steps).max(initial=0)
        factor = np.float32(largest / (1 if self._codes is None else 127)) if largest > 0 else np.float32(1)
        values: NDArray[np.float16] | NDArray[np.int8]
        if self._codes is None:
            values, length = (steps / factor).astype(np.float16), NORM_BOUND
        else:
            values = np.rint(steps / factor).astype(np.int8)
            length = NORM_BOUND + float(np.linalg.norm(self._codes.scales)) / 2  # of a row of rounded vectors
        lost = query - values.astype(np.float64) * factor / scales
        return values, factor, length * float(np.linalg.norm(lost))

    def multiply(
        self, prepared: Prepared, start: int, stop: int, out: Similarities, *, among: Rows | None = None
    ) -> None:
        """Multiply prepared queries with a stretch of the rows.

        Args:
            prepared: Q queries.
            start, stop: the stretch, B rows.
            out: float32, shape (Q, B); gets the products.
            among: the stretch is one of these row numbers; None means of all rows.
        """
        wide = np.empty((min(prepared.block_rows, stop - start), self.shape[1]), np.float32)
        for first in range(start, stop, prepared.block_rows):
            block = slice(first, min(first + prepared.block_rows, stop))
            rows = self._rows[block if among is None else among[block]]
            self._multiply_block(prepared, rows, out[:, first - start : block.stop - start], wide)

    def _multiply_block(
        self, prepared: Prepared, block: NDArray[Any], out: Similarities, wide: NDArray[np.float32]
    ) -> None:
        values = prepared.values
        if values.dtype != np.float32:
            assert self._kernel is not None
            np.multiply(self._kernel(block, values), prepared.factor, out=out[0])
        elif len(values) == 1:
            # Not `matmul`: the library behind it would share this block among threads of its own.
            np.vecdot(_widened(block, wide), values[0], out=out[0])
        else:
            np.matmul(values, _widened(block, wide).T, out=out)

    def all_products(self, prepared: Prepared) -> Similarities:
        """Multiply every row with one prepared query; float32, shape (N,)."""
        products = np.empty((1, self.shape[0]), np.float32)
        in_threads(lambda start, stop: self.multiply(prepared, start, stop, products[:, start:stop]), self.shape[0])
        alone: Similarities = products[0]
        return alone

    def products_of(self, prepared: Prepared, rows: Rows) -> Similarities:
        """Multiply some rows, by number, with one prepared query; float32, shape (len(rows),)."""
        products = np.empty((1, len(rows)), np.float32)
        self.multiply(prepared, 0, len(rows), products, among=rows)
        alone: Similarities = products[0]
        return alone


@cache
def precise_kernel(dtype: str) -> Kernel | None:
    """Return simsimd's product of rows with one query, or None where it is not installed or not precise.

    Args:
        dtype: `float16` or `int8`.
    """
    try:
        import simsimd
    except ImportError:
        return None
    for processor in _HALF_SUMS:
        simsimd.disable_capability(processor)

    def kernel(rows: NDArray[Any], query: NDArray[Any]) -> NDArray[np.float32]:
        products: NDArray[np.float32]
        products = np.asarray(simsimd.cdist(rows, query, "dot", out_dtype="f32"), np.float32).reshape(len(rows))
        return products

    sample = np.random.default_rng(0).uniform(0, 0.125, (8, 259))  # all of one sign, so that sums grow and show
    rows = (sample * (1 if dtype == "float16" else 1000)).astype(dtype)
    exact = rows.astype(np.float64) @ rows[0].astype(np.float64)
    return kernel if np.allclose(kernel(rows, rows[:1]), exact, rtol=1e-6, atol=0) else None


def _widened(
    rows: NDArray[np.float32] | NDArray[np.float16] | NDArray[np.int8], wide: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return rows as float32, in `wide` unless they are; halves come out 2^112 times too small.

    Halves are widened by shifting their bits to where a single has them: numpy's own conversion takes several times
    longer than the product. Infinity and NaN, which no index holds, would come out as numbers.
    """
    if rows.dtype == np.float32:
        return np.asarray(rows, np.float32)
    block = wide[: len(rows)]
    if rows.dtype == np.float16:
        bits = block.view(np.int32)
        np.copyto(bits, rows.view(np.int16))
        np.left_shift(bits, 13, out=bits)
        np.bitwise_and(bits, _HALF_BITS, out=bits)
    else:
        np.copyto(block, rows)
    return block


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
        products: float32, shape (Q, B).
        k: at least 1.

    Returns:
        float32, shape (Q,); minus infinity where there are fewer than `k` products.
    """
    queries, rows = products.shape
    if rows < k:
        return np.full(queries, -np.inf, np.float32)
    size = min(64, rows // k)
    groups = products[:, : rows - rows % size].reshape(queries, size, -1).max(axis=1)
    edge: Similarities = np.partition(groups, groups.shape[1] - k, axis=1)[:, groups.shape[1] - k]
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
