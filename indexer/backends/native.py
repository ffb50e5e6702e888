"""The compiled search kernel (scan_kernel.c), if this installation has it and this processor runs it."""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.backends.base import Rows, Similarities

Products = Callable[[NDArray[Any], Rows | None, Similarities], None]
"""Writes the products of rows (N, D) with queries, or of those with some numbers, to float32 (rows, Q)."""

_LIBRARY = Path(__file__).with_name("scan_kernel.so")
_ADDRESS, _COUNT, _LEVEL = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
_ROWS: list[Any] = [_LEVEL, _ADDRESS, _COUNT, _COUNT, _ADDRESS]  # level, rows, how many, dimensions, which of them
_LANES = 16  # queries are padded to multiples of
_GROUP = 6  # rows that are widened at once


class NativeKernel:
    """Products of rows with queries at the speed at which the rows come from memory.

    Args:
        library: the loaded scan_kernel.
        level: what it said of this processor.
    """

    def __init__(self, library: ctypes.CDLL, level: int) -> None:
        self._one = {"float16": library.scan_halves, "int8": library.scan_bytes}
        self._many = library.scan_halves_many
        self._level = level
        for scan in self._one.values():
            scan.argtypes, scan.restype = [*_ROWS, _ADDRESS, _ADDRESS], None
        self._many.argtypes, self._many.restype = [*_ROWS, _ADDRESS, _COUNT, _COUNT, _ADDRESS, _ADDRESS], None

    def one(self, query: NDArray[np.float32] | NDArray[np.int8]) -> Products:
        """Return what multiplies rows with one query (D,): float32 with halves, int8 with bytes.

        Sums of halves are float32; those of bytes are exact before they are rounded to float32. No thread waits for
        another, as ctypes lets go of the interpreter.
        """
        laid_out = np.ascontiguousarray(query)
        scan = self._one["int8" if query.dtype == np.int8 else "float16"]

        def products(rows: NDArray[Any], which: Rows | None, out: Similarities) -> None:
            self._check(rows, which, out, np.int8 if query.dtype == np.int8 else np.float16, (len(query), 1))
            scan(*self._place(rows, which), laid_out.ctypes.data, out.ctypes.data)

        return products

    def many(self, queries: NDArray[np.float32]) -> Products:
        """Return what multiplies rows of halves with queries (Q, D)."""
        asked, dim = queries.shape
        columns = np.zeros((dim, -(-asked // _LANES) * _LANES), np.float32)
        columns[:, :asked] = queries.T

        def products(rows: NDArray[Any], which: Rows | None, out: Similarities) -> None:
            self._check(rows, which, out, np.float16, (dim, asked))
            wide = np.empty((_GROUP, dim), np.float32)
            kept = (columns.ctypes.data, asked, columns.shape[1], wide.ctypes.data, out.ctypes.data)
            self._many(*self._place(rows, which), *kept)

        return products

    def _place(self, rows: NDArray[Any], which: Rows | None) -> tuple[int, int, int, int, int | None]:
        """Return the arguments that say where rows are."""
        count, numbers = (len(rows), None) if which is None else (len(which), which.ctypes.data)
        return self._level, rows.ctypes.data, count, rows.shape[1], numbers

    def _check(
        self, rows: NDArray[Any], which: Rows | None, out: Similarities, dtype: type, shape: tuple[int, int]
    ) -> None:
        """Refuse what the kernel, which knows addresses only, would read or write beyond."""
        dim, asked = shape
        arrays = [rows, out] if which is None else [rows, out, which]
        count = len(arrays[-1] if which is not None else rows)
        fits = rows.dtype == dtype and rows.shape[1:] == (dim,) and out.dtype == np.float32
        fits = fits and out.shape == (count, asked) and (which is None or which.dtype == np.int64)
        if not fits or not all(array.flags.c_contiguous for array in arrays):
            raise ValueError(f"{rows.dtype} rows {rows.shape} do not go with {dtype} {shape} and products {out.shape}")
        if which is not None and count and not (which.min() >= 0 and which.max() < len(rows)):
            raise ValueError(f"rows {which.min()} to {which.max()} are asked for of {len(rows)}")


@cache
def native_kernel() -> NativeKernel | None:
    """Return the kernel; None where there is none, or one of another machine, or one that sums wrongly."""
    try:
        library = ctypes.CDLL(str(_LIBRARY))
        level = library.scan_kernel_level()
        kernel = NativeKernel(library, level) if level else None
    except (OSError, AttributeError):
        return None
    return kernel if kernel is not None and _is_precise(kernel) else None


def _is_precise(kernel: NativeKernel) -> bool:
    """Compare a kernel with plain sums, in its loops and behind their ends: a compiler or processor might be wrong."""
    rng = np.random.default_rng(0)
    halves = rng.uniform(0.01, 0.125, (67, 259)).astype(np.float16)
    queries = rng.uniform(0, 1, (83, 259)).astype(np.float32)
    codes, steps = (rng.integers(-127, 128, shape).astype(np.int8) for shape in ((67, 259), 259))
    exact = halves.astype(np.float64) @ queries.T.astype(np.float64)
    one, many, whole = (np.empty((67, asked), np.float32) for asked in (1, 83, 1))
    kernel.one(queries[0])(halves, None, one)
    kernel.many(queries)(halves, None, many)
    kernel.one(steps)(codes, None, whole)
    near = np.allclose(one, exact[:, :1], rtol=1e-5, atol=0) and np.allclose(many, exact, rtol=1e-5, atol=0)
    return near and np.array_equal(whole[:, 0], codes.astype(np.int64) @ steps)
