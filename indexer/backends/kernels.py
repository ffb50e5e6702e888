"""Products of a block of rows with queries: halves and bytes as they are where that can be done, else widened by numpy.

Our compiled kernel multiplies halves, and bytes with a single query; numkong bytes with several queries, whose tiles
some processors have, and all of these where no kernel was compiled. It adds halves up as singles and bytes as integers
of 32 bits, on every processor by its documentation; that is checked on this one before it is used. Without either, rows
are widened to float32, in blocks that stay in the cache.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.backends.base import Rows, Similarities
from indexer.backends.native import NativeKernel

_HALF_BITS = np.int32(-0x70000001)  # all bits but 28 to 30, into which widening copies the sign
_HALF_SCALE = np.float32(2.0**112)  # a half's exponent counts from -15, a single's from -127

Kernel = Callable[[NDArray[Any], Rows | None, Similarities], None]
"""Writes the products of rows (N, D), or of those with some numbers, with the queries it was made for to float32."""


def compiled_kernel(native: NativeKernel, queries: NDArray[np.float32]) -> Kernel:
    """Multiply halves with queries (Q, D) by the compiled kernel."""
    return native.one(queries[0]) if len(queries) == 1 else native.many(queries)


def compiled_code_kernel(native: NativeKernel, query: NDArray[np.int8], factor: np.float32) -> Kernel:
    """Multiply codes with one query (D,) by the compiled kernel, and the products by `factor`."""
    products = native.one(query)

    def kernel(rows: NDArray[Any], which: Rows | None, out: Similarities) -> None:
        products(rows, which, out)
        np.multiply(out, factor, out=out)

    return kernel


def packed_kernel(queries: NDArray[np.float16] | NDArray[np.int8], factors: NDArray[np.float32]) -> Kernel:
    """Multiply rows with queries (Q, D) of their own type by numkong, and the products by `factors` (Q,)."""
    import numkong

    # Laid out for the processor's tiles once; bytes are multiplied with a single query a tenth faster as they are.
    packed = None if len(queries) == 1 else numkong.dots_pack(queries)

    def kernel(rows: NDArray[Any], which: Rows | None, out: Similarities) -> None:
        chosen = rows if which is None else rows[which]
        if packed is None:
            products = numkong.cdist(chosen, queries, "dot", out_dtype="float32")
        else:
            products = numkong.dots_packed(chosen, packed)
        np.multiply(np.asarray(products), factors, out=out, dtype=np.float32, casting="same_kind")

    return kernel


def widening_kernel(queries: NDArray[np.float32]) -> Kernel:
    """Multiply rows of any type with queries (Q, D) as float32; several call the library behind `matmul`."""

    def kernel(rows: NDArray[Any], which: Rows | None, out: Similarities) -> None:
        wide = _widened(rows if which is None else rows[which])
        if len(queries) == 1:
            # Not `matmul`: the library behind it would share this block among threads of its own.
            np.vecdot(wide, queries[0], out=out[:, 0])
        else:
            np.matmul(wide, queries.T, out=out)

    return kernel


@cache
def packs(dtype: str) -> bool:
    """Say whether numkong is installed and multiplies rows and queries of `dtype`, `float16` or `int8`, precisely."""
    try:
        import numkong  # noqa: F401
    except ImportError:
        return False
    rng = np.random.default_rng(0)
    # More rows, queries and dimensions than a tile of any processor has, and none of them a multiple of its size.
    rows, queries = _sample(rng, 131, dtype), _sample(rng, 67, dtype)
    exact = rows.astype(np.float64) @ queries.astype(np.float64).T
    for asked in (1, len(queries)):
        products = np.empty((len(rows), asked), np.float32)
        packed_kernel(queries[:asked], np.ones(asked, np.float32))(rows, None, products)
        if not np.allclose(products, exact[:, :asked], rtol=1e-6, atol=0):
            return False
    return True


def _sample(rng: np.random.Generator, rows: int, dtype: str) -> NDArray[Any]:
    """Draw rows of 259 on which a sum in a type too narrow shows: of one sign, or the largest codes there are."""
    if dtype == "float16":
        halves = rng.uniform(0.01, 0.125, (rows, 259))
        halves[::4] *= 2.0**-12  # too small for a half to keep all its bits
        return halves.astype(np.float16)
    codes = rng.integers(-127, 128, (rows, 259))
    codes[::2] = np.where(codes[::2, :1] < 0, -127, 127)
    return codes.astype(np.int8)


def _widened(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Return float32, float16 or int8 rows as float32.

    Halves are widened by shifting their bits to where a single has them: numpy's own conversion takes several times
    longer than the product. Infinity and NaN, which no index holds, would come out as numbers.
    """
    if rows.dtype != np.float16:
        return rows.astype(np.float32, copy=False)
    bits = rows.view(np.int16).astype(np.int32)
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, _HALF_BITS, out=bits)
    wide = bits.view(np.float32)
    return np.multiply(wide, _HALF_SCALE, out=wide)
