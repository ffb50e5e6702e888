"""Every backend equals brute force: same hits, same similarities, same order of ties, with and without masks."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgclep.errors import CorruptionError, NotSetUpError, UsageError
from indexer.backends import Backend, NumpyMatmul, self_test
from indexer.backends.base import brute_force
from indexer.backends.faiss_gpu import FaissGpu
from indexer.backends.int8_codes import Codes, write_codes
from indexer.backends.kernels import packs
from indexer.backends.scan import Scan, in_threads, lower_edge
from indexer.backends.torch_matmul import TorchMatmul

faiss_flat = pytest.importorskip("indexer.backends.faiss_flat", reason="faiss is not installed")


def unit_rows(rng: np.random.Generator, rows: int, dim: int, dtype: str, copies: int) -> np.ndarray:
    """Random unit vectors of which `copies` are equal to another row."""
    vectors = rng.standard_normal((rows, dim))
    vectors[rng.integers(0, rows, copies)] = vectors[rng.integers(0, rows, copies)]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(dtype)


def coded(vectors: np.ndarray, folder: Path) -> NumpyMatmul:
    write_codes(vectors, folder / "codes.npy", folder / "scales.npy")
    codes = Codes(np.load(folder / "codes.npy"), np.load(folder / "scales.npy"))
    return NumpyMatmul(vectors, codes)


KERNELS = ["compiled", "numkong", "numpy"]
T = TypeVar("T")


def made_with(kernels: str, make: Callable[..., T], *arguments: object) -> T:
    """Make a backend or scan with all kernels, as where none was compiled, or as where numkong is missing too."""
    with ExitStack() as patches:
        if kernels != "compiled":
            patches.enter_context(patch("indexer.backends.scan.native_kernel", lambda: None))
        if kernels == "numpy":
            patches.enter_context(patch("indexer.backends.scan.packs", lambda dtype: False))
        return make(*arguments)


@contextmanager
def fake_gpu() -> Iterator[None]:
    """FAISS's GPU classes with the habits of the real ones: selectors are ignored, k ends at 2048."""
    import faiss

    class Flat:
        def __init__(self, resources: object, dim: int) -> None:
            self.index = faiss.IndexFlatIP(dim)
            self.add = self.index.add

        def search(self, queries: np.ndarray, k: int, params: object = None) -> tuple[np.ndarray, np.ndarray]:
            if k > 2048:
                raise RuntimeError("GPU index only supports min/max-K selection up to 2048")
            return self.index.search(queries, k)

    names = {"StandardGpuResources": object, "GpuIndexFlatIP": Flat, "get_num_gpus": lambda: 1}
    with patch.multiple(faiss, create=True, **names):
        yield


def backends(vectors: np.ndarray, folder: Path) -> list[Backend]:
    path = folder / "index.faiss"
    faiss_flat.write_faiss_index(vectors, path)
    with fake_gpu():
        gpu = FaissGpu(vectors)
    return [
        *(made_with(kernels, NumpyMatmul, vectors) for kernels in KERNELS),
        *(made_with(kernels, coded, vectors, folder) for kernels in KERNELS),
        faiss_flat.FaissFlat(path, vectors),
        TorchMatmul(vectors, "cpu"),
        gpu,
    ]


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 400),
    dim=st.integers(1, 40),
    k=st.integers(1, 450),
    share=st.sampled_from([None, 0.0, 0.02, 0.5, 1.0]),
    dtype=st.sampled_from(["float32", "float16"]),
    copies=st.sampled_from([0, 5, 300]),
)
@settings(max_examples=150, deadline=None)
def test_equals_brute_force(
    seed: int, rows: int, dim: int, k: int, share: float | None, dtype: str, copies: int, tmp_path_factory
) -> None:
    rng = np.random.default_rng(seed)
    vectors = unit_rows(rng, rows, dim, dtype, copies)
    # Rows as queries give exact ties among copies; scaled ones show that queries need not have length 1.
    queries = np.concatenate([vectors[:2].astype(np.float32), 3 * rng.standard_normal((2, dim))]).astype(np.float32)
    mask = None if share is None else rng.random(rows) < share
    similarities, found = brute_force(vectors, queries, k, mask)
    for backend in backends(vectors, tmp_path_factory.mktemp("faiss")):
        answer = backend.search(queries, k, mask)
        assert answer[0].dtype == np.float32 and answer[1].dtype == np.int64
        np.testing.assert_array_equal(answer[1], found)
        np.testing.assert_array_equal(answer[0], similarities)


def test_brute_force_equals_sorting_all_products() -> None:
    vectors = unit_rows(np.random.default_rng(3), 200, 16, "float32", 0)
    products = vectors.astype(np.float64) @ vectors[7].astype(np.float64)
    similarities, rows = brute_force(vectors, vectors[7:8], 10)
    assert rows[0].tolist() == np.argsort(-products, kind="stable")[:10].tolist()
    assert rows[0, 0] == 7
    np.testing.assert_allclose(similarities[0], np.sort(products)[::-1][:10], atol=1e-6)


def test_thousands_of_copies_tie_by_row(tmp_path: Path) -> None:
    """More equal rows than FAISS is asked for at first: the lowest rows must still win."""
    vectors = np.zeros((3000, 4), np.float32)
    vectors[:, 0] = 1
    vectors[:100, 0], vectors[:100, 1] = 0, 1
    for backend in backends(vectors, tmp_path):
        rows = backend.search(np.array([[1, 0, 0, 0]], np.float32), 5)[1]
        assert rows.tolist() == [[100, 101, 102, 103, 104]]


def test_rows_closer_than_float32_can_tell_are_ranked_exactly(tmp_path: Path) -> None:
    """The products of these rows differ by less than a float32 sum's rounding error."""
    rng = np.random.default_rng(4)
    vectors = rng.standard_normal(256) + 1e-7 * rng.standard_normal((3000, 256))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    queries = rng.standard_normal((5, 256)).astype(np.float32)
    expected = brute_force(vectors, queries, 10)
    for backend in backends(vectors, tmp_path):
        np.testing.assert_array_equal(backend.search(queries, 10)[1], expected[1])


def test_a_batch_answers_like_single_queries(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    vectors = unit_rows(rng, 3000, 32, "float32", 100)
    queries = rng.standard_normal((40, 32)).astype(np.float32)
    for backend in backends(vectors, tmp_path):
        together = backend.search(queries, 7)
        for position, query in enumerate(queries):
            alone = backend.search(query[None], 7)
            np.testing.assert_array_equal(together[1][position], alone[1][0])
            np.testing.assert_array_equal(together[0][position], alone[0][0])


@pytest.mark.parametrize(
    ("query", "k", "mask", "message"),
    [
        (np.zeros((1, 3), np.float32), 1, None, r"\(number of queries, 4\)"),
        (np.zeros(4, np.float32), 1, None, "shape"),
        (np.full((1, 4), np.nan, np.float32), 1, None, "NaN"),
        (np.zeros((1, 4), np.float32), 0, None, "at least 1"),
        (np.zeros((1, 4), np.float32), 1, np.ones(9, bool), r"bool \(10,\)"),
        (np.zeros((1, 4), np.float32), 1, np.ones(10, np.uint8), "uint8"),
    ],
)
def test_refuses_what_does_not_fit(query, k, mask, message, tmp_path: Path) -> None:
    vectors = unit_rows(np.random.default_rng(0), 10, 4, "float32", 0)
    for backend in backends(vectors, tmp_path):
        with pytest.raises(UsageError, match=message):
            backend.search(query, k, mask)


def test_self_test_catches_a_backend_that_ignores_masks() -> None:
    vectors = unit_rows(np.random.default_rng(0), 3000, 8, "float32", 0)

    class Deaf(NumpyMatmul):
        def search(self, queries, k, mask=None):
            return super().search(queries, k)

    self_test(NumpyMatmul(vectors), vectors)
    with pytest.raises(CorruptionError, match="disagrees with brute force"):
        self_test(Deaf(vectors), vectors, sample=100)


def test_faiss_file_of_other_vectors_or_garbage_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = unit_rows(rng, 50, 8, "float32", 0)
    path = tmp_path / "index.faiss"
    faiss_flat.write_faiss_index(vectors, path)
    with pytest.raises(CorruptionError, match="50 x 8"):
        faiss_flat.FaissFlat(path, vectors[:49])
    path.write_bytes(b"garbage" * 10)
    with pytest.raises(CorruptionError, match=r"index\.faiss is not a readable"):
        faiss_flat.FaissFlat(path, vectors)


@pytest.mark.parametrize(("dtype", "kind"), [("float32", "Flat"), ("float16", "SQfp16")])
@pytest.mark.parametrize("rows", [1, 7, 70_000])
def test_the_streamed_faiss_file_equals_faiss_own(dtype: str, kind: str, rows: int, tmp_path: Path) -> None:
    import faiss

    vectors = unit_rows(np.random.default_rng(0), rows, 8, dtype, 0)
    index = faiss.index_factory(8, kind, faiss.METRIC_INNER_PRODUCT)
    index.add(vectors.astype(np.float32))
    faiss.write_index(index, str(tmp_path / "own"))
    faiss_flat.write_faiss_index(vectors, tmp_path / "streamed")
    assert (tmp_path / "streamed").read_bytes() == (tmp_path / "own").read_bytes()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("share", [None, 0.01, 0.7])
def test_rows_for_several_threads_are_all_searched(
    dtype: str, share: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Enough rows for two threads and several blocks, the best of them at every border."""
    monkeypatch.setattr("indexer.backends.scan._ROWS", 16_384)
    rng = np.random.default_rng(1)
    rows = 70_000
    vectors = unit_rows(rng, rows, 8, dtype, 1000)
    mask = None if share is None else rng.random(rows) < share
    queries = vectors[[0, 16_383, 16_384, 34_999, 35_000, 69_999]].astype(np.float32)
    expected = brute_force(vectors, queries, 40, mask)
    plain = made_with("numpy", coded, vectors, tmp_path), made_with("numpy", NumpyMatmul, vectors)
    for backend in (NumpyMatmul(vectors), coded(vectors, tmp_path), *plain):
        for found in (backend.search(queries, 40, mask), [backend.search(query[None], 40, mask) for query in queries]):
            alone = isinstance(found, list)
            np.testing.assert_array_equal(np.concatenate([f[1] for f in found]) if alone else found[1], expected[1])
            np.testing.assert_array_equal(np.concatenate([f[0] for f in found]) if alone else found[0], expected[0])


@pytest.mark.parametrize("make", [NumpyMatmul, coded])
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("share", [None, 0.01, 0.7])
def test_batches_of_queries_of_any_length(
    make: Callable[..., NumpyMatmul], kernels: str, share: float | None, tmp_path: Path
) -> None:
    """More queries than share a pass, among many equal rows, with a factor for each: tiny, huge and zero ones."""
    rng = np.random.default_rng(6)
    vectors = unit_rows(rng, 5000, 67, "float16", 4000)
    mask = None if share is None else rng.random(5000) < share
    queries = np.concatenate([vectors[:20].astype(np.float32), rng.standard_normal((50, 67), np.float32)])
    queries *= np.float32(10) ** rng.integers(-9, 10, (70, 1))
    queries[33] = 0
    arguments = (vectors,) if make is NumpyMatmul else (vectors, tmp_path)
    backend = made_with(kernels, make, *arguments)
    expected = brute_force(vectors, queries, 25, mask)
    found = backend.search(queries, 25, mask)
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_array_equal(found[0], expected[0])


@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(["float32", "float16"]),
    codes=st.booleans(),
    kernels=st.sampled_from(KERNELS),
    number=st.sampled_from([1, 5, 40]),
)
@settings(max_examples=150, deadline=None)
def test_products_are_as_near_as_promised(
    seed: int, dtype: str, codes: bool, kernels: str, number: int, tmp_path_factory
) -> None:
    rng = np.random.default_rng(seed)
    vectors = unit_rows(rng, 50, 12, dtype, 0)
    vectors[:, 3] = 0  # a dimension that says nothing
    queries = (10 ** rng.uniform(-2, 2, (number, 1)) * rng.standard_normal((number, 12))).astype(np.float32)
    lengths = np.linalg.norm(queries, axis=1)
    useful = 0.001 * lengths
    matrix = vectors
    if codes:
        folder = tmp_path_factory.mktemp("codes")
        write_codes(vectors, folder / "codes.npy", folder / "scales.npy")
        matrix = Codes(np.load(folder / "codes.npy"), np.load(folder / "scales.npy"))
        assert matrix.values.dtype == np.int8 and matrix.values.min() >= -127
        useful = np.abs(queries * matrix.scales).sum(axis=1) + 0.02 * lengths  # 1 of 127 steps in rows and queries
    scan = made_with(kernels, Scan, matrix)
    prepared = scan.prepare(queries)
    products = np.empty((50, number), np.float32)
    scan.multiply(prepared, 0, 50, products)
    assert prepared.errors.dtype == np.float32
    assert (np.abs(products - vectors.astype(np.float64) @ queries.T.astype(np.float64)) <= prepared.errors).all()
    assert (prepared.errors < useful).all()


@given(
    seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 500), k=st.integers(1, 520), levels=st.sampled_from([2, 1000])
)
@settings(max_examples=100, deadline=None)
def test_the_lower_edge_is_below_the_kth_best_and_not_idle(seed: int, rows: int, k: int, levels: int) -> None:
    products = np.random.default_rng(seed).integers(0, levels, (3, rows)).astype(np.float32).T
    edge = lower_edge(products, k)
    if rows < k:
        assert np.isneginf(edge).all()
        return
    kth = np.sort(products, axis=0)[-k]
    assert (edge <= kth).all() and (edge >= products.min(axis=0)).all()
    if k == rows or rows < 2 * k:
        assert (edge == kth).all()


@pytest.mark.parametrize("rows", [0, 1, 65_535, 65_536, 300_001])
def test_stretches_cover_the_rows_once(rows: int) -> None:
    covered = np.zeros(rows, np.int64)

    def count(start: int, stop: int) -> int:
        covered[start:stop] += 1
        return stop - start

    assert sum(in_threads(count, rows)) == rows
    assert (covered == 1).all()


def test_an_error_in_any_thread_is_raised() -> None:
    def fail(start: int, stop: int) -> None:
        if stop == 200_000:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        in_threads(fail, 200_000)


@pytest.mark.parametrize("k", [2030, 2048, 2049, 5000])
@pytest.mark.parametrize("share", [None, 0.9, 0.01])
def test_a_gpu_index_answers_beyond_its_limit_and_never_what_is_masked(k: int, share: float | None) -> None:
    rng = np.random.default_rng(2)
    vectors = unit_rows(rng, 6000, 8, "float32", 500)
    mask = None if share is None else rng.random(6000) < share
    if mask is not None:  # what resembles the first query most is masked out: more than FAISS was asked for
        mask[np.argsort(-(vectors @ vectors[0]))[:1500]] = False
    queries = vectors[:3]
    expected = brute_force(vectors, queries, k, mask)
    with fake_gpu():
        backend = FaissGpu(vectors)
    found = backend.search(queries, k, mask)
    assert mask is None or mask[found[1]].all()
    np.testing.assert_array_equal(found[1], expected[1])
    few = backend.search(queries, 5, mask)
    np.testing.assert_array_equal(few[1], expected[1][:, :5])


def test_without_a_gpu_the_gpu_backends_say_what_is_missing() -> None:
    import torch

    vectors = unit_rows(np.random.default_rng(0), 10, 4, "float32", 0)
    with patch.object(torch.cuda, "is_available", lambda: False), pytest.raises(NotSetUpError, match="torch finds no"):
        TorchMatmul(vectors)
    with fake_gpu(), patch("faiss.get_num_gpus", lambda: 0), pytest.raises(NotSetUpError, match="faiss finds no GPU"):
        FaissGpu(vectors)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_an_imprecise_kernel_is_not_used(dtype: str) -> None:
    """numkong may be used only where its sums are those of float32, and its sums of bytes do not overflow."""
    assert packs.__wrapped__(dtype)

    def sloppy(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
        if dtype == "float16":
            return rows.astype(np.float32) @ queries.T.astype(np.float32) * np.float32(1 + 2**-11)
        return rows.astype(np.int16) @ queries.T.astype(np.int16)

    with patch.multiple("numkong", dots_pack=lambda queries: queries, dots_packed=sloppy):
        assert not packs.__wrapped__(dtype)


def test_without_numkong_rows_are_widened() -> None:
    with patch.dict("sys.modules", numkong=None):
        assert not packs.__wrapped__("float16")
