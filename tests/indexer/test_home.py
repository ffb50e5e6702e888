"""Names, paths and nothing at all find the right index; half-made and broken ones are told apart."""

from pathlib import Path

import pytest

from fgclep.errors import CorruptionError, NotSetUpError, UsageError
from indexer.home import CURRENT, current_version, index_dir, indexes_dir, list_indexes, resolve_index, use_index


def make(home: Path, name: str, version: str = "v1") -> Path:
    version_dir = index_dir(home, name) / "versions" / version
    version_dir.mkdir(parents=True)
    (version_dir / "manifest.json").write_text("{}")
    (index_dir(home, name) / CURRENT).write_text(f"{version}\n")
    return version_dir


def test_a_name_a_path_and_the_only_one(tmp_path: Path) -> None:
    version_dir = make(tmp_path, "a")
    for asked in ("a", str(version_dir), index_dir(tmp_path, "a"), None):
        assert resolve_index(asked, tmp_path) == version_dir


def test_of_several_the_default_is_taken(tmp_path: Path) -> None:
    make(tmp_path, "a"), make(tmp_path, "b")
    with pytest.raises(UsageError, match="a, b"):
        resolve_index(None, tmp_path)
    use_index(tmp_path, "b")
    assert resolve_index(None, tmp_path).parts[-3] == "b"
    assert [(entry.name, entry.default) for entry in list_indexes(tmp_path)] == [("a", False), ("b", True)]


def test_an_unfinished_first_build_is_no_index(tmp_path: Path) -> None:
    (index_dir(tmp_path, "a") / "staging").mkdir(parents=True)
    assert list_indexes(tmp_path) == []
    with pytest.raises(NotSetUpError, match="no published version"):
        resolve_index("a", tmp_path)
    with pytest.raises(NotSetUpError, match="no index in"):
        resolve_index(None, tmp_path)


def test_unknown_names_say_what_there_is(tmp_path: Path) -> None:
    make(tmp_path, "real")
    with pytest.raises(NotSetUpError, match=r"'rael'.*there: real"):
        resolve_index("rael", tmp_path)
    with pytest.raises(NotSetUpError):
        use_index(tmp_path, "rael")


def test_a_pointer_to_nowhere_is_corruption(tmp_path: Path) -> None:
    make(tmp_path, "a")
    for line in ("v2", "", "../../a"):
        (index_dir(tmp_path, "a") / CURRENT).write_text(line)
        with pytest.raises(CorruptionError, match="there are v1"):
            current_version(indexes_dir(tmp_path) / "a")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "-n", "a b", "DEFAULT", "ü"])
def test_names_that_are_no_directory_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        index_dir(tmp_path, name)
