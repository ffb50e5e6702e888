"""The small index of `fakes`, opened once."""

import pytest

from indexer.open import OpenIndex, open_index
from tests.retrieval.fakes import FakeEncoder, write_index


@pytest.fixture(scope="session")
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> OpenIndex:
    path = tmp_path_factory.mktemp("toy") / "v1"
    write_index(path)
    return open_index(path)
