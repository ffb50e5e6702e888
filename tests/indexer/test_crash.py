"""kill -9 at any step: a reader sees the old index or the new one, and the next run finishes with the same bytes."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from fgclep.errors import DataError
from indexer.build import run_build
from indexer.home import index_dir, resolve_index
from indexer.open import open_index
from indexer.store import RecordRow
from indexer.versions import remove_old
from tests.indexer.crash_build import run_and_die, run_job
from tests.indexer.fakes import fake_plan

# A fork server imports everything once; each run is still a whole process that SIGKILL ends.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.indexer.crash_build", "indexer.backends.faiss_flat"])

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "1"))  # of kills at random times, for each job
PATIENCE_S = 300

JOBS = ("build", "add", "rebuild")
OLD, NEW = "old", "new"


def run_until_killed(job: str, home: Path, target: str, call: int, when: str, workers: int = 0) -> list[int]:
    """Run a job in a process of its own until it kills itself; return the ids of its workers."""
    report = home / "workers.txt"
    process = PROCESSES.Process(target=run_and_die, args=(job, home, target, call, when, workers, report))
    process.start()
    process.join(PATIENCE_S)
    assert process.exitcode == -signal.SIGKILL
    return [int(word) for word in report.read_text().split()]


def contents(version_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in version_dir.rglob("*.npy")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What each job gives when nothing disturbs it."""
    homes = {job: tmp_path_factory.mktemp(job) for job in JOBS}
    for home in homes.values():
        run_build(fake_plan(home))
    return {job: run_job(job, home) for job, home in homes.items()}


def run_again(job: str, home: Path) -> Path:
    try:
        return run_job(job, home)
    except DataError as error:  # killed at the very end of an addition: all that is left is what to clean up
        assert job == "add" and "has nothing new" in error.message
        remove_old(index_dir(home, "demo"), 2)
        return resolve_index("demo", home)


def check_finishes(job: str, home: Path, old: Path, undisturbed: Path) -> None:
    """Run a job again after it was killed: its result is that of an undisturbed run, and nothing is left over."""
    finished = run_again(job, home)
    after = open_index(resolve_index("demo", home), verify_checksums=True)
    assert after.path == finished != old
    assert contents(finished) == contents(undisturbed)
    expected = open_index(undisturbed)
    assert after.manifest.counts == expected.manifest.counts
    assert list(after.store.record_ids()) == list(expected.store.record_ids())
    left = {path.name for path in index_dir(home, "demo").iterdir() if not path.name.startswith(".")}
    assert left == {"CURRENT", "HISTORY", "LOCK", "versions"}


STAGES = [
    ("indexer.staging:write_durably", 1, "before", OLD),  # before the plan is written
    ("indexer.reading:Reader.prepare", 3, "after", OLD),  # read, not yet encoded
    ("indexer.staging:write_durably", 7, "before", OLD),  # inside the second shard
    ("indexer.staging:np.save", 5, "after", OLD),  # inside a file of the third shard
    ("indexer.embed:Staging.commit", 4, "after", OLD),
    ("indexer.assemble:_write_store", 1, "before", OLD),  # after the last shard
    ("indexer.assemble:_write_store", 1, "after", OLD),
    ("indexer.assemble:_write_faiss", 1, "before", OLD),
    ("indexer.assemble:_write_faiss", 1, "after", OLD),
    ("indexer.assemble:write_durably", 1, "after", OLD),  # the manifest
    ("indexer.publish:sync_tree", 1, "after", OLD),  # complete, not yet moved
    ("indexer.publish:point_to", 1, "before", OLD),  # moved, not yet pointed to
    ("indexer.publish:replace_line", 1, "after", OLD),  # the history written, the pointer not
    ("indexer.publish:replace_line", 2, "after", NEW),  # the pointer replaced
    ("indexer.build:become_default", 1, "before", NEW),  # pointed to, staging not yet removed
    ("indexer.staging:Path.unlink", 2, "after", NEW),  # staging half removed; the first clears it at the start
]


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize(("target", "call", "when", "current"), STAGES)
def test_killed_at_a_stage(
    job: str, target: str, call: int, when: str, current: str, undisturbed: dict[str, Path], tmp_path: Path
) -> None:
    old = run_build(fake_plan(tmp_path))
    run_until_killed(job, tmp_path, target, call, when)
    seen = open_index(resolve_index("demo", tmp_path), verify_checksums=True)
    assert (seen.path == old) == (current == OLD)
    assert contents(seen.path) == contents(old if current == OLD else undisturbed[job])
    check_finishes(job, tmp_path, old, undisturbed[job])


@pytest.mark.parametrize("number", range(ROUNDS))
@pytest.mark.parametrize("job", JOBS)
def test_killed_at_random_times(job: str, number: int, undisturbed: dict[str, Path], tmp_path: Path) -> None:
    """Kill the run again and again, each time after a random while, until one gets through."""
    old = run_build(fake_plan(tmp_path))
    rng = random.Random(f"{job} {number}")
    longest = 0.02
    while True:
        process = PROCESSES.Process(target=run_job, args=(job, tmp_path))
        process.start()
        time.sleep(rng.uniform(0, longest))
        process.kill()
        process.join(PATIENCE_S)
        index = open_index(resolve_index("demo", tmp_path), verify_checksums=True)
        assert contents(index.path) == contents(old if index.path == old else undisturbed[job])
        assert index.store.count(RecordRow) == index.manifest.counts.indexed == len(index.keys)
        index.close()
        if process.exitcode == 0 or index.path != old:
            break
        longest *= 1.3
    # A job that got through leaves nothing to go on with; running it again would be another job.
    if process.exitcode != 0:
        check_finishes(job, tmp_path, old, undisturbed[job])


def running(pid: int) -> bool:
    """Tell whether a process runs; one that ended and was not collected yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_worker_processes_end_with_a_killed_build(tmp_path: Path) -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc to look at processes")
    workers = run_until_killed("build", tmp_path, "indexer.staging:Staging.commit", 2, "after", workers=2)
    assert len(workers) == 2
    deadline = time.monotonic() + 10
    while any(map(running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(running, workers))
