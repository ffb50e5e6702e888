"""Verification passes on a sound index and names what is wrong with one whose files agree with a wrong manifest."""

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.build import run_build
from indexer.manifest import describe_files, manifest_json, read_manifest
from indexer.open import KEYS, STORE, VECTORS
from indexer.verify import verify_index
from tests.indexer.fakes import FakeDataset, fake_plan


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
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_sound_index_passes(full: bool, dtype: str, tmp_path: Path) -> None:
    version = run_build(fake_plan(tmp_path, FakeDataset(tmp_path, 100, absent=4), dtype=dtype))
    checks = {check.name: check for check in verify_index(version, full=full)}
    assert all(check.passed for check in checks.values()), checks
    assert checks["counts"].detail == "100 listed = 4 missing + 87 indexed + 9 rejected"
    assert ("checksums" in checks) == full


@pytest.mark.parametrize(
    ("damage", "failed"),
    [
        (run_sql("DELETE FROM rejects WHERE record_id = 'fake:13'"), "counts"),
        (run_sql("DELETE FROM missing"), "counts"),
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
