"""Repeated queries come from the cache, new ones from the text tower in numpy; a wrong model is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fgclep.errors import CompatibilityError
from fgclep.pretrained import load_model
from fgclep.text_numpy import NumpyTextEncoder
from indexer.manifest import ModelRef
from indexer.open import OpenIndex
from retrieval.cache import LIBRARY, QueryCache
from retrieval.encoder import BundleEncoder


class CountingModel:
    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def encode_text(self, texts: list[str]) -> NDArray[np.float32]:
        self.calls.append(texts)
        return np.array([[0.6, 0.8, 0.0, float(len(texts[0]))]], np.float32)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> CountingModel:
    """A bundle that the text tower in numpy does not understand, so that it is torch's turn."""
    model = CountingModel()
    monkeypatch.setattr(NumpyTextEncoder, "from_bundle", lambda path: None)
    monkeypatch.setattr("fgclep.pretrained.load_model", lambda path: model)
    return model


def test_a_repeated_text_needs_no_model_and_gives_the_same_vector(
    index: OpenIndex, model: CountingModel, tmp_path: Path
) -> None:
    def encoder() -> BundleEncoder:
        return BundleEncoder(index.manifest, lambda: tmp_path, QueryCache(tmp_path / "home"))

    first = encoder().encode_text("low voltage")
    again = encoder().encode_text("low voltage")
    encoder().encode_text("lowvoltage")
    assert model.calls == [["low voltage"], ["lowvoltage"]]
    assert np.array_equal(first, again) and again.dtype == np.float32


def test_a_new_text_needs_no_torch_where_the_tower_is_understood(
    index: OpenIndex, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = ModelRef("tiny", str(tiny_bundle), "a" * 16, 16)
    manifest = dataclasses.replace(index.manifest, model=reference)
    expected = load_model(tiny_bundle).encode_text(["low voltage"])[0]
    monkeypatch.setattr("fgclep.pretrained.load_model", lambda path: pytest.fail("torch was asked"))
    for _ in range(2):  # computed, then from the cache
        found = BundleEncoder(manifest, lambda: tiny_bundle, QueryCache(tmp_path)).encode_text("low voltage")
        assert np.abs(found - expected).max() < 1e-5


def test_the_cache_tells_models_and_sizes_apart(tmp_path: Path) -> None:
    cache = QueryCache(tmp_path)
    cache.put("af", "a" * 16, np.arange(4, dtype=np.float32))
    found = cache.get("af", "a" * 16, 4)
    assert found is not None and found.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert cache.get("af", "b" * 16, 4) is None
    assert cache.get("af", "a" * 16, 5) is None


@pytest.mark.parametrize("obstacle", ["home is a file", "library is damaged"])
def test_without_a_usable_cache_the_model_answers(
    index: OpenIndex, model: CountingModel, tmp_path: Path, obstacle: str
) -> None:
    home = tmp_path / "home"
    if obstacle == "home is a file":
        home.write_text("not a folder")
    else:
        home.mkdir()
        (home / LIBRARY).write_bytes(b"no database" * 100)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    encoder = BundleEncoder(index.manifest, lambda: tmp_path, QueryCache(home))
    for _ in range(2):
        assert encoder.encode_text("low voltage")[0] == np.float32(0.6)
    assert len(model.calls) == 2
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_text_that_no_database_takes_is_not_kept(tmp_path: Path) -> None:
    cache = QueryCache(tmp_path)
    cache.put("af", "a" * 16, np.zeros(4, np.float32))
    cache.put("r\udcfcck", "a" * 16, np.zeros(4, np.float32))
    assert cache.get("r\udcfcck", "a" * 16, 4) is None and cache.get("af", "a" * 16, 4) is not None


def test_a_model_that_does_not_match_is_refused_before_it_is_loaded(
    index: OpenIndex, model: CountingModel, tmp_path: Path
) -> None:
    def refuse() -> Path:
        raise CompatibilityError("another model")

    with pytest.raises(CompatibilityError):
        BundleEncoder(index.manifest, refuse, QueryCache(tmp_path)).encode_text("low voltage")
    assert not model.calls
