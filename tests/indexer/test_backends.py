"""Every backend equals brute force: same hits, same similarities, same order of ties, with and without masks."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgclep.errors import CorruptionError, UsageError
from indexer.backends import Backend, NumpyMatmul, self_test
from indexer.backends.base import brute_force

faiss_flat = pytest.importorskip("indexer.backends.faiss_flat", reason="faiss is not installed")


def unit_rows(rng: np.random.Generator, rows: int, dim: int, dtype: str, copies: int) -> np.ndarray:
    """Random unit vectors of which `copies` are equal to another row."""
    vectors = rng.standard_normal((rows, dim))
    vectors[rng.integers(0, rows, copies)] = vectors[rng.integers(0, rows, copies)]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(dtype)


def backends(vectors: np.ndarray, folder: Path) -> list[Backend]:
    path = folder / "index.faiss"
    faiss_flat.write_faiss_index(vectors, path)
    return [NumpyMatmul(vectors), faiss_flat.FaissFlat(path, vectors)]


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
