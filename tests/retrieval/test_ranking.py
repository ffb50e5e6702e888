"""One pass over the vectors gives what a search backend and a count over the corpus give."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fgclep.errors import UsageError
from indexer.backends.base import Vectors, brute_force
from indexer.backends.int8_codes import Codes, rounded
from indexer.backends.scan import Scan
from retrieval.ranking import Ranking


def unit_rows(rng: np.random.Generator, rows: int, dim: int) -> NDArray[np.float32]:
    vectors = rng.standard_normal((rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(params=["compiled", "numkong", "numpy"], autouse=True)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs with the compiled kernel, with numkong, and with the widened rows that stand in for both."""
    if request.param != "compiled":
        monkeypatch.setattr("indexer.backends.scan.native_kernel", lambda: None)
    if request.param == "numpy":
        monkeypatch.setattr("indexer.backends.scan.packs", lambda dtype: False)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("rows", [0, 1, 1023, 1024, 1025, 3000])
def test_similarities_are_the_products_with_every_row(rows: int, dtype: type[np.floating]) -> None:
    rng = np.random.default_rng(rows)
    vectors: Vectors = unit_rows(rng, rows, 48).astype(dtype)
    # Zeros of both signs, the ends of a half's range, and halves so small that they have lost their leading bit.
    vectors[:1, :7] = [0.0, -0.0, 1.0, -1.0, 6e-8, -3e-6, 6.1e-5]
    query = unit_rows(rng, 1, 48)[0]
    scan = Scan(vectors)
    prepared = scan.prepare(query[None])
    found = scan.all_products(prepared)
    assert found.dtype == np.float32 and found.shape == (rows,)
    exact = vectors.astype(np.float64) @ query.astype(np.float64)
    assert np.all(np.abs(found - exact) <= 2 * prepared.errors[0] * max(1.0, float(np.abs(vectors).max(initial=1.0))))
    assert prepared.errors[0] < 1e-3


def test_every_half_is_widened_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.backends.scan.native_kernel", lambda: None)
    monkeypatch.setattr("indexer.backends.scan.packs", lambda dtype: False)
    halves = np.arange(65536, dtype=np.uint32).astype(np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    scan = Scan(halves[:, None])
    found = scan.all_products(scan.prepare(np.ones((1, 1), np.float32)))
    assert np.array_equal(found, halves.astype(np.float32))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 1000),
    rows=st.integers(1, 200),
    k=st.integers(1, 220),
    share=st.sampled_from([0.0, 0.05, 0.6, 1.0]),
    half=st.booleans(),
    bytewise=st.booleans(),
)
def test_the_best_rows_are_those_of_brute_force(
    seed: int, rows: int, k: int, share: float, half: bool, bytewise: bool
) -> None:
    rng = np.random.default_rng(seed)
    vectors: Vectors = unit_rows(rng, rows, 8)[rng.integers(0, rows, rows)]  # many equal rows: ties go by row
    if half:
        vectors = vectors.astype(np.float16)
    query, allowed = unit_rows(rng, 1, 8)[0], rng.random(rows) < share
    scales = np.full(8, 1 / 127, np.float32)
    codes = Codes(rounded(vectors, scales), scales) if bytewise else None
    similarities, found = Ranking(vectors, query, allowed, codes).top(k)
    expected = brute_force(vectors, query[None], k, allowed)
    assert np.array_equal(similarities, expected[0][0]) and np.array_equal(found, expected[1][0])


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000), rows=st.integers(1, 200), half=st.booleans())
def test_a_percentile_counts_the_whole_corpus_whatever_is_allowed(seed: int, rows: int, half: bool) -> None:
    rng = np.random.default_rng(seed)
    # Coarse numbers: two similarities are equal or far apart, so that rounding cannot change a count.
    vectors: Vectors = (rng.integers(-2, 3, (rows, 4)) / 4).astype(np.float16 if half else np.float32)
    query, allowed = np.array([0.5, -0.25, 0.125, 1.0], np.float32), rng.random(rows) < 0.5
    ranking = Ranking(vectors, query, allowed)
    similarities, _ = ranking.top(rows)
    corpus = vectors.astype(np.float64) @ query
    expected = [100.0 * sum(corpus < similarity) / rows for similarity in similarities]
    assert ranking.percentiles(similarities) == pytest.approx(expected)


def test_a_query_that_fits_no_index_is_refused() -> None:
    vectors, allowed = np.eye(4, dtype=np.float32), np.ones(4, np.bool_)
    for query in (np.ones(3, np.float32), np.array([1.0, np.nan, 0.0, 0.0], np.float32)):
        with pytest.raises(UsageError):
            Ranking(vectors, query, allowed)
