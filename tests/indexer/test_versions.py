"""Going back, choosing and removing versions; what somebody reads is never removed, and stays readable if it is."""

import multiprocessing
import os
import shutil
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from fgclep.errors import CorruptionError, FgclepError, NotSetUpError, UsageError
from indexer import publish as publish_module
from indexer.build import run_build
from indexer.home import index_dir, replace_line, resolve_index
from indexer.lease import take_lease
from indexer.manifest import MANIFEST
from indexer.open import STORE, open_index
from indexer.publish import build_lock
from indexer.versions import activate, list_versions, remove_old, roll_back
from tests.indexer.fakes import FakeDataset, fake_plan

FORK = multiprocessing.get_context("fork")


def build(home: Path, seed: int) -> Path:
    return run_build(fake_plan(home, FakeDataset(home, 20), seed=seed))


@pytest.fixture
def versions(tmp_path: Path) -> list[Path]:
    """Three versions of the index `demo`, oldest first; the last one is current."""
    return [build(tmp_path, seed) for seed in range(3)]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return index_dir(tmp_path, "demo")


def test_back_is_what_was_current_before(versions: list[Path], directory: Path, tmp_path: Path) -> None:
    first, second, third = versions
    assert roll_back(directory) == second == resolve_index("demo", tmp_path)
    fourth = build(tmp_path, 3)  # the third was given up, so the way back from the fourth is the second
    assert roll_back(directory) == second
    assert roll_back(directory) == first
    with pytest.raises(UsageError, match="no earlier version"):
        roll_back(directory)
    assert resolve_index("demo", tmp_path) == first
    assert list_versions(directory) == [first, second, third, fourth]


@pytest.mark.parametrize("written", [0, 1])
def test_going_back_and_stopped_half_way_forgets_no_version(
    written: int, versions: list[Path], directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before the first of its two writes, or between them."""
    calls: list[Path] = []

    def stop_late(path: Path, line: str) -> None:
        if len(calls) == written:
            raise KeyboardInterrupt
        calls.append(path)
        replace_line(path, line)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(publish_module, "replace_line", stop_late)
        roll_back(directory)
    left = versions[: versions.index(resolve_index("demo", tmp_path))]
    assert len(left) == 2 - written
    while left:
        assert roll_back(directory) == left.pop()


def test_any_version_can_be_chosen_and_left_again(versions: list[Path], directory: Path, tmp_path: Path) -> None:
    assert activate(directory, versions[0].name) == versions[0] == resolve_index("demo", tmp_path)
    assert roll_back(directory) == versions[2]
    with pytest.raises(NotSetUpError, match=f"no version 'v9'; there are {versions[0].name}"):
        activate(directory, "v9")
    with pytest.raises(NotSetUpError):
        activate(directory, "../versions/" + versions[0].name)


def test_a_damaged_version_is_not_gone_back_to(versions: list[Path], directory: Path, tmp_path: Path) -> None:
    (versions[1] / MANIFEST).write_text("{}")
    with pytest.raises(CorruptionError):
        roll_back(directory)
    assert resolve_index("demo", tmp_path) == versions[2]


def test_an_index_without_a_history_can_go_nowhere(versions: list[Path], directory: Path) -> None:
    """As one that an earlier fgclep made."""
    (directory / "HISTORY").unlink()
    with pytest.raises(UsageError, match="no earlier version"):
        roll_back(directory)
    activate(directory, versions[0].name)
    assert roll_back(directory) == versions[2]


def test_the_newest_and_the_current_one_are_kept(versions: list[Path], directory: Path, tmp_path: Path) -> None:
    activate(directory, versions[0].name)
    told = remove_old(directory, 1, dry_run=True)
    assert told.removed == (versions[1].name,) and list_versions(directory) == versions
    result = remove_old(directory, 1)
    assert result == told and result.freed_bytes > 0
    assert list_versions(directory) == [versions[0], versions[2]]
    assert sorted(path.name for path in versions[0].parent.iterdir()) == [versions[0].name, versions[2].name]
    assert resolve_index("demo", tmp_path) == versions[0]
    open_index(versions[0], verify_checksums=True).close()
    assert roll_back(directory) == versions[2]
    with pytest.raises(UsageError, match="0 versions"):
        remove_old(directory, 0)


def size(*paths: Path) -> int:
    return sum(path.stat().st_size for path in paths)


def test_what_versions_share_is_freed_once_and_with_the_last_of_them(versions: list[Path], directory: Path) -> None:
    shared = [version / STORE for version in versions[:2]]
    shared[1].unlink()
    os.link(*shared)
    own = [[path for path in version.rglob("*") if path.is_file() and path not in shared] for version in versions]
    assert remove_old(directory, 2, dry_run=True).freed_bytes == size(*own[0])
    assert remove_old(directory, 1, dry_run=True).freed_bytes == size(*own[0], *own[1], shared[0])
    os.link(shared[0], versions[2] / "shared")
    expected = size(*own[0], *own[1])
    assert remove_old(directory, 1).freed_bytes == expected


def test_what_a_killed_import_or_relocation_left_goes(versions: list[Path], directory: Path) -> None:
    for name in ("incoming", "relocating"):
        (directory / name / "embeddings").mkdir(parents=True)
        (directory / name / "embeddings" / "vectors.npy").write_bytes(bytes(100))
    told = remove_old(directory, 3, dry_run=True)
    assert (told.removed, told.leftovers, told.freed_bytes) == ((), ("incoming", "relocating"), 200)
    assert remove_old(directory, 3) == told and not list(directory.glob("*ing"))
    assert remove_old(directory, 3).leftovers == () and list_versions(directory) == versions


def test_of_an_index_that_was_never_published_only_leftovers_go(tmp_path: Path) -> None:
    directory = index_dir(tmp_path, "half")
    (directory / "incoming").mkdir(parents=True)
    assert remove_old(directory, 1).leftovers == ("incoming",)
    with pytest.raises(NotSetUpError, match="no published version"):
        remove_old(directory, 1)


def hold(version: Path, pipe: Connection) -> None:
    """Open a version in a process of its own, and tell; then search when told to, and tell what was found."""
    index = open_index(version)
    pipe.send("open")
    pipe.recv()
    query = np.asarray(index.vectors[7:8], np.float32)
    rows = index.backend.search(query, 3)[1][0]
    pipe.send((int(rows[0]), index.store.records([int(index.keys[7])])))


def test_a_version_that_a_process_reads_is_kept_until_it_ends(versions: list[Path], directory: Path) -> None:
    ours, theirs = FORK.Pipe()
    reader = FORK.Process(target=hold, args=(versions[0], theirs))
    reader.start()
    assert ours.recv() == "open"
    result = remove_old(directory, 1)
    assert (result.removed, result.in_use) == ((versions[1].name,), (versions[0].name,))
    ours.send("search")
    assert ours.recv()[0] == 7
    reader.join()
    assert remove_old(directory, 1).removed == (versions[0].name,)


def test_a_reader_that_is_killed_holds_nothing(versions: list[Path], directory: Path) -> None:
    ours, theirs = FORK.Pipe()
    reader = FORK.Process(target=hold, args=(versions[0], theirs))
    reader.start()
    ours.recv()
    reader.kill()
    reader.join()
    assert remove_old(directory, 1).in_use == ()


@pytest.mark.parametrize("backend", ["numpy", "faiss"])
def test_a_version_deleted_by_hand_stays_readable_where_it_is_open(backend: str, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    version = run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 300)))  # enough rows for FAISS to search itself
    index = open_index(version, backend=backend)  # type: ignore[arg-type]
    query, key = np.asarray(index.vectors[5:6], np.float32), int(index.keys[5])
    before = index.backend.search(query, 4)[1].tolist(), index.store.records([key])
    shutil.rmtree(version)
    assert (index.backend.search(query, 4)[1].tolist(), index.store.records([key])) == before
    with pytest.raises(NotSetUpError, match="not there any more"):
        open_index(version)


def test_closing_an_index_lets_it_go(versions: list[Path], directory: Path) -> None:
    with pytest.raises(CorruptionError):  # neither may a failed open hold on to it
        (versions[1] / "store.sqlite").write_bytes(b"")
        open_index(versions[1])
    index = open_index(versions[0])
    assert remove_old(directory, 1, dry_run=True).in_use == (versions[0].name,)
    index.close()
    assert remove_old(directory, 1, dry_run=True).in_use == ()


def test_opening_what_is_being_removed_is_refused(versions: list[Path]) -> None:
    from indexer.lease import claim_for_removal

    claim = claim_for_removal(versions[0])
    assert claim is not None
    with pytest.raises(NotSetUpError, match="not there any more"):
        take_lease(versions[0])
    claim.close()
    take_lease(versions[0]).close()


def test_what_a_killed_removal_left_goes_the_next_time(versions: list[Path], directory: Path) -> None:
    versions[0].rename(versions[0].with_name(f".removed-{versions[0].name}"))
    assert list_versions(directory) == versions[1:]
    remove_old(directory, 2)
    assert sorted(path.name for path in versions[0].parent.iterdir()) == [path.name for path in versions[1:]]


def test_nothing_changes_while_somebody_builds(versions: list[Path], directory: Path) -> None:
    with build_lock(directory):
        for change in (lambda: remove_old(directory, 1), lambda: roll_back(directory)):
            with pytest.raises(FgclepError, match="is building the index demo"):
                change()


def test_readers_meet_one_whole_version_while_versions_come_and_go(versions: list[Path], tmp_path: Path) -> None:
    """A reader opens the index over and over during builds and removals; every answer fits one model."""
    stop, (ours, theirs) = FORK.Event(), FORK.Pipe()
    reader = FORK.Process(target=read_over_and_over, args=(tmp_path, stop, theirs))
    reader.start()
    ours.recv()
    for seed in range(3, 9):
        build(tmp_path, seed)
        remove_old(index_dir(tmp_path, "demo"), 2)
    stop.set()
    opened, seen = ours.recv()
    reader.join()
    assert reader.exitcode == 0 and opened > 6 and len(seen) > 2


def read_over_and_over(home: Path, stop: "multiprocessing.synchronize.Event", pipe: Connection) -> None:
    opened, seen = 0, set()
    while not stop.is_set():
        try:
            index = open_index(resolve_index("demo", home), verify_checksums=True)
        except NotSetUpError:  # removed between the two calls: told as such, and the next try works
            continue
        opened += 1
        seen.add(index.manifest.version)
        if opened == 1:
            pipe.send("open")
        assert index.manifest.version.endswith(index.manifest.model.fingerprint[:8])
        index.close()
    pipe.send((opened, seen))
