"""kill -9 at any step: a reader sees the old index or the new one, and the next run finishes with the same bytes."""

import multiprocessing
import signal
import time
from pathlib import Path

import pytest

from indexer.build import run_build
from indexer.home import index_dir, resolve_index
from indexer.open import open_index
from tests.indexer.crash_build import build_and_die
from tests.indexer.fakes import fake_plan

# A fork server imports everything once; each build is still a whole process that SIGKILL ends.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.indexer.crash_build", "indexer.backends.faiss_flat"])

OLD, NEW = 0, 1  # seeds of the model of the index that is there and of the build that is killed


def build_until_killed(home: Path, target: str, call: int, when: str, workers: int = 0) -> list[int]:
    """Run a build in a process of its own until it kills itself; return the ids of its workers."""
    report = home / "workers.txt"
    arguments = (home, target, call, when, NEW, workers, report)
    process = PROCESSES.Process(target=build_and_die, args=arguments)
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    return [int(word) for word in report.read_text().split()]


def contents(version_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in version_dir.rglob("*.npy")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("undisturbed")
    return run_build(fake_plan(home, seed=NEW))


@pytest.mark.parametrize(
    ("target", "call", "when", "current"),
    [
        ("indexer.staging:write_durably", 1, "before", OLD),  # before the plan is written
        ("indexer.staging:write_durably", 7, "before", OLD),  # inside the second shard
        ("indexer.staging:np.save", 5, "after", OLD),  # inside a file of the third shard
        ("indexer.staging:Staging.commit", 7, "after", OLD),  # after the last shard
        ("indexer.assemble:write_store", 1, "after", OLD),  # inside assembling
        ("indexer.publish:sync_tree", 1, "after", OLD),  # complete, not yet moved
        ("indexer.publish:point_to", 1, "before", OLD),  # moved, not yet pointed to
        ("indexer.home:Path.replace", 30, "before", OLD),  # the pointer written beside, not yet renamed
        ("indexer.publish:point_to", 1, "after", NEW),
        ("indexer.build:become_default", 1, "before", NEW),  # pointed to, staging not yet removed
        ("indexer.staging:Path.unlink", 1, "after", NEW),  # staging half removed
    ],
)
def test_killed_build(target: str, call: int, when: str, current: int, undisturbed: Path, tmp_path: Path) -> None:
    versions = {OLD: run_build(fake_plan(tmp_path, seed=OLD))}
    build_until_killed(tmp_path, target, call, when)

    seen = open_index(resolve_index("demo", tmp_path), verify_checksums=True)
    expected = fake_plan(tmp_path, seed=current).embedder.model.fingerprint
    assert seen.manifest.model.fingerprint == expected

    finished = run_build(fake_plan(tmp_path, seed=NEW))
    after = open_index(resolve_index("demo", tmp_path), verify_checksums=True)
    assert after.path == finished != versions[OLD]
    assert contents(finished) == contents(undisturbed)
    assert after.manifest.counts == open_index(undisturbed).manifest.counts
    left = {path.name for path in index_dir(tmp_path, "demo").iterdir() if not path.name.startswith(".")}
    assert left == {"CURRENT", "LOCK", "versions"}


def running(pid: int) -> bool:
    """Tell whether a process runs; one that ended and was not collected yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_worker_processes_end_with_a_killed_build(tmp_path: Path) -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc to look at processes")
    workers = build_until_killed(tmp_path, "indexer.staging:Staging.commit", 2, "after", workers=2)
    assert len(workers) == 2
    deadline = time.monotonic() + 10
    while any(map(running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(running, workers))
