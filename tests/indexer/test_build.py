"""Builds: counts add up, resuming changes nothing, and every way to fail leaves the old index in place."""

import errno
import json
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from fgclep import durable as durable_module
from fgclep.errors import DataError, FgclepError, InterruptedWork, TooManyRejectsError, UsageError
from fgclep.pool import map_in_order
from fgclep.pretrained import load_model
from fgclep.record import EcgRecord, RecordInfo, RecordReject
from fgclep.signal import StoredEcg
from indexer import assemble as assemble_module
from indexer import build as build_module
from indexer import plan as plan_module
from indexer import staging as staging_module
from indexer.build import BuildPlan, open_for_model, plan_build, run_build
from indexer.embed import ReadAndEncode, Tally, load_embedder
from indexer.home import current_version, index_dir, resolve_index
from indexer.open import open_index
from indexer.reading import Chunk, Reader
from indexer.sources import Sources
from tests.indexer.fakes import (
    PROCESSOR,
    FakeDataset,
    FakeModel,
    InterruptedDataset,
    fake_embedder,
    fake_plan,
    forbid_gpu,
)


def files(version_dir: Path) -> dict[str, bytes]:
    """The bytes that must not depend on how a build went."""
    return {path.name: path.read_bytes() for path in version_dir.rglob("*.npy")}


def test_vectors_rows_and_counts_are_those_of_the_data(tmp_path: Path) -> None:
    dataset = FakeDataset(tmp_path, size=101, absent=5, odd=20)
    index = open_index(run_build(fake_plan(tmp_path, dataset)), verify_checksums=True)
    counts = index.manifest.counts
    assert (counts.listed, counts.missing, counts.read, counts.indexed, counts.rejected) == (101, 5, 96, 86, 10)
    assert counts.rejected_by_reason == {"flat": 9, "unreadable": 1}
    assert len(index.vectors) == len(index.keys) == 86
    rows = index.store.records(index.keys.tolist())
    for key, vector in zip(index.keys.tolist(), index.vectors, strict=True):
        info = next(info for info in dataset.iter_infos() if info.record_id == rows[key]["record_id"])
        expected = FakeModel().encode_ecg(dataset.read(info).waveform[None])[0]
        np.testing.assert_allclose(vector, expected, atol=1e-6)
    details = {row["record_id"]: row["detail"] for row in index.store.rejects()}
    assert details["fake:20"] == "ZeroDivisionError: nobody foresaw this"
    assert index.manifest.self_test["recall_at_10"] == 1


def test_a_build_is_tested_by_what_searches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_gpu(monkeypatch)
    assert open_index(run_build(fake_plan(tmp_path)), backend="numpy").manifest.self_test["backend"] == "numpy"


def test_worker_processes_give_the_same_bytes(tmp_path: Path) -> None:
    alone = run_build(fake_plan(tmp_path, name="alone"))
    together = run_build(fake_plan(tmp_path, name="together", workers=2))
    assert files(alone) == files(together)


def on_device(plan: BuildPlan) -> BuildPlan:
    """The same build with a model that runs on another device than the CPU, as far as the build can tell."""
    return replace(plan, embedder=replace(plan.embedder, device="cuda"))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_device_beside_the_readers_gives_the_same_bytes(workers: int, tmp_path: Path) -> None:
    alone = run_build(fake_plan(tmp_path, name="alone"))
    beside = run_build(on_device(fake_plan(tmp_path, name="beside", workers=workers)))
    assert files(alone) == files(beside)
    assert open_index(alone).manifest.counts == open_index(beside).manifest.counts


def test_a_device_that_fails_stops_the_build_and_resuming_gives_the_same_bytes(tmp_path: Path) -> None:
    whole = run_build(fake_plan(tmp_path, name="whole"))
    plan, calls = on_device(fake_plan(tmp_path)), []

    def fail_late(prepared: np.ndarray) -> np.ndarray:
        calls.append(1)
        if len(calls) == 7:
            raise FgclepError("The device fell off the bus.")
        return FakeModel().encode_ecg(prepared)

    with pytest.raises(FgclepError, match="fell off"):
        run_build(replace(plan, embedder=replace(plan.embedder, encode=fail_late)))
    tallies: list[Tally] = []
    resumed = run_build(on_device(fake_plan(tmp_path)), lambda tally: tallies.append(replace(tally)))
    assert files(resumed) == files(whole)
    assert tallies[0].resumed == 48


def test_a_real_model_gives_the_same_bytes_in_any_number_of_processes(
    synthetic_tree: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    embedder = load_embedder(str(tiny_bundle))
    dataset = open_for_model(synthetic_tree, embedder)
    built = [
        run_build(plan_build(dataset, embedder, f"w{workers}", home=tmp_path, workers=workers, batch_size=16))
        for workers in (0, 2)
    ]
    assert files(built[0]) == files(built[1])
    index = open_index(built[0])
    assert index.manifest.options["arithmetic"] == embedder.arithmetic
    processor, model = embedder.processor, load_model(tiny_bundle)
    records = [dataset.read(info) for info in dataset.iter_infos()]
    plain = model.encode_ecg(np.stack([processor.prepare(record.waveform, record.fs_hz) for record in records]))
    assert 1 - (plain * index.vectors).sum(axis=1).min() < 1e-3


@dataclass(frozen=True)
class ManyKinds:
    """A data set's records in turn as they are, at another gain, cut, as float32, or not to be used."""

    records: Sequence[EcgRecord]

    def read(self, info: RecordInfo) -> EcgRecord:
        number = int(info.study_id)
        record = self.records[number % len(self.records)]
        kind = "as it is, gain, as it is, short, float, as it is, reject".split(", ")[number % 7]
        if kind == "reject":
            raise RecordReject(info.record_id, "flat", "made so")
        units = record.units[:, :3000] if kind == "short" else record.units
        gain = record.units_per_mv * (2 if kind == "gain" else 1)
        stored = StoredEcg(info, units, gain, record.fs_hz, ())
        return EcgRecord(info, stored.waveform, record.fs_hz) if kind == "float" else stored


def test_records_of_many_kinds_in_one_batch_get_each_its_own_vector(synthetic_tree: Path, tiny_bundle: Path) -> None:
    embedder = load_embedder(str(tiny_bundle), exact=True)
    dataset = open_for_model(synthetic_tree, embedder)
    kinds = ManyKinds([dataset.read(info) for info in dataset.iter_infos()])
    infos = [RecordInfo(f"x:{number}", "x", "1", str(number), "1") for number in range(40)]
    work = ReadAndEncode(Reader(Sources((kinds,)), embedder.processor, as_stored=True), embedder, 20)  # type: ignore
    model, usable = load_model(tiny_bundle), [number for number in range(40) if number % 7 != 6]
    records = [kinds.read(infos[number]) for number in usable]
    expected = model.encode_ecg(np.stack([embedder.processor.prepare(r.waveform, r.fs_hz) for r in records]))
    for first in (0, 20, 1):  # the second batch of a worker is put where the first was, and starts with another kind
        items = [(1000 + number, infos[number]) for number in range(first, first + 20)]
        content = work(Chunk(0, items, last=False))
        keys = [number for number in usable if first <= number < first + 20]
        assert content.keys.tolist() == [1000 + number for number in keys]
        assert [json.loads(line)["key"] for line in content.records.splitlines()] == content.keys.tolist()
        assert len(content.rejects) == 20 - len(keys)
        own = expected[[usable.index(number) for number in keys]]
        np.testing.assert_allclose(content.vectors, own, atol=1e-5)


def test_ctrl_c_while_a_worker_starts_does_not_kill_it(tmp_path: Path) -> None:
    dataset = InterruptedDataset(tmp_path, 20)
    assert open_index(run_build(fake_plan(tmp_path, dataset, workers=1))).manifest.counts.read == 20


def test_workers_read_ahead_a_few_chunks_only(tmp_path: Path) -> None:
    dataset, taken = FakeDataset(tmp_path, 400), []

    def chunks():
        for number, info in enumerate(dataset.iter_infos()):
            taken.append(number)
            yield Chunk(0, [(number, info)], last=False)

    reader = Reader(Sources((dataset,)), PROCESSOR)
    for given, (chunk, content) in enumerate(map_in_order(reader, chunks(), workers=1)):
        assert chunk.items[0][0] == given and len(content.keys) + len(content.rejects) == 1
        assert len(taken) - given <= 4
    assert len(taken) == 400


def test_waveforms_are_let_go_once_they_are_encoded(tmp_path: Path) -> None:
    plan, seen = fake_plan(tmp_path, shard_size=1000), []

    def encode(prepared: np.ndarray) -> np.ndarray:
        seen.append(weakref.ref(prepared))
        assert sum(reference() is not None for reference in seen) <= 2
        return FakeModel().encode_ecg(prepared)

    run_build(replace(plan, embedder=replace(plan.embedder, encode=encode)))
    assert len(seen) == 13


def test_float16_halves_the_vectors_and_keeps_them(tmp_path: Path) -> None:
    wide = open_index(run_build(fake_plan(tmp_path, name="wide")))
    narrow = open_index(run_build(fake_plan(tmp_path, name="narrow", dtype="float16")))
    assert narrow.vectors.dtype == np.float16
    np.testing.assert_allclose(wide.vectors, narrow.vectors, atol=1e-3)


def test_a_limit_is_counted(tmp_path: Path) -> None:
    counts = open_index(run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 100, absent=2), limit=20))).manifest.counts
    assert (counts.listed, counts.missing, counts.beyond_limit, counts.read) == (100, 2, 78, 20)


def test_a_second_build_is_a_new_version_and_the_first_index_is_the_default(tmp_path: Path) -> None:
    first = run_build(fake_plan(tmp_path))
    second = run_build(fake_plan(tmp_path, seed=1))
    run_build(fake_plan(tmp_path, name="another"))
    assert (
        first != second
        and open_index(first).manifest.model.fingerprint != open_index(second).manifest.model.fingerprint
    )
    assert resolve_index(None, tmp_path) == second
    assert not (index_dir(tmp_path, "demo") / "staging").exists()


def stop_after(shards: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the commit after `shards` finished ones fail."""
    commit, done = staging_module.Staging.commit, []

    def failing(self, number, content):
        if len(done) == shards:
            raise error
        done.append(number)
        return commit(self, number, content)

    monkeypatch.setattr(staging_module.Staging, "commit", failing)


def test_resuming_reads_only_what_is_left_and_gives_the_same_bytes(tmp_path: Path, monkeypatch) -> None:
    whole = run_build(fake_plan(tmp_path, name="whole"))
    with monkeypatch.context() as patch:
        stop_after(3, KeyboardInterrupt(), patch)
        with pytest.raises(InterruptedWork):
            run_build(fake_plan(tmp_path))
    assert 0 < fake_plan(tmp_path).disk_bytes < fake_plan(tmp_path, name="fresh").disk_bytes
    read: list[str] = []
    original = FakeDataset.read
    monkeypatch.setattr(FakeDataset, "read", lambda self, info: read.append(info.study_id) or original(self, info))
    last: list[Tally] = []
    resumed = run_build(fake_plan(tmp_path), lambda tally: last.append(replace(tally)))
    assert [int(study) for study in read] == list(range(48, 100))
    assert (last[0].resumed, last[-1].done, last[-1].rejected) == (48, 100, 10)
    assert files(resumed) == files(whole)
    assert open_index(resumed).manifest.counts == open_index(whole).manifest.counts


def test_a_damaged_shard_is_made_again(tmp_path: Path, monkeypatch) -> None:
    whole = run_build(fake_plan(tmp_path, name="whole"))
    with monkeypatch.context() as patch:
        stop_after(4, KeyboardInterrupt(), patch)
        with pytest.raises(InterruptedWork):
            run_build(fake_plan(tmp_path))
    shards = index_dir(tmp_path, "demo") / "staging" / "shards"
    (shards / "000001.vectors.npy").write_bytes(b"damaged")
    (shards / "000002.json").write_text("{")
    assert files(run_build(fake_plan(tmp_path))) == files(whole)


@pytest.mark.parametrize("change", [{"seed": 1}, {"limit": 50}, {"dtype": "float16"}, {"batch_size": 4}])
def test_other_settings_are_refused_until_restart(change: dict, tmp_path: Path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        stop_after(1, KeyboardInterrupt(), patch)
        with pytest.raises(InterruptedWork):
            run_build(fake_plan(tmp_path))
    with pytest.raises(UsageError, match="unfinished build with other settings") as refused:
        run_build(fake_plan(tmp_path, **change))
    assert "--restart" in refused.value.hint
    fresh = run_build(fake_plan(tmp_path, **change, resume=False))
    assert files(fresh) == files(run_build(fake_plan(tmp_path, name="fresh", **change)))


def test_other_arithmetic_is_refused_until_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_after(1, KeyboardInterrupt(), patch)
        with pytest.raises(InterruptedWork):
            run_build(fake_plan(tmp_path))
    plan = fake_plan(tmp_path)
    with pytest.raises(UsageError, match="arithmetic 'float32', now 'cuda bfloat16'"):
        run_build(replace(plan, embedder=replace(plan.embedder, arithmetic="cuda bfloat16")))


def test_a_run_that_goes_on_keeps_the_batch_size_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_build(fake_plan(tmp_path, name="whole"))
    with monkeypatch.context() as patch:
        stop_after(1, KeyboardInterrupt(), patch)
        with pytest.raises(InterruptedWork):
            run_build(fake_plan(tmp_path))
    resumed = fake_plan(tmp_path, batch_size=None)
    assert resumed.embed.batch_size == 8
    assert files(run_build(resumed)) == files(whole)
    assert fake_plan(tmp_path, batch_size=None, resume=False).embed.batch_size == 512


def test_data_that_changed_between_is_refused(tmp_path: Path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        stop_after(2, KeyboardInterrupt(), patch)
        with pytest.raises(InterruptedWork):
            run_build(fake_plan(tmp_path))
    with pytest.raises(DataError, match="lists other records than when shard 0"):
        run_build(fake_plan(tmp_path, FakeDataset(tmp_path, absent=1)))


def test_too_many_rejects_publish_nothing_and_can_be_allowed(tmp_path: Path) -> None:
    with pytest.raises(TooManyRejectsError, match=r"10 of 100 records were rejected \(flat 10\)") as refused:
        run_build(fake_plan(tmp_path, max_reject_rate=0.05))
    assert not (index_dir(tmp_path, "demo") / "CURRENT").exists()
    assert "add --restart" in refused.value.hint
    allowed = float(refused.value.hint.split()[-1].rstrip("."))
    assert open_index(run_build(fake_plan(tmp_path, max_reject_rate=allowed))).manifest.counts.rejected == 10


def test_mended_files_are_read_again_after_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(FakeDataset, "read", lambda self, info: 1 / 0)
        with pytest.raises(DataError, match=r"No record of .* could be used: unreadable 20") as refused:
            run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 20), max_reject_rate=1.0))
    assert "add --restart" in refused.value.hint
    mended = run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 20), resume=False))
    assert open_index(mended).manifest.counts.indexed == 18


def test_nothing_to_index(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="10 are listed, the files of 10 are missing"):
        fake_plan(tmp_path, FakeDataset(tmp_path, size=10, absent=10))


def test_a_model_without_unit_vectors_is_refused(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path)
    broken = replace(plan.embedder, encode=lambda prepared: np.full((len(prepared), 8), np.nan, np.float32))
    with pytest.raises(FgclepError, match="norms nan"):
        run_build(replace(plan, embedder=broken))


def no_space(*arguments: object, **options: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("module", "function"),
    [
        (durable_module, "sync_directory"),
        (build_module, "write_store"),
        (assemble_module, "_write_faiss"),
        (assemble_module, "_concatenate"),
        (build_module, "publish"),
    ],
)
def test_a_full_disk_keeps_the_old_index_and_the_finished_shards(module, function, tmp_path: Path, monkeypatch) -> None:
    old = run_build(fake_plan(tmp_path))
    with monkeypatch.context() as patch:
        calls: list[int] = []
        original = getattr(module, function)

        def late(*arguments, **options):
            calls.append(1)
            limit = 10 if function == "sync_directory" else 0  # let the plan and two shards through
            return original(*arguments, **options) if len(calls) <= limit else no_space()

        patch.setattr(module, function, late)
        with pytest.raises(FgclepError, match="The disk is full") as failed:
            run_build(fake_plan(tmp_path, seed=1))
    assert "Repeat the same command" in failed.value.hint and failed.value.exit_code == 1
    assert current_version(index_dir(tmp_path, "demo")) == old
    open_index(old, verify_checksums=True)
    tallies: list[Tally] = []
    new = run_build(fake_plan(tmp_path, seed=1), lambda tally: tallies.append(replace(tally)))
    assert not tallies or tallies[0].resumed >= 32
    assert current_version(index_dir(tmp_path, "demo")) == new != old


def test_a_disk_too_small_is_told_before_anything_is_written(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(plan_module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(FgclepError, match="needs about"):
        fake_plan(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_real_full_device_is_reported_as_such(tmp_path: Path) -> None:
    """/dev/full is one: what is raised must be what `run_build` recognises."""
    faiss_flat = pytest.importorskip("indexer.backends.faiss_flat")
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(OSError) as failed:
        faiss_flat.write_faiss_index(np.ones((1000, 8), np.float32), Path("/dev/full"))
    assert failed.value.errno == errno.ENOSPC


def test_a_second_builder_is_told_and_harms_nothing(tmp_path: Path) -> None:
    messages: list[str] = []

    def build_again(tally: Tally) -> None:
        if not messages:
            with pytest.raises(FgclepError, match=f"Process {os.getpid()} is building the index demo") as refused:
                run_build(fake_plan(tmp_path))
            messages.append(refused.value.message)

    assert open_index(run_build(fake_plan(tmp_path), build_again)).manifest.counts.indexed == 90
    assert messages


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    index_dir(tmp_path, "demo").mkdir(parents=True)
    (index_dir(tmp_path, "demo") / "LOCK").write_text("999999\n")
    run_build(fake_plan(tmp_path))


def test_an_id_that_is_listed_twice_is_told_before_anything_is_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(FakeDataset, "read", lambda self, info: pytest.fail("a record was read"))
    with pytest.raises(DataError, match="lists 1 record ids more than once, such as fake:17"):
        fake_plan(tmp_path, FakeDataset(tmp_path, 1000, twice=17))
    with pytest.raises(DataError, match="such as fake:3"):
        fake_plan(tmp_path, FakeDataset(tmp_path, 1000, absent=5, twice=3))
    assert list(tmp_path.iterdir()) == []


def test_shards_that_a_killed_removal_left_are_not_taken_for_ours(tmp_path: Path, monkeypatch) -> None:
    """Another model's shards cover the same records; without their plan nothing tells them from our own."""
    with monkeypatch.context() as patch:
        stop_after(3, KeyboardInterrupt(), patch)
        with pytest.raises(InterruptedWork):
            run_build(fake_plan(tmp_path, seed=1))
    (index_dir(tmp_path, "demo") / "staging" / "plan.json").unlink()
    assert files(run_build(fake_plan(tmp_path))) == files(run_build(fake_plan(tmp_path, name="whole")))


@pytest.mark.parametrize("grown", [False, True])
def test_a_run_that_only_had_to_clean_up_is_another_one_once_the_data_grew(
    grown: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(build_module, "become_default", lambda home, name: 1 / 0)
        run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 40)))
    killed = current_version(index_dir(tmp_path, "demo"))
    version = run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 50 if grown else 40)))
    assert (version != killed) == grown and current_version(index_dir(tmp_path, "demo")) == version
    assert open_index(version).manifest.counts.listed == (50 if grown else 40)
    assert not (index_dir(tmp_path, "demo") / "staging").exists()


def interrupt_once(times: int) -> Callable[[Tally], None]:
    sent: list[int] = []

    def press(tally: Tally) -> None:
        while len(sent) < times:
            sent.append(1)
            signal.raise_signal(signal.SIGINT)

    return press


def test_ctrl_c_finishes_the_shard_and_a_second_one_stops_at_once(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(InterruptedWork, match="16 of 100 records are finished") as stopped:
        run_build(fake_plan(tmp_path), interrupt_once(1))
    assert stopped.value.exit_code == 130 and "Repeat the same command" in stopped.value.hint
    with pytest.raises(InterruptedWork, match="stopped at once"):
        run_build(fake_plan(tmp_path), interrupt_once(2))
    assert signal.getsignal(signal.SIGINT) == before
    assert files(run_build(fake_plan(tmp_path))) == files(run_build(fake_plan(tmp_path, name="whole")))


def test_of_two_rates_the_one_that_suits_the_model(shared_data: Path) -> None:
    tree = shared_data / "ptbxl"
    embedder = fake_embedder()
    for wanted, chosen in ((100, 100), (101, 500), (250, 500), (1000, 500)):
        suited = replace(embedder, processor=replace(embedder.processor, fs_hz=wanted))
        assert open_for_model(tree, suited).fs_hz == chosen


_MEASURE = """
import resource, sys
from pathlib import Path
from indexer.build import run_build
from tests.indexer.fakes import FakeDataset, fake_plan
home, size = Path(sys.argv[1]), int(sys.argv[2])
run_build(fake_plan(home, FakeDataset(home, size), shard_size=256, batch_size=64))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    """8,000 more waveforms are 38 MB; the peak may not follow them."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    peaks = []
    for size in (2_000, 10_000):
        command = [sys.executable, "-c", _MEASURE, str(tmp_path / str(size)), str(size)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout) / (2**20 if sys.platform == "darwin" else 2**10))
    print(peaks)
    assert peaks[1] - peaks[0] < 15, f"peak MB: {peaks}"
