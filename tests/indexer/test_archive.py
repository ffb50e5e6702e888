"""Export and import give the same index; a damaged or hostile archive makes none, and writes nowhere else."""

import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fgclep.errors import CompatibilityError, CorruptionError, FgclepError, NotSetUpError, UsageError
from indexer import archive as archive_module
from indexer.archive import export_version, import_version
from indexer.build import run_build
from indexer.home import index_dir, list_indexes, resolve_index
from indexer.manifest import MANIFEST, FileRef, manifest_json, read_manifest
from indexer.open import open_index
from indexer.verify import verify_index
from tests.indexer.fakes import FakeDataset, fake_plan, forbid_gpu

zstandard = pytest.importorskip("zstandard", reason="zstandard is not installed")


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    return run_build(fake_plan(home, FakeDataset(home, 40)))


@pytest.fixture(scope="module")
def archive(version: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("archive") / "demo.tar.zst"
    assert export_version(version, file) == file.stat().st_size
    return file


def test_the_way_out_and_back_changes_nothing(version: Path, archive: Path, tmp_path: Path) -> None:
    imported = import_version(archive, tmp_path)
    assert imported == resolve_index(None, tmp_path)
    names = sorted(path.relative_to(version) for path in version.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(imported) for path in imported.rglob("*") if path.is_file())
    assert all((version / name).read_bytes() == (imported / name).read_bytes() for name in names)
    assert all(check.passed for check in verify_index(imported))


def test_it_is_a_plain_tar_with_zstandard_and_always_the_same(version: Path, archive: Path, tmp_path: Path) -> None:
    export_version(version, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == archive.read_bytes()
    with tarfile.open(fileobj=io.BytesIO(plain(archive))) as tar:
        assert tar.getnames() == [MANIFEST, *read_manifest(version).files]


def test_an_import_is_opened_without_a_gpu(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_gpu(monkeypatch)
    import_version(archive, tmp_path)


def test_another_name_is_the_index_s_own(archive: Path, tmp_path: Path) -> None:
    imported = import_version(archive, tmp_path, "other")
    assert open_index(imported, verify_checksums=True).manifest.name == "other"
    with pytest.raises(UsageError, match="There is an index other already"):
        import_version(archive, tmp_path, "other")
    with pytest.raises(UsageError, match="cannot be the name"):
        import_version(archive, tmp_path, "../x")


def test_only_a_sound_version_is_exported_and_no_file_overwritten(version: Path, archive: Path, tmp_path: Path) -> None:
    import shutil

    with pytest.raises(UsageError, match="exists already"):
        export_version(version, archive)
    damaged = shutil.copytree(version, tmp_path / "damaged")
    content = bytearray((damaged / "index.faiss").read_bytes())
    content[-1] ^= 1
    (damaged / "index.faiss").write_bytes(content)
    with pytest.raises(CorruptionError, match=r"index\.faiss"):
        export_version(damaged, tmp_path / "out" / "x.tar.zst")
    assert not list((tmp_path / "out").glob("*")) and not list((tmp_path / "out").glob(".*"))


def test_an_archive_gets_its_name_when_it_is_on_the_disk(
    version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, synced = tmp_path / "x.tar.zst", []
    for name in ("sync_file", "sync_directory"):
        monkeypatch.setattr(archive_module, name, lambda path: synced.append((path.name, file.exists())))
    export_version(version, file)
    assert synced == [(".x.tar.zst.part", False), (tmp_path.name, True)]


def plain(file: Path) -> bytes:
    """The tar inside an archive."""
    with file.open("rb") as stream:
        return zstandard.ZstdDecompressor().stream_reader(stream).read()


def members(file: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(plain(file))) as tar:
        return [(member, tar.extractfile(member).read()) for member in tar.getmembers()]  # type: ignore[union-attr]


def packed(parts: list[tuple[tarfile.TarInfo, bytes]], file: Path) -> Path:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for member, data in parts:
            tar.addfile(member, io.BytesIO(data))
    file.write_bytes(zstandard.ZstdCompressor().compress(content.getvalue()))
    return file


Parts = list[tuple[tarfile.TarInfo, bytes]]


def renamed(name: str) -> Callable[[Parts], Parts]:
    def change(parts: Parts) -> Parts:
        parts[-1][0].name = name
        return parts

    return change


def linked(kind: bytes) -> Callable[[Parts], Parts]:
    def change(parts: Parts) -> Parts:
        parts[-1][0].type, parts[-1][0].linkname, parts[-1][0].size = kind, "/etc/passwd", 0
        return [*parts[:-1], (parts[-1][0], b"")]

    return change


def with_manifest(**changes: object) -> Callable[[Parts], Parts]:
    """A manifest that agrees with itself and is hostile."""

    def change(parts: Parts) -> Parts:
        manifest = archive_module.parse_manifest(parts[0][1], Path("x"))
        data = manifest_json(replace(manifest, **changes)).encode()  # type: ignore[arg-type]
        parts[0][0].size = len(data)
        return [(parts[0][0], data), *parts[1:]]

    return change


def hostile_file(name: str) -> Callable[[Parts], Parts]:
    def change(parts: Parts) -> Parts:
        member = tarfile.TarInfo(name)
        member.size = 4
        files = dict(archive_module.parse_manifest(parts[0][1], Path("x")).files)
        evil = FileRef(4, "b5c1fb2efc6d6b4674c2fdcc48ce01b43a3b7c03763c0c3355de0099ee0f8c73")
        return [*with_manifest(files={**files, name: evil})(parts), (member, b"evil")]

    return change


def other_bytes(parts: Parts) -> Parts:
    return [*parts[:-1], (parts[-1][0], bytes(len(parts[-1][1])))]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda parts: parts[1:], "first member is no manifest"),
        (lambda parts: parts[::-1], "first member is no manifest"),
        (lambda parts: parts[:-1], "lacks store.sqlite"),
        (lambda parts: [*parts, parts[-1]], "does not describe so"),
        (renamed("../../escaped"), "does not describe so"),
        (renamed("/tmp/escaped"), "does not describe so"),
        (linked(tarfile.SYMTYPE), "does not describe so"),
        (linked(tarfile.LNKTYPE), "does not describe so"),
        (linked(tarfile.CHRTYPE), "does not describe so"),
        (hostile_file("../../escaped"), "which no index has"),
        (hostile_file("/escaped"), "which no index has"),
        (hostile_file("a/../../escaped"), "which no index has"),
        (hostile_file(".hidden"), "which no index has"),
        (with_manifest(version="../../escaped"), "which no index has"),
        (with_manifest(name="../escaped"), "which no index has"),
        (other_bytes, "SHA-256 differs"),
    ],
)
def test_what_does_not_belong_there_is_refused(
    change: Callable[[Parts], Parts], message: str, archive: Path, tmp_path: Path
) -> None:
    home = tmp_path / "deep" / "home"
    with pytest.raises(CorruptionError, match=message):
        import_version(packed(change(members(archive)), tmp_path / "evil.tar.zst"), home)
    assert list_indexes(home) == []
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left <= {"evil.tar.zst", "LOCK"} and not Path("/tmp/escaped").exists()


def test_a_damaged_archive_never_gives_another_index(version: Path, archive: Path, tmp_path: Path) -> None:
    """It is refused; only damage after the last byte of the index, in what closes the archive, may go unnoticed."""
    content = archive.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [content[:end] for end in (0, 10, len(content) // 2, len(content) - 1)]
    for place in (0, 3, len(content) - 1, *rng.integers(0, len(content), 40).tolist()):
        changed = bytearray(content)
        changed[place] ^= int(rng.integers(1, 256))
        damaged.append(bytes(changed))
    refused = 0
    for number, changed in enumerate(damaged):
        (tmp_path / "damaged").write_bytes(changed)
        home = tmp_path / str(number)
        try:
            imported = import_version(tmp_path / "damaged", home)
        except (CorruptionError, CompatibilityError):
            refused += 1
            assert list_indexes(home) == []
        else:
            assert read_manifest(imported) == read_manifest(version)
            assert all(check.passed for check in verify_index(imported))
    assert refused >= len(damaged) - 4


def test_too_little_space_is_told_before_anything_is_written(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "free_bytes", lambda directory: (tmp_path, 1000))
    with pytest.raises(FgclepError, match=r"needs .* MB in"):
        import_version(archive, tmp_path / "home")
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_the_hint_installs_it(
    version: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    for attempt in (
        lambda: export_version(version, tmp_path / "x"),
        lambda: import_version(archive, tmp_path / "home"),
    ):
        with pytest.raises(NotSetUpError, match="zstandard is not installed") as refused:
            attempt()
        assert refused.value.hint == "pip install zstandard"
    with pytest.raises(NotSetUpError, match="does not exist"):
        import_version(tmp_path / "nowhere", tmp_path)


def test_what_a_killed_import_left_is_replaced(archive: Path, tmp_path: Path) -> None:
    left = index_dir(tmp_path, "demo") / "incoming" / "embeddings"
    left.mkdir(parents=True)
    (left / "vectors.npy").write_bytes(b"half")
    assert open_index(import_version(archive, tmp_path), verify_checksums=True).manifest.name == "demo"
    assert not left.exists()


def test_an_import_that_was_killed_before_it_could_point_to_its_version_is_repeated(
    archive: Path, tmp_path: Path
) -> None:
    imported = import_version(archive, tmp_path)
    (index_dir(tmp_path, "demo") / "CURRENT").unlink()
    assert import_version(archive, tmp_path) == imported == resolve_index("demo", tmp_path)
    open_index(imported, verify_checksums=True)
