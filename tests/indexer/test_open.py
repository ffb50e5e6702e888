"""Opening refuses every damaged or mismatched part with one sentence that names the file."""

import json
import shutil
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from sqlalchemy import text

import fgclep.pretrained
from fgclep.errors import CompatibilityError, CorruptionError, NotSetUpError
from indexer.backends import NumpyMatmul, self_test
from indexer.backends.base import brute_force
from indexer.backends.faiss_flat import write_faiss_index
from indexer.backends.int8_codes import Codes
from indexer.backends.torch_matmul import TorchMatmul
from indexer.build import run_build
from indexer.home import CURRENT
from indexer.manifest import manifest_json, read_manifest
from indexer.open import CODES, FAISS, KEYS, SCALES, STORE, VECTORS, matching_model, open_index
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
    with pytest.raises(
        NotSetUpError, match=r"Index demo .* model fake \[\w+\], which is no longer in /nowhere/fake"
    ) as gone:
        matching_model(read_manifest(published))
    assert "fgclep index rebuild demo --model small --activate" in gone.value.hint


def test_another_model_is_refused_naming_both_and_both_ways_out(
    published: Path, bundles: dict[str, str], tmp_path: Path
) -> None:
    manifest = read_manifest(published)
    bundles |= {"fake": manifest.model.fingerprint, "other": "0123456789abcdef"}
    with pytest.raises(CompatibilityError) as refused:
        matching_model(manifest, "other")
    assert refused.value.exit_code == 5
    assert manifest.model.fingerprint in refused.value.message and "0123456789abcdef" in refused.value.message
    assert refused.value.hint.startswith("Drop --model")
    assert refused.value.hint.endswith("fgclep index rebuild demo --model other --activate")  # keeps what was added
    bundles["fake"] = bundles["other"]
    with pytest.raises(CompatibilityError) as refused:
        matching_model(manifest)
    assert f"fgclep index rebuild demo --model {tmp_path / 'fake'} --activate" in refused.value.hint


def give_codes(version: Path) -> Path:
    """Make the index one of bytes beside halves, as a build with `--dtype int8` does."""
    from indexer.backends.int8_codes import write_codes
    from indexer.manifest import describe_files

    halves = np.load(version / VECTORS).astype(np.float16)
    np.save(version / VECTORS, halves)
    write_codes(halves, version / CODES, version / SCALES)
    write_faiss_index(halves, version / FAISS)
    resign(version, {"dtype": "int8", "files": describe_files(version)})
    return version


def test_an_index_with_bytes_is_searched_by_them_and_answers_exactly(version: Path) -> None:
    with closing(open_index(give_codes(version), verify_checksums=True)) as index:
        assert index.codes is not None and index.vectors.dtype == np.float16
        queries = np.asarray(index.vectors[:5], np.float32)
        expected = brute_force(index.vectors, queries, 7)
        with patch.object(Codes, "bounds", return_value=0.0) as asked:
            index.backend.search(queries, 7)
        assert asked.called
        assert np.array_equal(index.backend.search(queries, 7)[1], expected[1])
    assert all(check.passed for check in verify_index(version))


@pytest.mark.parametrize("name", [CODES, SCALES])
def test_bytes_that_do_not_fit_the_vectors_are_refused(name: str, version: Path) -> None:
    from indexer.manifest import describe_files

    give_codes(version)
    np.save(version / name, np.load(version / name)[:-1])
    resign(version, {"files": describe_files(version)})
    with pytest.raises(CorruptionError, match=name):
        open_index(version)


class DeafToMasks(NumpyMatmul):
    """A backend whose package imports well and whose answers are wrong, as FAISS's on a GPU with a selector."""

    def search(self, queries, k, mask=None):
        return super().search(queries, k)


def no_room(vectors: np.ndarray) -> NumpyMatmul:
    raise RuntimeError("CUDA out of memory")


@pytest.mark.parametrize(
    ("torch", "faiss", "chosen"),
    [
        (NumpyMatmul, no_room, "torch"),
        (no_room, partial(TorchMatmul, device="cpu"), "faiss-gpu"),
        (DeafToMasks, no_room, "numpy"),
    ],
)
def test_a_gpu_backend_is_chosen_by_what_it_answers(
    torch, faiss, chosen: str, version: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The stand-ins take the place of the real classes: which of them works is all that the choice may go by."""
    made: list[str] = []

    def standing_in(name: str, make):
        def call(vectors: np.ndarray):
            made.append(name)
            return make(vectors)

        return call

    monkeypatch.setattr("indexer.backends.torch_matmul.TorchMatmul", standing_in("torch", torch))
    monkeypatch.setattr("indexer.backends.faiss_gpu.FaissGpu", standing_in("faiss-gpu", faiss))
    monkeypatch.setattr("indexer.open._GPU_DEVICES", (str(version),))
    monkeypatch.setattr("indexer.open._GPU_FROM_ROWS", 1)
    monkeypatch.setattr("indexer.open.self_test", partial(self_test, sample=10))
    with closing(open_index(version)) as index:
        passed_over = [record.message for record in caplog.records if "passed over" in record.message]
        order = ["torch", "faiss-gpu", "numpy"]
        assert made == order[: order.index(chosen) + 1][:2]
        assert len(passed_over) == order.index(chosen)
        query = np.asarray(index.vectors[:1], np.float32)
        mask = np.arange(len(index.vectors)) > 3
        assert index.backend.search(query, 200, mask)[1].min() > 3


def test_without_a_gpu_no_gpu_package_is_touched(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.open._GPU_DEVICES", (str(version / "nothing"),))
    monkeypatch.setattr("indexer.open._GPU_FROM_ROWS", 1)
    monkeypatch.setattr("indexer.backends.torch_matmul.TorchMatmul", no_room)
    with closing(open_index(version)) as index:
        assert index.backend.name == "numpy"
