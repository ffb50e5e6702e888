"""The machine says no: a disk that fills up, a folder that may not be written, another builder. The old index stays."""

import fcntl
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fgclep.errors import FgclepError
from indexer import publish as publish_module
from indexer.archive import export_version
from indexer.build import run_build
from indexer.home import current_version, index_dir, resolve_index
from indexer.open import open_index
from indexer.publish import LOCK, build_lock
from indexer.verify import verify_index
from tests.indexer.fakes import fake_plan

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


_BUILD = """
import sys
from pathlib import Path
from indexer.build import run_build
from tests.indexer.fakes import FakeDataset, fake_plan
home = Path(sys.argv[1])
run_build(fake_plan(home, FakeDataset(home, 3000)))
"""


def test_two_processes_at_once_give_one_index_and_one_clear_refusal(tmp_path: Path) -> None:
    """The loser is told which process builds; the winner's index is sound, whoever wins."""
    command = [sys.executable, "-c", _BUILD, str(tmp_path)]
    both = [subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [(process.communicate()[1], process.returncode) for process in both]
    refused = [said for said, code in ends if code != 0]
    for said in refused:
        assert re.search(r"FgclepError: Process \d+ is building the index demo right now", said)
    assert len(refused) <= 1
    assert all(check.passed for check in verify_index(resolve_index("demo", tmp_path)))


def test_the_owner_of_a_lock_is_awaited_between_its_taking_and_its_signing(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / LOCK, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    signing = threading.Timer(0.3, os.pwrite, (descriptor, b"4711\n", 0))
    signing.start()
    with pytest.raises(FgclepError, match="Process 4711 is building"), build_lock(tmp_path):
        pass
    signing.join()
    os.close(descriptor)


@contextmanager
def folder_for_anybody() -> Iterator[Path]:
    """A folder that every user may pass through; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def test_a_folder_that_may_not_be_written_is_told_and_can_be_read() -> None:
    with folder_for_anybody() as home:
        version = run_build(fake_plan(home))
        for path in (home, *(path for path in home.rglob("*") if path.is_dir())):
            path.chmod(0o555)
        try:
            with as_ordinary_user():
                assert open_index(version, verify_checksums=True).manifest.counts.indexed == 90
                assert all(check.passed for check in verify_index(version))
                for plan in (fake_plan(home, seed=1), fake_plan(home, name="other")):
                    with pytest.raises(FgclepError, match="may not be written") as refused:
                        run_build(plan)
                    assert "FGCLEP_HOME" in refused.value.hint
        finally:
            for path in (home, *(path for path in home.rglob("*") if path.is_dir())):
                path.chmod(0o755)
        assert current_version(index_dir(home, "demo")) == version


def test_an_archive_s_folder_that_may_not_be_written_is_named() -> None:
    pytest.importorskip("zstandard", reason="zstandard is not installed")
    with folder_for_anybody() as home:
        version, out = run_build(fake_plan(home)), home / "out"
        out.mkdir()
        out.chmod(0o555)
        with as_ordinary_user(), pytest.raises(FgclepError, match="may not be written") as refused:
            export_version(version, out / "demo.tar.zst")
    assert f"permissions of {out}," in refused.value.hint and "FGCLEP_HOME" not in refused.value.hint


def test_a_new_index_is_on_the_disk_with_all_folders_above_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(publish_module, "sync_directory", synced.append)
    directory = index_dir(tmp_path / "home", "demo")
    for _ in range(2):
        with build_lock(directory):
            pass
        assert sorted(synced) == [tmp_path, tmp_path / "home", directory.parent]


@contextmanager
def as_ordinary_user() -> Iterator[None]:
    """Permissions mean nothing to root, so be nobody for a while where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


_FILL_DISK = """
import sys
from pathlib import Path
from fgclep.errors import FgclepError
from indexer import plan
from indexer.build import run_build
from indexer.home import current_version, index_dir
from indexer.verify import verify_index
from tests.indexer.fakes import FakeDataset, fake_plan
home = Path(sys.argv[1])
old = run_build(fake_plan(home, FakeDataset(home, 10)))
plan.free_bytes = lambda directory: (directory, 10**12)  # as if the space had gone after the check
try:
    run_build(fake_plan(home, FakeDataset(home, 3000), seed=1))
except FgclepError as error:
    assert "The disk is full" in error.message, error.message
    assert "Repeat the same command" in error.hint
else:
    sys.exit("the disk did not fill")
assert current_version(index_dir(home, "demo")) == old
assert all(check.passed for check in verify_index(old))
"""


@pytest.mark.parametrize("kilobytes", [800, 1200, 1800])
def test_a_disk_that_fills_up_on_the_way(kilobytes: int, tmp_path: Path) -> None:
    """A real one: a small file system in memory, full at another step of the build each time."""
    command = f'mount -t tmpfs -o size={kilobytes}k tmpfs "$0" && exec "$@"'
    unshared = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", command, str(tmp_path)]
    try:
        subprocess.run([*unshared, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a file system in memory cannot be mounted here: {error}")
    done = subprocess.run(
        [*unshared, sys.executable, "-c", _FILL_DISK, str(tmp_path)], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
