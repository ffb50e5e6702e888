"""The compiled search kernel (scan_kernel.c), if this installation has it and this processor runs it."""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.backends.base import Similarities

_LIBRARY = Path(__file__).with_name("scan_kernel.so")
_ADDRESS, _COUNT = ctypes.c_void_p, ctypes.c_size_t


class NativeKernel:
    """Products of rows with one query at the speed at which the rows come from memory.

    Args:
        library: the loaded scan_kernel.
        level: what it said of this processor.
    """

    def __init__(self, library: ctypes.CDLL, level: int) -> None:
        self._scans = {"float16": library.scan_halves, "int8": library.scan_bytes}
        self._level = level
        for scan in self._scans.values():
            scan.argtypes = [ctypes.c_int, _ADDRESS, _COUNT, _COUNT, _ADDRESS, _ADDRESS]
            scan.restype = None

    def products(self, rows: NDArray[Any], query: NDArray[np.float32] | NDArray[np.int8]) -> Similarities:
        """Multiply rows with a query; no thread waits for another, as ctypes lets go of the interpreter.

        Args:
            rows: float16 or int8, shape (B, D).
            query: shape (D,), float32 for halves, int8 for bytes.

        Returns:
            float32, shape (B,): float32 sums of halves; exact sums of bytes, rounded to float32.
        """
        scan = self._scans[rows.dtype.name]
        if query.shape != rows.shape[1:] or query.dtype != (np.int8 if rows.dtype == np.int8 else np.float32):
            raise ValueError(f"{query.dtype} query {query.shape} for {rows.dtype} rows {rows.shape}")
        out = np.empty(len(rows), np.float32)
        laid_out = np.ascontiguousarray(rows), np.ascontiguousarray(query)
        scan(self._level, laid_out[0].ctypes.data, *rows.shape, laid_out[1].ctypes.data, out.ctypes.data)
        return out


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
    """Compare a kernel with plain sums, as a compiler or processor might be wrong: in its loop and behind its end."""
    rng = np.random.default_rng(0)
    halves, query = rng.uniform(0.01, 0.125, (67, 259)).astype(np.float16), rng.uniform(0, 1, 259).astype(np.float32)
    codes, steps = (rng.integers(-127, 128, shape).astype(np.int8) for shape in ((67, 259), 259))
    near = np.allclose(kernel.products(halves, query), halves.astype(np.float64) @ query, rtol=1e-5, atol=0)
    return near and np.array_equal(kernel.products(codes, steps), codes.astype(np.int64) @ steps)
