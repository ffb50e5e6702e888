"""Verification passes on a sound index and names what is wrong with one whose files agree with a wrong manifest."""

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fgclep.datasets import Dataset
from fgclep.errors import CompatibilityError, CorruptionError, DataError
from indexer import sources
from indexer.build import run_build
from indexer.manifest import describe_files, manifest_json, parse_manifest, read_manifest
from indexer.open import CODES, KEYS, STORE, VECTORS
from indexer.verify import verify_index
from tests.indexer.fakes import FakeDataset, fake_plan, reads_fakes


@pytest.fixture
def version(tmp_path: Path) -> Path:
    return run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 100, absent=4)))


def change_array(name: str, change: Callable[[np.ndarray], object]) -> Callable[[Path], None]:
    def damage(version: Path) -> None:
        array = np.load(version / name)
        change(array)
        np.save(version / name, array)

    return damage


def run_sql(statement: str) -> Callable[[Path], None]:
    def damage(version: Path) -> None:
        with sqlite3.connect(version / STORE) as database:
            database.execute(statement)

    return damage


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_a_sound_index_passes(full: bool, dtype: str, tmp_path: Path) -> None:
    version = run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 100, absent=4), dtype=dtype))
    with reads_fakes(size=100, absent=4):
        checks = {check.name: check for check in verify_index(version, full=full)}
    assert all(check.passed for check in checks.values()), checks
    assert checks["counts"].detail == "100 listed = 4 missing + 87 indexed + 9 rejected"
    assert ("data" in checks) == full
    assert checks["codes"].detail.startswith("87 vectors" if dtype == "int8" else "none")
    assert checks["duplicates"].detail == "no record twice; 0 of 87 vectors equal another's"


@pytest.mark.parametrize(
    ("damage", "failed"),
    [
        (run_sql("DELETE FROM rejects WHERE record_id = 'fake:13'"), "counts"),
        (run_sql("DELETE FROM missing"), "counts"),
        (run_sql("UPDATE missing SET record_id = 'fake:7' WHERE record_id = 'fake:0'"), "duplicates"),
        (run_sql("UPDATE records SET key = 9999 WHERE key = 0"), "keys"),
        (change_array(KEYS, lambda keys: np.copyto(keys[1:2], keys[0])), "keys"),
        (change_array(VECTORS, lambda vectors: np.multiply(vectors[5], 1.5, out=vectors[5])), "norms"),
        (change_array(VECTORS, lambda vectors: vectors[5].fill(np.nan)), "opens"),
        (change_array(VECTORS, lambda vectors: vectors.sort(axis=0)), "search by faiss"),
    ],
)
def test_names_what_is_wrong(damage: Callable[[Path], None], failed: str, version: Path) -> None:
    damage(version)
    manifest = read_manifest(version)
    (version / "manifest.json").write_text(manifest_json(replace(manifest, files=describe_files(version))))
    assert failed in [check.name for check in verify_index(version, full=True) if not check.passed]


def test_bytes_that_are_not_their_vectors_are_named(tmp_path: Path) -> None:
    """A code that is one too high would still find nearly everything: only the bound of its error is gone."""
    version = run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 40), dtype="int8"))
    change_array(CODES, lambda codes: np.add(codes[5, :1], 1, out=codes[5, :1]))(version)
    manifest = read_manifest(version)
    (version / "manifest.json").write_text(manifest_json(replace(manifest, files=describe_files(version))))
    failed = {check.name: check.detail for check in verify_index(version, full=True) if not check.passed}
    assert failed["codes"] == "the bytes of row 5 are not its vector rounded"


def test_copies_of_an_ecg_are_counted(version: Path) -> None:
    change_array(VECTORS, lambda vectors: np.copyto(vectors[7], vectors[5]))(version)
    manifest = read_manifest(version)
    (version / "manifest.json").write_text(manifest_json(replace(manifest, files=describe_files(version))))
    checks = {check.name: check for check in verify_index(version)}
    assert checks["duplicates"].detail == "no record twice; 1 of 87 vectors equal another's"


@pytest.mark.parametrize(("dtype", "files"), [("float32", 5), ("int8", 7)])
def test_a_byte_that_was_changed_anywhere_is_found(dtype: str, files: int, tmp_path: Path) -> None:
    """Random bytes of every file, its first and its last one; no check needs --full for it."""
    version = run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 30), dtype=dtype))
    rng = np.random.default_rng(0)
    names = sorted(path for path in version.rglob("*") if path.is_file())
    assert len(names) == files
    for path in names:
        content = path.read_bytes()
        for place in (0, len(content) - 1, *rng.integers(0, len(content), 25).tolist()):
            changed = bytearray(content)
            changed[place] ^= int(rng.integers(1, 256))
            path.write_bytes(changed)
            assert not all(check.passed for check in verify_index(version)), f"{path.name}, byte {place}"
        path.write_bytes(content)
    assert all(check.passed for check in verify_index(version))


def test_every_single_byte_of_the_manifest_counts(version: Path) -> None:
    """Its own checksum covers the content; a space that became a tab, or 1.0 that became 1e0, are changes too."""
    path = version / "manifest.json"
    content = path.read_bytes()
    for place in range(len(content)):
        for flip in (1, 2, 4, 8, 16, 32, 64, 128, 41):  # 41 makes a tab of a space
            changed = bytearray(content)
            changed[place] ^= flip
            with pytest.raises((CorruptionError, CompatibilityError)):
                parse_manifest(bytes(changed), path)


def test_a_file_that_does_not_belong_there_is_found(version: Path) -> None:
    (version / "notes.txt").write_text("mine")
    (failed,) = [check for check in verify_index(version) if not check.passed]
    assert failed.name == "checksums" and "notes.txt does not belong" in failed.detail


@pytest.mark.parametrize(
    ("settings", "passed", "detail"),
    [
        ({"size": 100, "absent": 4}, True, "100 listed, every indexed record among them, 0 not read yet"),
        ({"size": 120, "absent": 4}, True, "120 listed, every indexed record among them, 20 not read yet"),
        ({"size": 80}, False, "18 indexed records are no longer in the data, such as fake:80"),
    ],
)
def test_a_full_verification_compares_with_the_data(
    settings: dict[str, int], passed: bool, detail: str, version: Path
) -> None:
    with reads_fakes(**settings):
        check = verify_index(version, full=True)[-1]
    assert (check.name, check.passed, check.detail) == ("data", passed, detail)


def test_data_that_is_not_at_hand_is_skipped(tmp_path: Path) -> None:
    version = run_build(fake_plan(tmp_path, FakeDataset(tmp_path / "nowhere", 20)))
    check = verify_index(version, full=True)[-1]
    assert check.passed and check.detail.startswith("skipped: The records of index demo were read from")


def test_a_tree_that_lost_its_rate_is_a_failed_check(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def only_500(root: Path, fs_hz: int | None = None) -> FakeDataset:
        dataset = FakeDataset(root)
        Dataset.__init__(dataset, root, (500,), fs_hz)
        return dataset

    monkeypatch.setattr(sources, "open_dataset", only_500)
    with pytest.raises(DataError, match="at 500 Hz; 100 Hz was asked for") as refused:
        sources.open_sources(read_manifest(version))
    assert "fgclep data scan" in refused.value.hint and "fgclep index relocate" in refused.value.hint
    check = verify_index(version, full=True)[-1]
    assert check.name == "data" and not check.passed and "was read from it at 100 Hz" in check.detail


def test_a_pack_of_a_newer_fgclep_is_a_failed_check(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def newer(root: Path, fs_hz: int | None = None) -> FakeDataset:
        raise CompatibilityError("the pack has schema 9")

    monkeypatch.setattr(sources, "open_dataset", newer)
    check = verify_index(version, full=True)[-1]
    assert (check.name, check.passed, check.detail) == ("data", False, "the pack has schema 9")


def test_an_index_of_the_first_schema_still_opens() -> None:
    """The built-in demo was made before manifests had additions."""
    from fgclep.demo import demo_index_path

    manifest = read_manifest(demo_index_path())
    assert manifest.additions == () and len(manifest.sources) == 1
    assert all(check.passed for check in verify_index(demo_index_path(), full=True))
