"""Search by matrix product in torch, on a GPU that holds the whole index; masks are applied to the products."""

from functools import partial
from typing import TYPE_CHECKING

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
    settled,
)

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK_ROWS = 262_144  # of halves, widened at once: 268 MB at 256 dimensions
_PRODUCTS_AT_ONCE = 1 << 28  # a gigabyte of float32


class TorchMatmul:
    """Exact search by torch, re-ranked so that the answer equals every other backend's.

    Products are float32 with float32 sums; vectors are kept as they are stored and halves widened block by block.

    Args:
        vectors: float32 or float16, shape (N, D), unit rows; copied to the device.
        device: where to search.

    Raises:
        NotSetUpError: if torch is not installed or does not see the device.
        RuntimeError: if the vectors do not fit.
    """

    name = "torch"

    def __init__(self, vectors: Vectors, device: str = "cuda") -> None:
        try:
            import torch
        except ImportError as error:
            raise NotSetUpError("The package torch is not installed.", "pip install fgclep") from error
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise NotSetUpError("torch finds no GPU that it can use.", "fgclep doctor tells what torch sees")
        self._vectors = vectors
        self._matrix = torch.from_numpy(np.array(vectors)).to(device)

    def search(self, queries: NDArray[np.float32], k: int, mask: Mask | None = None) -> tuple[Similarities, Rows]:
        """Find the `k` most similar rows of every query; see `Backend.search`."""
        import torch

        check_arguments(queries, k, mask, self._vectors.shape)
        allowed = len(self._vectors) if mask is None else int(np.count_nonzero(mask))
        width = min(k, allowed)
        similarities = np.empty((len(queries), width), np.float32)
        rows = np.empty((len(queries), width), np.int64)
        if width == 0:
            return similarities, rows
        forbidden = None if mask is None else torch.from_numpy(~mask).to(self._matrix.device)
        at_once = max(1, _PRODUCTS_AT_ONCE // len(self._vectors))
        for start in range(0, len(queries), at_once):
            chunk = queries[start : start + at_once]
            products = self._products(torch.from_numpy(np.array(chunk)).to(self._matrix.device))
            if forbidden is not None:
                products.masked_fill_(forbidden, -torch.inf)
            # One call for all queries; a query whose edge is not clear yet asks again by itself.
            together = _best(products, min(allowed, width + SPARE))
            for number, query in enumerate(chunk):
                ask = partial(_of_one, together, products, number)
                candidates = settled(ask, width, allowed, rounding_margin(query))
                similarities[start + number], rows[start + number] = exact_top(self._vectors, query, candidates, width)
        return similarities, rows

    def _products(self, queries: "Tensor") -> "Tensor":
        """Multiply queries (Q, D) with all rows; float32, shape (Q, N)."""
        import torch

        products = torch.empty((len(queries), len(self._matrix)), dtype=torch.float32, device=queries.device)
        for start in range(0, len(self._matrix), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            torch.matmul(queries, self._matrix[block].float().T, out=products[:, block])
        return products


def _of_one(
    together: tuple[Similarities, Rows], products: "Tensor", number: int, asked: int
) -> tuple[Similarities, Rows]:
    """Return the largest products of one query, from what all queries asked for together if that is enough."""
    if asked == together[0].shape[1]:
        return together[0][number], together[1][number]
    return _best(products[number], asked)


def _best(products: "Tensor", asked: int) -> tuple[Similarities, Rows]:
    """Return the largest products of the last axis, descending, and where they are."""
    values, places = products.topk(asked)
    return values.cpu().numpy(), places.cpu().numpy()
