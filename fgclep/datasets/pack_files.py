"""A pack in the making: finished shards survive any interruption, half-written ones never count."""

import errno
import fcntl
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from fgclep.datasets.pack_format import (
    LOOKUP,
    MANIFEST,
    MISSING,
    REJECTS,
    UNFINISHED,
    Units,
    check_files,
    encode_line,
    read_manifest,
    shard_files,
)
from fgclep.durable import sync_directory, write_durably
from fgclep.errors import CorruptionError, FgclepError, UsageError

_OURS = ("[0-9]*.i16", "[0-9]*.jsonl", "[0-9]*.entry", "*.part", LOOKUP, REJECTS, MISSING)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardEntry:
    """What a finished shard says about itself.

    Attributes:
        listing: digest of what the source says of its records.
        stamps: digest of the sizes and times of change of their files.
        records: usable ones.
        rejects: number of rejected ones by reason.
        files: name -> bytes and sha256.
    """

    listing: str
    stamps: str
    records: int
    rejects: Mapping[str, int]
    files: Mapping[str, Mapping[str, Any]]


class PackFolder:
    """The folder that a pack is written into.

    Args:
        root: the folder.
        plan: everything that decides the pack's content; an unfinished pack is only continued with the same.
    """

    def __init__(self, root: Path, plan: Mapping[str, Any]) -> None:
        self.root = root
        self._plan = json.loads(json.dumps(plan))

    def check(self, *, restart: bool) -> None:
        """Refuse a folder that holds anything else than this pack, finished or not; writes nothing.

        Raises:
            UsageError: saying what it holds.
        """
        if self.root.exists() and not self.root.is_dir():
            raise UsageError(f"{self.root} is a file; a pack is a folder.", f"Choose another place: {self.root}-pack")
        if not self.root.exists() or (restart and self.begun) or not any(self.root.iterdir()):
            return
        if not self.begun:
            raise UsageError(
                f"{self.root} holds other things than a pack; nothing was written.",
                f"Choose an empty folder, such as {self.root / 'pack'}.",
            )
        then = read_manifest(self.root)["plan"] if self.complete else unfinished_plan(self.root)
        other = [
            f"{key} {then.get(key)!r}, now {value!r}" for key, value in self._plan.items() if then.get(key) != value
        ]
        if other:
            raise UsageError(
                f"{self.root} holds {'a' if self.complete else 'an unfinished'} pack with another {'; '.join(other)}.",
                "Choose another folder, or add --restart to pack anew into this one.",
            )

    @property
    def begun(self) -> bool:
        """Tell whether the folder holds a pack, finished or not."""
        return self.complete or (self.root / UNFINISHED).is_file()

    @property
    def complete(self) -> bool:
        """Tell whether the folder holds a finished pack."""
        return (self.root / MANIFEST).is_file()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder and hold the right to write into it; the system frees it with the process.

        Raises:
            FgclepError: if another process has it, or the folder cannot be written.
        """
        with clear_write_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
            try:
                self._lock(descriptor)
                yield
            finally:
                os.close(descriptor)

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FgclepError(f"Another process packs into {self.root} right now.", "Wait for it.") from error
        except OSError as error:  # some network mounts have no such locks
            logger.debug("no lock on %s: %s", self.root, error)

    def start(self, *, restart: bool) -> None:
        """Note the plan; `restart` removes what an earlier run made."""
        if restart:
            # What makes the folder a pack goes first and the note last, so that a removal cut short is repeated.
            write_durably(self.root / UNFINISHED, b"{}")
            (self.root / MANIFEST).unlink(missing_ok=True)
            for path in [path for pattern in _OURS for path in self.root.glob(pattern)]:
                path.unlink()
        write_durably(self.root / UNFINISHED, json.dumps(self._plan, indent=1).encode())

    def entry(self, number: int) -> ShardEntry | None:
        """Return a finished shard's entry; None if it is unfinished or damaged and must be made again."""
        try:
            entry = ShardEntry(**json.loads(self._entry_path(number).read_bytes()))
            check_files(self.root, {name: dict(facts) for name, facts in entry.files.items()}, whole=True)
        except (OSError, ValueError, TypeError, KeyError, CorruptionError):
            return None
        return entry

    def commit(self, number: int, entry: ShardEntry) -> None:
        """Declare a shard finished."""
        write_durably(self._entry_path(number), json.dumps(asdict(entry)).encode())

    def publish(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, which makes the folder a pack, and remove what only an unfinished one needs."""
        content = {**manifest, "plan": self._plan}
        write_durably(self.root / MANIFEST, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
        self.tidy()

    def tidy(self) -> None:
        """Remove what a run that was killed after publishing left."""
        for path in (*self.root.glob("[0-9]*.entry"), *self.root.glob("*.part"), self.root / UNFINISHED):
            path.unlink(missing_ok=True)

    def _entry_path(self, number: int) -> Path:
        return self.root / f"{number:05d}.entry"


def unfinished_plan(root: Path) -> dict[str, Any]:
    """Return the plan of an unfinished pack; empty if it cannot be read."""
    try:
        plan = json.loads((root / UNFINISHED).read_bytes())
    except (OSError, ValueError):
        return {}
    return plan if isinstance(plan, dict) else {}


@contextmanager
def clear_write_errors(root: Path) -> Iterator[None]:
    """Tell a full disk and a folder that may not be written as such.

    Raises:
        FgclepError: instead of the OSError of either.
    """
    try:
        yield
    except OSError as error:
        path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else root
        if not (path.is_relative_to(root) or root.is_relative_to(path)):
            raise  # it is about the source
        if error.errno in _FULL:
            raise FgclepError(
                f"{root} could not be written: {error.strerror}. Finished shards are kept.",
                "Free some space and repeat the command to go on.",
            ) from error
        if error.errno in _FORBIDDEN:
            raise FgclepError(
                f"{path} may not be written: {error.strerror}.",
                "Change its permissions, or choose another folder.",
            ) from error
        raise


class ShardWriter:
    """Writes a shard's two files beside their final names, hashing them on the way.

    Args:
        root: of the pack.
        number: of the shard.
    """

    def __init__(self, root: Path, number: int) -> None:
        self._root = root
        self._names = shard_files(number)
        self._files: list[_HashedFile] = []
        self.samples = 0
        self.records = 0
        self.rejects: Counter[str] = Counter()

    def __enter__(self) -> Self:
        for name in self._names:
            self._files.append(_HashedFile(self._part(name)))
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave nothing of a shard that was not finished."""
        for file in self._files:
            with suppress(OSError):  # a full disk fails once more when what is buffered cannot be written
                file.close()
        for name in self._names:
            self._part(name).unlink(missing_ok=True)

    def add(self, lines: Sequence[dict[str, Any]], samples: Sequence[Units]) -> None:
        """Append records: every one's line, and the samples of those that are not rejected."""
        to_come = iter(samples)
        for line in lines:
            if "reject" in line:
                self.rejects[line["reject"]] += 1
            else:
                units = next(to_come)
                line = line | {"samples": units.shape[1], "offset": self.samples}
                self._files[0].write(units.tobytes())
                self.samples += units.size
                self.records += 1
            self._files[1].write(encode_line(line))

    def finish(self, listing: str, stamps: str) -> ShardEntry:
        """Give both files their names, durably."""
        facts = {}
        for name, file in zip(self._names, self._files, strict=True):
            facts[name] = file.finish()
            os.replace(self._part(name), self._root / name)
        sync_directory(self._root)
        return ShardEntry(listing, stamps, self.records, dict(sorted(self.rejects.items())), facts)

    def _part(self, name: str) -> Path:
        return self._root / f"{name}.part"


class _HashedFile:
    def __init__(self, path: Path) -> None:
        self._stream: BinaryIO = path.open("wb")
        self._hash = hashlib.sha256()
        self._bytes = 0

    def write(self, content: bytes) -> None:
        self._stream.write(content)
        self._hash.update(content)
        self._bytes += len(content)

    def finish(self) -> dict[str, Any]:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        return {"bytes": self._bytes, "sha256": self._hash.hexdigest()}

    def close(self) -> None:
        self._stream.close()
