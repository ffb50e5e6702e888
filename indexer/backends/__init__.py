"""Exact vector search behind one small interface; every backend gives the same answer, ties included."""

from indexer.backends.base import Backend, self_test
from indexer.backends.numpy_matmul import NumpyMatmul

__all__ = ["Backend", "NumpyMatmul", "self_test"]
