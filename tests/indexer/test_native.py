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


def multiply(
    kernel: NativeKernel, rows: np.ndarray, queries: np.ndarray, which: np.ndarray | None = None
) -> np.ndarray:
    """Products of rows (or some of them) with queries (Q, D) or one query (D,), none of which is left out."""
    products = kernel.one(queries) if queries.ndim == 1 else kernel.many(queries)
    out = np.full((len(rows if which is None else which), len(queries) if queries.ndim == 2 else 1), np.nan, np.float32)
    products(rows, which, out)
    return out[:, 0] if queries.ndim == 1 else out


@needs_kernel
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 40),
    dim=st.sampled_from([1, 2, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 256, 257, 700]),
    asked=st.sampled_from([1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 100]),
    some=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_sums_are_those_of_the_plain_product(seed: int, count: int, dim: int, asked: int, some: bool) -> None:
    rng = np.random.default_rng(seed)
    halves = (rng.standard_normal((count, dim)) * 10.0 ** rng.integers(-5, 2, (count, 1))).astype(np.float16)
    queries = rng.standard_normal((asked, dim)).astype(np.float32)
    codes = rng.integers(-127, 128, (count, dim)).astype(np.int8)
    codes[::3] = 127  # the largest sums there are
    steps = np.where(rng.random() < 0.3, 127, rng.integers(-127, 128, dim)).astype(np.int8)
    which = rng.integers(0, count, rng.integers(0, 30)) if some and count else None  # in any order, some twice
    wide, whole = halves.astype(np.float64), codes.astype(np.int64)
    if which is not None:
        wide, whole = wide[which], whole[which]
    exact = wide @ queries.T.astype(np.float64)
    margin = np.abs(wide) @ np.abs(queries.T) * dim * np.finfo(np.float32).eps
    for kernel in variants():
        assert (np.abs(multiply(kernel, halves, queries, which) - exact) <= margin).all()
        assert (np.abs(multiply(kernel, halves, queries[0], which) - exact[:, 0]) <= margin[:, 0]).all()
        found = multiply(kernel, codes, steps, which)
        np.testing.assert_array_equal(found, (whole @ steps.astype(np.int64)).astype(np.float32))


@needs_kernel
def test_every_half_is_read_exactly() -> None:
    halves = np.arange(65536, dtype=np.uint32).astype(np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    wide = np.zeros((len(halves), 70), np.float16)
    wide[:, 5] = wide[:, 68] = halves  # in the loop and behind its end
    for kernel in variants():
        for place in (5, 68):
            query = np.zeros(70, np.float32)
            query[place] = 1
            np.testing.assert_array_equal(multiply(kernel, wide, query), halves.astype(np.float32))
            several = multiply(kernel, wide, np.stack([query, 2 * query, -query]))
            np.testing.assert_array_equal(several, halves[:, None].astype(np.float32) * np.float32([1, 2, -1]))


@needs_kernel
def test_what_the_kernel_would_read_or_write_wrongly_is_refused() -> None:
    kernel = native_kernel()
    assert kernel is not None
    rows, query = np.zeros((20, 48), np.float16), np.zeros(48, np.float32)
    out, some = np.zeros((20, 1), np.float32), np.arange(20)
    kernel.one(query)(rows, some, out)
    for bad in (rows[:, :47], rows[:, ::-1], rows.astype(np.float32), rows[:19], np.zeros((20, 48), np.int8)):
        with pytest.raises(ValueError, match="do not go with"):
            kernel.one(query)(bad, None, out)
    for bad_out in (out[:19], np.zeros((20, 2), np.float32), np.zeros((20, 1)), np.zeros((40, 1), np.float32)[::2]):
        with pytest.raises(ValueError, match="do not go with"):
            kernel.one(query)(rows, None, bad_out)
    for numbers in (some + 1, some - 1):
        with pytest.raises(ValueError, match="are asked for of 20"):
            kernel.one(query)(rows, numbers, out)
    with pytest.raises(ValueError, match="do not go with"):
        kernel.one(query)(rows, some.astype(np.int32), out)
    with pytest.raises(ValueError, match="do not go with"):
        kernel.many(np.zeros((3, 48), np.float32))(rows, None, out)


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
@pytest.mark.parametrize("which", ["one", "many"])
def test_a_kernel_that_sums_wrongly_is_not_used(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = getattr(NativeKernel, which)

    def wrong(self: NativeKernel, queries: np.ndarray):
        def products(rows: np.ndarray, chosen: np.ndarray | None, out: np.ndarray) -> None:
            right(self, queries)(rows, chosen, out)
            out[-1] *= np.float32(1.001)

        return products

    monkeypatch.setattr(NativeKernel, which, wrong)
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
