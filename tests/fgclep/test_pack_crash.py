"""Whatever stops a run, the next one ends with the very bytes of an unbroken run; a folder is no pack before that."""

import errno
import fcntl
import multiprocessing
import os
import shutil
import signal
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from fgclep.datasets import open_dataset, pack_files
from fgclep.errors import DataError, FgclepError, InterruptedWork, UsageError
from tests.fgclep.pack_job import run_and_die, run_pack

PATIENCE_S = 300
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.fgclep.pack_job"])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def unbroken(synthetic_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("unbroken") / "pack"
    run_pack(synthetic_tree, out)
    return contents(out)


def run_until_killed(tree: Path, out: Path, target: str, call: int, *, restart: bool = False) -> None:
    process = PROCESSES.Process(target=run_and_die, args=(tree, out, target, call, restart))
    process.start()
    process.join(PATIENCE_S)
    assert process.exitcode == -signal.SIGKILL


KILLS = [
    ("fgclep.datasets.pack_files:PackFolder.start", 1),  # nothing but the plan
    ("fgclep.datasets.pack_files:_HashedFile.write", 9),  # inside the first shard
    ("fgclep.datasets.pack_files:_HashedFile.finish", 3),  # samples of the second shard durable, its lines not
    ("fgclep.datasets.pack_files:ShardWriter.finish", 2),  # both files in place, not committed
    ("fgclep.datasets.pack_files:PackFolder.commit", 4),
    ("fgclep.datasets.pack_summary:write_durably", 2),  # all shards there, some of the rest
    ("fgclep.datasets.pack_files:PackFolder.publish", 1),
]


@pytest.mark.parametrize(("target", "call"), KILLS)
def test_a_killed_run_is_finished_by_the_next(
    target: str, call: int, synthetic_tree: Path, unbroken: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "pack"
    run_until_killed(synthetic_tree, out, target, call)
    if target.endswith("publish"):
        assert len(list(open_dataset(out).iter_infos())) == 40
    else:
        with pytest.raises(DataError, match="not finished") as refused:
            open_dataset(out)
        assert refused.value.hint == f"fgclep data pack {synthetic_tree} {out}"
    run_pack(synthetic_tree, out)
    assert contents(out) == unbroken


def test_a_killed_publication_leaves_a_pack_that_is_tidied(
    synthetic_tree: Path, unbroken: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "pack"
    run_until_killed(synthetic_tree, out, "fgclep.datasets.pack_files:write_durably", 8)  # plan, six shards, manifest
    assert (out / "unfinished.json").is_file()
    assert len(list(open_dataset(out).iter_infos())) == 40
    run_pack(synthetic_tree, out)
    assert contents(out) == unbroken


def test_a_killed_restart_is_no_mixture(synthetic_tree: Path, unbroken: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "pack"
    run_pack(synthetic_tree, out, fs_hz=100)
    run_until_killed(synthetic_tree, out, "fgclep.datasets.pack_files:PackFolder.start", 1, restart=True)
    assert not list(out.glob("*.i16"))
    run_pack(synthetic_tree, out)
    assert contents(out) == unbroken


def test_processes_change_nothing(synthetic_tree: Path, unbroken: dict[str, bytes], tmp_path: Path) -> None:
    run_pack(synthetic_tree, tmp_path / "pack", workers=2)
    assert contents(tmp_path / "pack") == unbroken


def test_finished_shards_are_not_read_again(
    synthetic_tree: Path, unbroken: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "pack"
    run_until_killed(synthetic_tree, out, "fgclep.datasets.pack_files:PackFolder.commit", 4)
    read: list[str] = []
    original = type(open_dataset(synthetic_tree)).read
    monkeypatch.setattr(
        type(open_dataset(synthetic_tree)),
        "read",
        lambda self, info: (read.append(info.record_id), original(self, info))[1],
    )
    run_pack(synthetic_tree, out)
    assert len(read) == 40 - 4 * 7
    assert contents(out) == unbroken


def test_a_damaged_shard_is_made_again(synthetic_tree: Path, unbroken: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "pack"
    run_until_killed(synthetic_tree, out, "fgclep.datasets.pack_files:PackFolder.commit", 3)
    with (out / "00001.i16").open("r+b") as file:
        file.write(b"damage")
    run_pack(synthetic_tree, out)
    assert contents(out) == unbroken


@pytest.mark.parametrize("calls", [1, 60])
def test_a_full_disk_is_told_and_keeps_what_is_finished(
    calls: int, synthetic_tree: Path, unbroken: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "pack"
    written: list[bytes] = []
    original = pack_files._HashedFile.write

    def write(self: Any, content: bytes) -> None:
        written.append(content)
        if len(written) == calls:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(self, content)

    monkeypatch.setattr(pack_files._HashedFile, "write", write)
    with pytest.raises(FgclepError, match=r"could not be written: No space left on device\. Finished shards are kept"):
        run_pack(synthetic_tree, out)
    assert not list(out.glob("*.part"))
    monkeypatch.undo()
    run_pack(synthetic_tree, out)
    assert contents(out) == unbroken


def test_a_folder_that_may_not_be_written_is_told(
    synthetic_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(FgclepError, match="may not be written: Read-only file system"):
        run_pack(synthetic_tree, tmp_path / "pack")


def test_ctrl_c_keeps_what_is_finished(
    synthetic_tree: Path, unbroken: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "pack"
    commits: list[int] = []
    original = pack_files.PackFolder.commit

    def commit(self: pack_files.PackFolder, number: int, entry: pack_files.ShardEntry) -> None:
        original(self, number, entry)
        commits.append(number)
        if len(commits) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(pack_files.PackFolder, "commit", commit)
    with pytest.raises(InterruptedWork, match="stopped after 14 of 40 records"):
        run_pack(synthetic_tree, out)
    run_pack(synthetic_tree, out)
    assert commits == [0, 1, 2, 3, 4, 5]
    assert contents(out) == unbroken


class TestRefusals:
    def test_a_folder_with_other_things_is_left_alone(self, synthetic_tree: Path, tmp_path: Path) -> None:
        (tmp_path / "mine.txt").write_text("keep")
        for restart in (False, True):
            with pytest.raises(UsageError, match="holds other things than a pack"):
                run_pack(synthetic_tree, tmp_path, restart=restart)
        with pytest.raises(UsageError, match="is a file"):
            run_pack(synthetic_tree, tmp_path / "mine.txt")
        assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

    def test_a_restart_leaves_what_is_not_of_the_pack(
        self, synthetic_tree: Path, unbroken: dict[str, bytes], tmp_path: Path
    ) -> None:
        run_pack(synthetic_tree, tmp_path / "pack", fs_hz=100)
        (tmp_path / "pack" / "notes.txt").write_text("mine")
        run_pack(synthetic_tree, tmp_path / "pack", restart=True)
        assert contents(tmp_path / "pack") == unbroken | {"notes.txt": b"mine"}

    @pytest.mark.parametrize("finished", [False, True])
    def test_another_source_or_rate_is_refused(self, finished: bool, synthetic_tree: Path, tmp_path: Path) -> None:
        out = tmp_path / "pack"
        if finished:
            run_pack(synthetic_tree, out)
        else:
            run_until_killed(synthetic_tree, out, "fgclep.datasets.pack_files:PackFolder.commit", 1)
        copy = Path(shutil.copytree(synthetic_tree, tmp_path / "copy"))
        before = contents(out)
        with pytest.raises(UsageError, match="pack with another source"):
            run_pack(copy, out)
        with pytest.raises(UsageError, match="pack with another resampled_to_hz None, now 100"):
            run_pack(synthetic_tree, out, fs_hz=100)
        assert contents(out) == before

    def test_a_source_that_changed_is_refused(self, synthetic_tree: Path, tmp_path: Path) -> None:
        tree, out = Path(shutil.copytree(synthetic_tree, tmp_path / "tree")), tmp_path / "pack"
        first = next(open_dataset(tree).iter_infos())
        run_until_killed(tree, out, "fgclep.datasets.pack_files:PackFolder.commit", 2)
        samples = tree / f"{first.path}.dat"
        times = samples.stat()
        samples.write_bytes(samples.read_bytes()[::-1])
        os.utime(samples, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
        with pytest.raises(DataError, match="has changed since shard 0"):
            run_pack(tree, out)
        run_pack(tree, out, restart=True)
        table = tree / "machine_measurements.csv"
        table.write_text(table.read_text().replace("rhythm", "Rhythm"))
        with pytest.raises(DataError, match="has changed since it was packed"):
            run_pack(tree, out)

    def test_a_source_that_shrinks_meanwhile_is_told(
        self, synthetic_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = type(open_dataset(synthetic_tree))
        original = source.iter_infos
        monkeypatch.setattr(source, "iter_infos", lambda self: islice(original(self), 39))
        with pytest.raises(DataError, match="gave 39 records where 40 were listed"):
            run_pack(synthetic_tree, tmp_path / "pack")
        assert not (tmp_path / "pack" / "pack.json").exists()

    def test_two_runs_do_not_write_one_pack(self, synthetic_tree: Path, tmp_path: Path) -> None:
        out = tmp_path / "pack"
        out.mkdir()
        descriptor = os.open(out, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            with pytest.raises(FgclepError, match="Another process packs into"):
                run_pack(synthetic_tree, out)
        finally:
            os.close(descriptor)
        assert not list(out.iterdir())

    def test_an_id_listed_twice_is_refused(self, synthetic_tree: Path, tmp_path: Path) -> None:
        tree = Path(shutil.copytree(synthetic_tree, tmp_path / "tree"))
        table = tree / "record_list.csv"
        lines = table.read_text().splitlines()
        table.write_text("\n".join([*lines, lines[1]]) + "\n")
        with pytest.raises(DataError, match="lists 1 record ids more than once, such as mimic-iv-ecg:40000000"):
            run_pack(tree, tmp_path / "pack")
        assert not (tmp_path / "pack").exists()
