"""Data that moved is found again: a new version with the same files, and no other data taken for it."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from fgclep.errors import DataError, NotSetUpError, UsageError
from fgclep.record import EcgRecord, RecordInfo
from indexer.build import run_build
from indexer.home import index_dir, resolve_index
from indexer.open import open_index
from indexer.relocate import relocate_index
from indexer.verify import verify_index
from indexer.versions import roll_back
from tests.indexer.fakes import FakeDataset, fake_add, fake_plan, reads_fakes


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """An index of the folder `old`."""
    (tmp_path / "old").mkdir()
    return run_build(fake_plan(tmp_path, FakeDataset(tmp_path / "old", 40)))


@pytest.fixture
def new(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.move(tmp_path / "old", tmp_path / "new"))


def test_everything_but_the_place_stays(base: Path, new: Path, tmp_path: Path) -> None:
    with reads_fakes(size=40):
        version = relocate_index(tmp_path, "demo", new)
    before, after = open_index(base), open_index(resolve_index("demo", tmp_path), verify_checksums=True)
    assert after.path == version and after.manifest.dataset.root == str(new)
    assert after.manifest.files == before.manifest.files and after.manifest.model == before.manifest.model
    assert (version / "index.faiss").samefile(base / "index.faiss")
    with reads_fakes(size=40):
        assert all(check.passed for check in verify_index(version, full=True))
    assert roll_back(index_dir(tmp_path, "demo")) == base


def test_where_the_file_system_has_no_links_files_are_copied(
    base: Path, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    with reads_fakes(size=40):
        version = relocate_index(tmp_path, "demo", new)
    assert not (version / "index.faiss").samefile(base / "index.faiss")
    open_index(version, verify_checksums=True)


def test_of_several_places_the_one_that_moved_is_named(base: Path, new: Path, tmp_path: Path) -> None:
    run_build(fake_add(tmp_path, FakeDataset(tmp_path / "more", 20, first=40)))
    with reads_fakes(size=60):
        with pytest.raises(UsageError, match="say which of them moved"):
            relocate_index(tmp_path, "demo", new)
        with pytest.raises(UsageError, match="nowhere is none of them"):
            relocate_index(tmp_path, "demo", new, moved=Path("/nowhere"))
        version = relocate_index(tmp_path, "demo", new, moved=tmp_path / "old")
    assert roots_of(version) == [str(new), str(tmp_path / "more")]


def test_of_several_places_the_only_one_that_is_gone_has_moved(base: Path, new: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    run_build(fake_add(tmp_path, FakeDataset(tmp_path / "more", 20, first=40)))
    with reads_fakes(size=60):
        version = relocate_index(tmp_path, "demo", new)
        assert roots_of(version) == [str(new), str(tmp_path / "more")]
        with pytest.raises(UsageError, match="say which of them moved"):  # none is gone: a copy somewhere else
            relocate_index(tmp_path, "demo", Path(shutil.copytree(new, tmp_path / "copy")))


def roots_of(version: Path) -> list[str]:
    """Return the folders that a version was read from."""
    return [source.root for _, source in open_index(version).manifest.sources]


def half(self: FakeDataset, info: RecordInfo) -> EcgRecord:
    """Read half as many samples as there were."""
    return EcgRecord(info, np.ones((12, 50), np.float32), 100)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 30}, r"9 of the 36 indexed records of .*old are not in .*new, such as fake:30 \(records/30\)"),
        ({"size": 40, "absent": 10}, "9 of the 36 indexed records"),
        ({"size": 40, "first": 1}, "1 of the 36 indexed records"),
    ],
)
def test_a_folder_without_the_records_is_refused(
    settings: dict[str, int], message: str, base: Path, new: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    with reads_fakes(**settings), pytest.raises(DataError, match=message):
        relocate_index(tmp_path, "demo", new)
    assert sorted(tmp_path.rglob("*")) == before and resolve_index("demo", tmp_path) == base


def test_other_samples_under_the_same_names_are_refused(
    base: Path, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeDataset, "read", half)
    with reads_fakes(size=40):
        with pytest.raises(DataError, match=r"fake:0 in .*new has 100 Hz and 0.5 s; the index knows 100 Hz and 1 s"):
            relocate_index(tmp_path, "demo", new)
        with pytest.raises(NotSetUpError, match="nowhere is no folder"):
            relocate_index(tmp_path, "demo", tmp_path / "nowhere")
