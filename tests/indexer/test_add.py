"""Adding records gives the index that one build of all of them would have given, and encodes the new ones only."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, text

from fgclep.datasets.wfdb_folder import PLAIN_KIND
from fgclep.errors import (
    CompatibilityError,
    CorruptionError,
    DataError,
    FgclepError,
    InterruptedWork,
    NotSetUpError,
    TooManyRejectsError,
    UsageError,
)
from indexer import build as build_module
from indexer import staging as staging_module
from indexer.build import run_build
from indexer.embed import Tally
from indexer.home import index_dir, resolve_index
from indexer.open import KEYS, STORE, VECTORS, OpenIndex, open_index
from indexer.schema import MissingRow, SubjectRow
from indexer.verify import verify_index
from indexer.versions import remove_old
from tests.indexer.fakes import FakeDataset, fake_add, fake_plan, reads_fakes


def known(index: OpenIndex) -> dict[str, Any]:
    """Everything a store says, keys left out: they depend on when a record came."""
    records = index.store.records(index.keys.tolist()).values()
    found = {"records": {row["record_id"]: {**row, "key": 0} for row in records}, "rejects": index.store.rejects()}
    ids = {row["key"]: row["record_id"] for row in records}
    with index.store.connect() as connection:
        found["missing"] = sorted(connection.scalars(select(MissingRow.record_id)))
        found["subjects"] = sorted(tuple(row) for row in connection.execute(select(SubjectRow.__table__)))
        for word in ("sinus", "number7", "number120"):
            match = text("SELECT rowid FROM reports_fts WHERE reports_fts MATCH :word").bindparams(word=word)
            found[word] = sorted(ids[key] for key in connection.scalars(match))
    return found


def vectors(index: OpenIndex) -> dict[str, np.ndarray]:
    rows = index.store.records(index.keys.tolist())
    return {rows[int(key)]["record_id"]: vector for key, vector in zip(index.keys, index.vectors, strict=True)}


def assert_equal(index: OpenIndex, other: OpenIndex) -> None:
    assert known(index) == known(other)
    assert index.manifest.counts == other.manifest.counts
    ours, theirs = vectors(index), vectors(other)
    assert ours.keys() == theirs.keys()
    for record_id, vector in ours.items():
        np.testing.assert_allclose(vector, theirs[record_id], atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_grown_tree_gives_the_index_of_one_build(dtype: str, tmp_path: Path) -> None:
    base = run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 70), dtype=dtype))
    grown = FakeDataset(tmp_path, 130)
    added = run_build(fake_add(tmp_path, grown, only_new=True))
    whole = run_build(fake_plan(tmp_path / "fresh", FakeDataset(tmp_path, 130), dtype=dtype))
    index = open_index(resolve_index("demo", tmp_path), verify_checksums=True)
    assert index.path == added != base
    assert_equal(index, open_index(whole))
    np.testing.assert_array_equal(index.vectors[:63], open_index(base).vectors)
    assert (np.diff(index.keys) > 0).all()
    with reads_fakes(size=130):
        assert all(check.passed for check in verify_index(added, full=True))
    assert [(one.first_key, one.indexed) for one in index.manifest.additions] == [(70, 54)]
    assert index.manifest.options["base"] == base.name


def test_two_other_trees_are_told_apart_by_their_keys(tmp_path: Path) -> None:
    run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 20)))
    for number, first in enumerate((100, 200)):
        run_build(fake_add(tmp_path, FakeDataset(tmp_path / str(number), 20, first=first)))
    index = open_index(resolve_index("demo", tmp_path))
    firsts = [key for key, _ in index.manifest.sources]
    rows = index.store.records(index.keys.tolist())
    for key, row in rows.items():
        source = max(number for number, first in enumerate(firsts) if first <= key)
        assert int(row["study_id"]) // 100 == source
    roots = [Path(source.root) for _, source in index.manifest.sources]
    assert roots == [tmp_path, tmp_path / "0", tmp_path / "1"]
    assert (index.manifest.counts.listed, index.manifest.counts.indexed) == (60, 54)


def test_what_was_missing_rejected_or_beyond_the_limit_is_read_now(tmp_path: Path) -> None:
    run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 100, absent=30), limit=40))
    before = open_index(resolve_index("demo", tmp_path)).manifest.counts
    assert (before.missing, before.beyond_limit, before.rejected) == (30, 30, 4)
    added = run_build(fake_add(tmp_path, FakeDataset(tmp_path, 110, absent=5, mended=True), only_new=True))
    whole = run_build(fake_plan(tmp_path / "fresh", FakeDataset(tmp_path, 110, absent=5, mended=True)))
    assert_equal(open_index(added), open_index(whole))


def test_records_that_are_there_are_refused_with_their_number(tmp_path: Path) -> None:
    run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 50)))
    with pytest.raises(
        DataError, match=r"36 of the 80 records of .* in index demo already, such as fake:10;"
    ) as refused:
        fake_add(tmp_path, FakeDataset(tmp_path, 80, first=10))
    assert "--only-new" in refused.value.hint and "the other 44" in refused.value.hint
    run_build(fake_add(tmp_path, FakeDataset(tmp_path, 80, first=10, mended=True), only_new=True))
    with pytest.raises(DataError, match="nothing new for index demo: all 80"):
        fake_add(tmp_path, FakeDataset(tmp_path, 80, first=10), only_new=True)


def test_nothing_is_read_or_encoded_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 100)))
    read: list[int] = []
    original = FakeDataset.read
    monkeypatch.setattr(FakeDataset, "read", lambda self, info: read.append(int(info.study_id)) or original(self, info))
    run_build(fake_add(tmp_path, FakeDataset(tmp_path, 120), only_new=True, max_reject_rate=0.5))
    assert read == [*range(3, 100, 10), *range(100, 120)]


def test_what_was_rejected_before_does_not_count_against_the_limit_again(tmp_path: Path) -> None:
    run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 100)))
    added = run_build(
        fake_add(tmp_path, FakeDataset(tmp_path, 110), only_new=True)
    )  # 1 of 10 is rejected, not 11 of 20
    assert_equal(open_index(added), open_index(run_build(fake_plan(tmp_path / "fresh", FakeDataset(tmp_path, 110)))))
    with pytest.raises(TooManyRejectsError, match=r"1 of 4 records were rejected \(flat 1\)") as refused:
        run_build(fake_add(tmp_path, FakeDataset(tmp_path, 114), only_new=True))
    assert "--max-reject-rate 0.26" in refused.value.hint
    run_build(fake_add(tmp_path, FakeDataset(tmp_path, 114), only_new=True, max_reject_rate=0.26))


def test_records_that_are_rejected_again_are_nothing_new_and_leave_nothing(tmp_path: Path) -> None:
    base = run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 50)))
    with pytest.raises(DataError, match=r"nothing new for index demo: 5 records .* rejected again \(flat 5\)"):
        run_build(fake_add(tmp_path, FakeDataset(tmp_path, 50), only_new=True))
    assert resolve_index("demo", tmp_path) == base and not (index_dir(tmp_path, "demo") / "staging").exists()
    mended = run_build(fake_add(tmp_path, FakeDataset(tmp_path, 50, mended=True), only_new=True))
    assert open_index(mended).manifest.counts.indexed == 50


def test_plain_folders_with_equal_file_names_are_not_taken_for_one(tmp_path: Path) -> None:
    """Ids of plain folders are made of paths, so --only-new would leave out ECGs that the index does not have."""

    def plain(folder: str, size: int, first: int = 0) -> FakeDataset:
        dataset = FakeDataset(tmp_path / folder, size, first=first)
        dataset.kind = PLAIN_KIND
        return dataset

    run_build(fake_plan(tmp_path, plain("a", 20)))
    run_build(fake_add(tmp_path, plain("b", 20, first=100)))
    for other in (plain("c", 30), plain("b", 130, first=10)):
        for only_new in (False, True):
            with pytest.raises(DataError, match=r"is another folder .* equal names, such as fake:") as refused:
                fake_add(tmp_path, other, only_new=only_new)
            assert "common parent" in refused.value.hint and "--only-new" not in refused.value.hint
    added = run_build(fake_add(tmp_path, plain("b", 40, first=100), only_new=True))
    assert open_index(added).manifest.counts.listed == 60


def test_other_ids_mean_the_same_record_in_any_folder(tmp_path: Path) -> None:
    run_build(fake_plan(tmp_path, FakeDataset(tmp_path / "part", 20)))
    added = run_build(fake_add(tmp_path, FakeDataset(tmp_path / "whole", 40), only_new=True))
    assert open_index(added).manifest.counts.listed == 40


def test_an_interrupted_addition_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 40)))
    commit, done = staging_module.Staging.commit, []

    def failing(self: Any, number: int, content: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(number)
        return commit(self, number, content)

    grown = FakeDataset(tmp_path, 120)
    with monkeypatch.context() as patch:
        patch.setattr(staging_module.Staging, "commit", failing)
        with pytest.raises(InterruptedWork):
            run_build(fake_add(tmp_path, grown, only_new=True))
    with pytest.raises(UsageError, match=r"unfinished build with other settings: .*base"):
        run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 40)))
    tallies: list[Tally] = []
    run_build(fake_add(tmp_path, grown, only_new=True), lambda tally: tallies.append(replace(tally)))
    assert (tallies[0].resumed, tallies[-1].done) == (32, 84)
    whole = run_build(fake_plan(tmp_path / "fresh", FakeDataset(tmp_path, 120)))
    assert_equal(open_index(resolve_index("demo", tmp_path)), open_index(whole))


def test_an_addition_that_only_had_to_clean_up_does_without_a_base_that_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 10)))
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(build_module, "become_default", lambda home, name: 1 / 0)
        run_build(fake_add(tmp_path, FakeDataset(tmp_path, 10, first=10)))
    added = resolve_index("demo", tmp_path)
    assert len(remove_old(index_dir(tmp_path, "demo"), 1).removed) == 1
    with pytest.raises(DataError, match="are in index demo already"):
        fake_add(tmp_path, FakeDataset(tmp_path, 10, first=10))
    more = run_build(fake_add(tmp_path, FakeDataset(tmp_path, 10, first=20)))
    assert open_index(more).manifest.counts.listed == 30 and more != added


def test_an_addition_that_only_had_to_clean_up_is_another_one_once_the_data_grew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 10)))
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(build_module, "become_default", lambda home, name: 1 / 0)
        run_build(fake_add(tmp_path, FakeDataset(tmp_path, 20), only_new=True))
    with pytest.raises(FgclepError, match=r"to .* meanwhile") as refused:
        run_build(fake_add(tmp_path, FakeDataset(tmp_path, 30), only_new=True))
    assert refused.value.hint == "Repeat the command."
    added = run_build(fake_add(tmp_path, FakeDataset(tmp_path, 30), only_new=True))
    assert open_index(added).manifest.counts.listed == 30


def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(NotSetUpError, match=r"no index 'demo' .*\(there: none\)"):
        fake_add(tmp_path, FakeDataset(tmp_path, 10))
    run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 10)))
    before = sorted(tmp_path.rglob("*"))
    more = FakeDataset(tmp_path, 20, first=10)
    with pytest.raises(CompatibilityError, match="their vectors cannot be compared") as refused:
        fake_add(tmp_path, more, seed=1)
    assert "fgclep index rebuild demo" in refused.value.hint
    with pytest.raises(DataError, match="lists 1 record ids more than once, such as fake:15"):
        fake_add(tmp_path, FakeDataset(tmp_path, 20, first=10, twice=15))
    more.kind = "other"
    with pytest.raises(DataError, match="would get other ids"):
        fake_add(tmp_path, more)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_addition_that_another_one_overtook_loses_nothing(tmp_path: Path) -> None:
    """Both were planned from the same version; the second may not publish an index without the first one's records."""
    run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 10)))
    plans = [fake_add(tmp_path, FakeDataset(tmp_path, 10, first=first)) for first in (10, 20)]
    quicker = run_build(plans[0])
    with pytest.raises(FgclepError, match=r"to .* meanwhile") as refused:
        run_build(plans[1])
    assert refused.value.hint == "Repeat the command." and resolve_index("demo", tmp_path) == quicker
    run_build(fake_add(tmp_path, FakeDataset(tmp_path, 10, first=20)))
    assert open_index(resolve_index("demo", tmp_path)).manifest.counts.listed == 30


@pytest.mark.parametrize("name", [VECTORS, KEYS, STORE])
def test_damage_is_not_copied_into_a_new_version(name: str, tmp_path: Path) -> None:
    base = run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 30)))
    content = bytearray((base / name).read_bytes())
    content[-3] ^= 64
    (base / name).write_bytes(content)
    with pytest.raises(CorruptionError, match=name):
        run_build(fake_add(tmp_path, FakeDataset(tmp_path, 30, first=100)))
    assert resolve_index("demo", tmp_path) == base
