"""Vectors as bytes: a quarter to read per search, with a bound on the error that keeps every answer exact.

One scale per dimension, so the scales go into the query and the bytes are multiplied as they are. Rounding moves a
component by at most half its scale; a product with a query is therefore wrong by at most half the sum of scale times
the query's absolute component. What a search proposes within that bound is ranked by the exact vectors.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.backends.base import Vectors

_BLOCK_ROWS = 65_536
_LARGEST = 127


@dataclass(frozen=True)
class Codes:
    """Rounded vectors.

    Attributes:
        values: int8, shape (N, D); the vectors are about values * scales.
        scales: float32, shape (D,), positive.
    """

    values: NDArray[np.int8]
    scales: NDArray[np.float32]

    def bounds(self, queries: NDArray[np.float32]) -> NDArray[np.float64]:
        """Bound the difference between a row's products with `queries` (Q, D) and its codes' products, rounding apart.

        Returns:
            float64, shape (Q,).
        """
        steps: NDArray[np.float64] = np.abs(queries * self.scales).sum(axis=1, dtype=np.float64)
        return steps / 2


def write_codes(vectors: Vectors, codes: Path, scales: Path) -> None:
    """Round vectors (N, D) to bytes and write both arrays as `.npy`, in constant memory.

    Raises:
        OSError: if they cannot be written.
    """
    largest = np.zeros(vectors.shape[1], np.float32)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = np.asarray(vectors[start : start + _BLOCK_ROWS], np.float32)
        np.maximum(largest, np.abs(block).max(axis=0), out=largest)
    # A step of the next larger float32, so that rounding of the scale itself pushes no component beyond the last code.
    steps = np.nextafter(np.where(largest > 0, largest, 1) / np.float32(_LARGEST), np.float32(np.inf))
    np.save(scales, steps)
    header = {"descr": np.dtype(np.int8).str, "fortran_order": False, "shape": vectors.shape}
    with codes.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for start in range(0, len(vectors), _BLOCK_ROWS):
            stream.write(rounded(vectors[start : start + _BLOCK_ROWS], steps).tobytes())


def rounded(vectors: Vectors, scales: NDArray[np.float32]) -> NDArray[np.int8]:
    """Round rows (B, D) to the nearest codes of `scales` (D,); int8, shape (B, D)."""
    return np.rint(np.asarray(vectors, np.float64) / scales).astype(np.int8)
