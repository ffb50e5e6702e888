"""Opening refuses every damaged or mismatched part with one sentence that names the file."""

import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

import fgclep.pretrained
from fgclep.errors import CompatibilityError, CorruptionError, NotSetUpError
from indexer.build import run_build
from indexer.home import CURRENT
from indexer.manifest import manifest_json, read_manifest
from indexer.open import FAISS, KEYS, STORE, VECTORS, matching_model, open_index
from indexer.verify import verify_index
from tests.indexer.fakes import fake_plan


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    return run_build(fake_plan(tmp_path_factory.mktemp("home")))


@pytest.fixture
def version(published: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(published, tmp_path / "copy")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    """Change one bit in the middle, keeping the size."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", [VECTORS, KEYS, STORE, FAISS])
@pytest.mark.parametrize("damage", [Path.unlink, cut])
def test_a_missing_or_shorter_file_is_seen_at_every_open(name: str, damage, version: Path) -> None:
    damage(version / name)
    with pytest.raises(CorruptionError, match=name) as refused:
        open_index(version)
    assert refused.value.exit_code == 6 and "fgclep index build" in refused.value.hint


@pytest.mark.parametrize("name", [VECTORS, KEYS, STORE, FAISS])
def test_a_flipped_bit_is_seen_by_checksums_and_full_verification(name: str, version: Path) -> None:
    flip(version / name)
    with pytest.raises(CorruptionError, match=f"{name}"):
        open_index(version, verify_checksums=True)
    assert [check.name for check in verify_index(version, full=True) if not check.passed]


@pytest.mark.parametrize("content", [None, "", "{}", "[1]", '{"schema": 1}', "\x00\x01"])
def test_a_manifest_that_is_none(content: str | None, version: Path) -> None:
    path = version / "manifest.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(CorruptionError, match=r"manifest\.json"):
        open_index(version)


def test_an_edited_manifest_is_refused(version: Path) -> None:
    path = version / "manifest.json"
    path.write_text(path.read_text().replace('"indexed": 90', '"indexed": 91'))
    with pytest.raises(CorruptionError, match="altered"):
        open_index(version)


def test_a_newer_schema_is_incompatible(version: Path) -> None:
    path = version / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 3}))
    with pytest.raises(CompatibilityError, match="schema 3; this fgclep reads schemas up to 2"):
        open_index(version)


def test_the_manifest_survives_the_round_trip(version: Path) -> None:
    text = (version / "manifest.json").read_text(encoding="utf-8")
    manifest = read_manifest(version)
    assert manifest_json(manifest) == text
    assert set(manifest.files) == {VECTORS, KEYS, STORE, FAISS}


def resign(version: Path, changes: dict) -> None:
    """Rewrite the manifest with other facts and a valid checksum, as a buggy builder would."""
    from dataclasses import replace

    manifest = read_manifest(version)
    (version / "manifest.json").write_text(manifest_json(replace(manifest, **changes)))


def test_a_store_with_fewer_records_than_vectors(version: Path) -> None:
    """The store and the vectors are sound files each, but not of one build."""
    from indexer.manifest import describe_files

    with sqlite3.connect(version / STORE) as database:
        database.execute("DELETE FROM records WHERE key = 0")
    resign(version, {"files": describe_files(version)})
    with pytest.raises(CorruptionError, match="89 records, but there are 90 vectors"):
        open_index(version)


def test_damage_that_only_a_query_meets_is_told_as_such(version: Path) -> None:
    with sqlite3.connect(version / STORE) as database:
        (page,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'reports_fts_data'").fetchone()
        (size,) = database.execute("PRAGMA page_size").fetchone()
    content = bytearray((version / STORE).read_bytes())
    content[(page - 1) * size : page * size] = bytes(size)
    (version / STORE).write_bytes(content)
    store = open_index(version).store
    with pytest.raises(CorruptionError, match=r"store\.sqlite is not a readable"), store.connect() as connection:
        connection.execute(text("SELECT rowid FROM reports_fts WHERE reports_fts MATCH 'sinus'")).all()


@pytest.mark.parametrize("name", [VECTORS, KEYS])
def test_arrays_of_another_shape(name: str, version: Path) -> None:
    from indexer.manifest import describe_files

    np.save(version / name, np.load(version / name)[:-1])
    resign(version, {"files": describe_files(version)})
    with pytest.raises(CorruptionError, match=f"{name} holds .*89.*manifest says .*90"):
        open_index(version)


def test_an_older_version_can_be_opened_by_its_path(published: Path) -> None:
    assert open_index(published).path == published
    assert (published.parents[1] / CURRENT).read_text().strip() == published.name


@pytest.fixture
def bundles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """Model bundles reduced to what matters here: a folder by name, with a fingerprint."""
    known: dict[str, str] = {}

    def resolve(name: str | None) -> Path:
        return tmp_path / (name or "fake")

    monkeypatch.setattr(fgclep.pretrained, "resolve_model", resolve)
    monkeypatch.setattr(fgclep.pretrained, "bundle_fingerprint", lambda path: known[path.name])
    return known


def test_the_index_finds_its_own_model_by_name(published: Path, bundles: dict[str, str], tmp_path: Path) -> None:
    manifest = read_manifest(published)
    bundles["fake"] = manifest.model.fingerprint
    assert matching_model(manifest) == tmp_path / "fake"


def test_a_model_that_is_gone_is_named_with_the_index_that_needs_it(published: Path) -> None:
    with pytest.raises(NotSetUpError, match=r"Index demo .* model fake \[\w+\], which is no longer in /nowhere/fake"):
        matching_model(read_manifest(published))


def test_another_model_is_refused_naming_both_and_both_ways_out(published: Path, bundles: dict[str, str]) -> None:
    manifest = read_manifest(published)
    bundles |= {"fake": manifest.model.fingerprint, "other": "0123456789abcdef"}
    with pytest.raises(CompatibilityError) as refused:
        matching_model(manifest, "other")
    assert refused.value.exit_code == 5
    assert manifest.model.fingerprint in refused.value.message and "0123456789abcdef" in refused.value.message
    assert "Drop --model" in refused.value.hint and "fgclep index build" in refused.value.hint
