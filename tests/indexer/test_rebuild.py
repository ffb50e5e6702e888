"""A rebuild gives the vectors that a build with the new model would give, keeps the store, and changes no pointer."""

from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from fgclep.errors import CompatibilityError, NotSetUpError, TooManyRejectsError
from indexer.build import run_build
from indexer.home import resolve_index
from indexer.open import STORE, open_index
from indexer.verify import verify_index
from tests.indexer.fakes import FakeDataset, fake_add, fake_plan, fake_rebuild, reads_fakes
from tests.indexer.test_add import known, vectors


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """An index of a tree and of another one that was added."""
    (tmp_path / "more").mkdir()
    run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 60)))
    return run_build(fake_add(tmp_path, FakeDataset(tmp_path / "more", 30, first=60)))


def test_side_by_side_with_the_same_records(base: Path, tmp_path: Path) -> None:
    with reads_fakes(size=90):
        version = run_build(fake_rebuild(tmp_path, seed=1))
        assert all(check.passed for check in verify_index(version, full=True))
    assert resolve_index("demo", tmp_path) == base
    assert (version / STORE).samefile(base / STORE)
    old, new = open_index(base), open_index(version)
    whole = open_index(run_build(fake_plan(tmp_path / "fresh", FakeDataset(tmp_path, 90), seed=1)))
    assert new.manifest.model == whole.manifest.model and new.manifest.counts == old.manifest.counts
    assert new.manifest.sources == old.manifest.sources
    np.testing.assert_array_equal(new.keys, old.keys)
    expected = vectors(whole)
    for record_id, vector in vectors(new).items():
        np.testing.assert_allclose(vector, expected[record_id], atol=1e-6)


def test_activated_it_is_the_index_that_is_searched(base: Path, tmp_path: Path) -> None:
    with reads_fakes(size=90):
        version = run_build(fake_rebuild(tmp_path, activate=True))
    assert resolve_index("demo", tmp_path) == version != base


def test_each_record_is_read_from_its_own_tree(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots: dict[int, str] = {}
    original = FakeDataset.read
    monkeypatch.setattr(
        FakeDataset,
        "read",
        lambda self, info: roots.update({int(info.study_id): self.root.name}) or original(self, info),
    )
    with reads_fakes(size=90):
        run_build(fake_rebuild(tmp_path))
    assert {number: name for number, name in roots.items() if name == "more"}.keys() == {
        number for number in range(60, 90) if number % 10 != 3
    }


def test_records_that_cannot_be_read_any_more_become_rejects(base: Path, tmp_path: Path) -> None:
    with reads_fakes(size=90, odd=24):
        version = run_build(fake_rebuild(tmp_path, seed=0))
    new, old = open_index(version, verify_checksums=True), open_index(base)
    counts = new.manifest.counts
    assert (counts.listed, counts.indexed, counts.rejected_by_reason) == (90, 80, {"flat": 9, "unreadable": 1})
    assert new.store.key_of("fake:24") is None and old.store.key_of("fake:24") == 24
    mine, before = known(new), known(old)
    del before["records"]["fake:24"]
    assert mine["records"] == before["records"]
    assert "fake:24" in before["sinus"] and mine["sinus"] == [name for name in before["sinus"] if name != "fake:24"]
    assert ("fake", "s12", "F", 1) in mine["subjects"]
    assert all(check.passed for check in verify_index(version))


def test_too_many_of_them_publish_nothing(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeDataset, "read", lambda self, info: 1 / 0)
    with reads_fakes(size=90), pytest.raises(TooManyRejectsError, match="81 of 81"):
        run_build(fake_rebuild(tmp_path))
    assert len(list((base.parent).iterdir())) == 2


def test_data_that_is_gone_is_named_with_the_way_out(base: Path, tmp_path: Path) -> None:
    (tmp_path / "more").rmdir()
    with pytest.raises(NotSetUpError, match=r"were read from .*more, which is not there") as refused, reads_fakes():
        fake_rebuild(tmp_path)
    assert "fgclep index relocate NEW-PATH --name demo" in refused.value.hint


def test_a_model_for_other_files_needs_a_build(base: Path, tmp_path: Path) -> None:
    from indexer import rebuild

    def open_500(root: Path, fs_hz: float) -> FakeDataset:
        dataset = FakeDataset(root)
        dataset.fs_hz = 500
        return dataset

    with (
        reads_fakes(size=90),
        patch.object(rebuild, "open_for_rate", open_500),
        pytest.raises(CompatibilityError, match="wants those at 500 Hz") as refused,
    ):
        fake_rebuild(tmp_path)
    build, add = refused.value.hint.split("; then ")
    assert build == f"fgclep index build --data {tmp_path} --model /nowhere/fake --name demo"
    assert add == f"fgclep index add --data {tmp_path / 'more'} --name demo"
