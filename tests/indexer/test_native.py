"""The compiled search kernel equals plain sums, in each of its variants, and is never needed."""

import ctypes
import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.backends import native
from indexer.backends.native import NativeKernel, native_kernel

ROOT = Path(__file__).resolve().parents[2]
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (`cc`) is installed")
needs_kernel = pytest.mark.skipif(
    native_kernel() is None, reason="no search kernel: it was not compiled, or this processor has neither AVX2 nor F16C"
)


def variants() -> list[NativeKernel]:
    """Every variant that this processor runs: the best one, and those of lesser processors."""
    library = ctypes.CDLL(str(native._LIBRARY))
    return [NativeKernel(library, level) for level in range(1, library.scan_kernel_level() + 1)]


@needs_kernel
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(0, 40),
    dim=st.sampled_from([1, 2, 7, 31, 32, 33, 63, 64, 65, 100, 127, 128, 256, 257, 700]),
)
@settings(max_examples=150, deadline=None)
def test_sums_are_those_of_the_plain_product(seed: int, rows: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    halves = (rng.standard_normal((rows, dim)) * 10.0 ** rng.integers(-5, 2, (rows, 1))).astype(np.float16)
    query = rng.standard_normal(dim).astype(np.float32)
    exact = halves.astype(np.float64) @ query.astype(np.float64)
    margin = np.abs(halves.astype(np.float64)) @ np.abs(query) * dim * np.finfo(np.float32).eps
    codes = rng.integers(-127, 128, (rows, dim)).astype(np.int8)
    codes[::3] = 127  # the largest sums there are
    steps = np.where(rng.random() < 0.3, 127, rng.integers(-127, 128, dim)).astype(np.int8)
    for kernel in variants():
        assert (np.abs(kernel.products(halves, query) - exact) <= margin).all()
        found = kernel.products(codes, steps)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, (codes.astype(np.int64) @ steps.astype(np.int64)).astype(np.float32))


@needs_kernel
def test_every_half_is_read_exactly() -> None:
    halves = np.arange(65536, dtype=np.uint32).astype(np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    wide = np.zeros((len(halves), 64), np.float16)  # in the loop and behind its end
    wide[:, 5] = halves
    for kernel in variants():
        for rows, place in ((halves[:, None], 0), (wide, 5)):
            query = np.zeros(rows.shape[1], np.float32)
            query[place] = 1
            np.testing.assert_array_equal(kernel.products(rows, query), halves.astype(np.float32))


@needs_kernel
def test_rows_that_do_not_lie_side_by_side_and_foreign_queries() -> None:
    kernel = native_kernel()
    assert kernel is not None
    rng = np.random.default_rng(3)
    halves = rng.standard_normal((20, 48)).astype(np.float16)
    query = rng.standard_normal(96).astype(np.float32)
    found = kernel.products(halves[::2, ::-1], query[::2])
    np.testing.assert_allclose(found, halves[::2, ::-1].astype(np.float32) @ query[::2], rtol=1e-4, atol=1e-4)
    for wrong in (query, query[:47], query[:48].astype(np.float64), np.zeros(48, np.int8)):
        with pytest.raises(ValueError, match="query"):
            kernel.products(halves, wrong)


def build_hook():
    pytest.importorskip("hatchling", reason="the build backend is missing: pip install 'fgclep[test]'")
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@needs_compiler
def test_the_installation_compiles_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "scan_kernel.so"
    assert build_hook().compile_kernel(ROOT / "indexer/backends/scan_kernel.c", library) is None
    assert [path.name for path in tmp_path.iterdir()] == ["scan_kernel.so"]
    monkeypatch.setattr(native, "_LIBRARY", library)
    assert (native_kernel.__wrapped__() is None) == (ctypes.CDLL(str(library)).scan_kernel_level() == 0)


@needs_kernel
@pytest.mark.parametrize("dtype", [np.float16, np.int8])
def test_a_kernel_that_sums_wrongly_is_not_used(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    right = NativeKernel.products

    def wrong(self: NativeKernel, rows: np.ndarray, query: np.ndarray) -> np.ndarray:
        found = right(self, rows, query)
        return found + np.float32(1) if rows.dtype == dtype and rows.shape[1] % 64 else found

    monkeypatch.setattr(NativeKernel, "products", wrong)
    assert native_kernel.__wrapped__() is None


@needs_compiler
def test_what_the_compiler_says_is_passed_on_and_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "broken.c"
    source.write_text("int f( {\n")
    assert "broken.c" in build_hook().compile_kernel(source, tmp_path / "out.so")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.c"]


def test_without_a_compiler_it_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    trouble = build_hook().compile_kernel(ROOT / "indexer/backends/scan_kernel.c", tmp_path / "out.so")
    assert trouble == "no C compiler is found (`cc`)"


@pytest.mark.parametrize("content", [None, b"", b"of another machine"])
def test_a_library_that_cannot_be_loaded_is_no_library(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "scan_kernel.so").write_bytes(content)
    monkeypatch.setattr(native, "_LIBRARY", tmp_path / "scan_kernel.so")
    assert native_kernel.__wrapped__() is None


def test_a_processor_that_has_neither_variant_gets_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def scan_kernel_level(self) -> int:
            return 0

    monkeypatch.setattr(native.ctypes, "CDLL", lambda path: Library())
    assert native_kernel.__wrapped__() is None
