"""One index version as one file: a tar archive compressed with Zstandard, and back.

The manifest is the first member; the others are the files that it names, with their sizes and checksums in it. An
archive may come from anywhere, so nothing in it is trusted: only plain files that its manifest names are written, to
names without a way out of their folder, and exactly as many bytes as the manifest says.
"""

import hashlib
import re
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from fgclep.durable import sync_directory, write_durably
from fgclep.errors import CorruptionError, FgclepError, NotSetUpError, UsageError
from indexer.home import CURRENT, VERSIONS, index_dir
from indexer.lease import take_lease
from indexer.manifest import MANIFEST, SCHEMA, IndexManifest, manifest_json, parse_manifest, read_manifest
from indexer.open import check_files, open_index
from indexer.plan import free_bytes
from indexer.publish import INCOMING, become_default, build_lock, clear_write_errors, publish, sync_file

_LEVEL = 3
_MANIFEST_LIMIT = 10_000_000
_BLOCK = 1 << 20
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_AGAIN = "Copy the archive again, or make it again: fgclep index export FILE NAME"


def export_version(version_dir: Path, file: Path) -> int:
    """Write a version into an archive, read the archive back and compare it, and only then give it its name.

    Args:
        version_dir: a published version.
        file: must not exist.

    Returns:
        The archive's size in bytes.

    Raises:
        UsageError: if the file exists.
        CorruptionError: if a file of the version differs from its checksum.
        NotSetUpError: if the package zstandard is not installed.
        FgclepError: if the disk is full or the folder may not be written.
    """
    compressor = _zstandard().ZstdCompressor(_LEVEL, write_checksum=True, threads=-1)
    if file.exists():
        raise UsageError(f"{file} exists already.", "Choose another file, or remove it first.")
    lease = take_lease(version_dir)
    manifest = read_manifest(version_dir)
    check_files(version_dir, manifest, checksums=True)
    partial = file.with_name(f".{file.name}.part")
    try:
        with clear_write_errors(
            file.parent,
            "Free some space, or export to another disk.",
            f"Change the permissions of {file.parent.absolute()}, or export to another folder.",
        ):
            file.parent.mkdir(parents=True, exist_ok=True)
            with (
                partial.open("wb") as raw,
                compressor.stream_writer(raw, closefd=False) as stream,
                tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive,
            ):
                for name in (MANIFEST, *manifest.files):
                    _add(archive, version_dir, name)
            sync_file(partial)
            _unpack(partial, None)
            partial.replace(file)
            sync_directory(file.parent)
    finally:
        partial.unlink(missing_ok=True)
        lease.close()
    return file.stat().st_size


def import_version(file: Path, home: Path, name: str | None = None) -> Path:
    """Make an index of an archive, after checking every byte of it.

    Args:
        file: written by `export_version`.
        home: the directory of settings and indexes.
        name: of the new index; the archive's own unless given.

    Returns:
        The published version's directory.

    Raises:
        NotSetUpError: if the file does not exist or the package zstandard is not installed.
        UsageError: if an index of that name exists, or the name cannot be one.
        CorruptionError: if the archive is damaged, lacks a file, or holds anything that does not belong there.
        FgclepError: if the disk is full or another process builds that index.
    """
    if not file.is_file():
        raise NotSetUpError(f"{file} does not exist; expected an archive of an index.", _AGAIN)
    manifest = _peek(file)
    directory = index_dir(home, name or manifest.name)
    folder, free = free_bytes(directory)
    needed = sum(entry.bytes for entry in manifest.files.values())
    if free < needed:
        raise FgclepError(
            f"The index in {file} needs {needed / 1e6:,.0f} MB in {folder}; {free / 1e6:,.0f} MB are free.",
            "Free some space, or choose another folder: FGCLEP_HOME=PATH",
        )
    with clear_write_errors(directory, "Free some space and repeat the command."), build_lock(directory):
        if (directory / CURRENT).exists():
            raise UsageError(
                f"There is an index {directory.name} already.", f"fgclep index import {file} --name OTHER-NAME"
            )
        target = directory / INCOMING
        shutil.rmtree(target, ignore_errors=True)
        try:
            _unpack(file, target)
            write_durably(
                target / MANIFEST, manifest_json(replace(manifest, name=directory.name, schema=SCHEMA)).encode()
            )
            open_index(target, backend="numpy").close()
            # Nothing points there, or the index would exist: what an import left that was killed just before.
            shutil.rmtree(directory / VERSIONS / manifest.version, ignore_errors=True)
            published = publish(target, directory, manifest.version)
        finally:
            shutil.rmtree(target, ignore_errors=True)
        become_default(home, directory.name)
    return published


def _add(archive: tarfile.TarFile, version_dir: Path, name: str) -> None:
    """Add a file under its name below the version, without owner, mode and time: equal versions give equal archives."""
    member = tarfile.TarInfo(name)
    with (version_dir / name).open("rb") as stream:
        member.size = (version_dir / name).stat().st_size
        archive.addfile(member, stream)


def _peek(file: Path) -> IndexManifest:
    with _opened(file) as archive:
        return _first_manifest(archive, file)


def _unpack(file: Path, target: Path | None) -> IndexManifest:
    """Check every member of an archive, and write it below `target` if that is given."""
    with _opened(file) as archive:
        manifest = _first_manifest(archive, file)
        left = dict(manifest.files)
        while (member := archive.next()) is not None:  # iterating would begin with the manifest again
            expected = left.pop(member.name, None)
            if expected is None or not _is_plain(member) or member.size != expected.bytes:
                raise CorruptionError(
                    f"{file} holds {member.name!r} ({member.size:,} bytes), which its manifest does not describe so.",
                    _AGAIN,
                )
            source = archive.extractfile(member)
            assert source is not None  # only for members that are no files
            if _copy(source, None if target is None else target / member.name) != expected.sha256:
                raise CorruptionError(f"{file}: {member.name} is damaged; its SHA-256 differs.", _AGAIN)
    if left:
        raise CorruptionError(f"{file} lacks {', '.join(left)}.", _AGAIN)
    return manifest


def _first_manifest(archive: tarfile.TarFile, file: Path) -> IndexManifest:
    member = archive.next()
    if member is None or member.name != MANIFEST or not _is_plain(member) or member.size > _MANIFEST_LIMIT:
        raise CorruptionError(f"{file} is no archive of an index: its first member is no {MANIFEST}.", _AGAIN)
    source = archive.extractfile(member)
    assert source is not None
    manifest = parse_manifest(source.read(), file / MANIFEST)
    names = [part for name in manifest.files for part in name.split("/")]
    for part in (manifest.version, manifest.name, *names):
        if not _SAFE.fullmatch(part):
            raise CorruptionError(f"{file} names a file or version {part!r}, which no index has.", _AGAIN)
    return manifest


def _is_plain(member: tarfile.TarInfo) -> bool:
    return member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()


def _copy(source: IO[bytes], target: Path | None) -> str:
    """Read a stream to its end, write it if there is a target, and return its SHA-256."""
    digest = hashlib.sha256()
    if target is None:
        while block := source.read(_BLOCK):
            digest.update(block)
        return digest.hexdigest()
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as stream:
        while block := source.read(_BLOCK):
            digest.update(block)
            stream.write(block)
    return digest.hexdigest()


@contextmanager
def _opened(file: Path) -> Iterator[tarfile.TarFile]:
    """Open an archive as a stream; whatever is wrong with its bytes is corruption."""
    zstandard = _zstandard()
    try:
        with (
            file.open("rb") as raw,
            zstandard.ZstdDecompressor().stream_reader(raw) as stream,
            tarfile.open(fileobj=stream, mode="r|") as archive,
        ):
            yield archive
    except (zstandard.ZstdError, tarfile.TarError, EOFError) as error:
        raise CorruptionError(f"{file} is damaged or no archive of an index: {error}.", _AGAIN) from error


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise NotSetUpError("The package zstandard is not installed.", "pip install zstandard") from error
    return zstandard
