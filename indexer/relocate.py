"""Tell an index where its data moved: a new version that shares every file with the old one, except the manifest."""

import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from fgclep.datasets import Dataset
from fgclep.durable import write_durably
from fgclep.errors import DataError, NotSetUpError, UsageError
from fgclep.record import RecordReject
from indexer.base import Base, open_base
from indexer.home import index_dir
from indexer.ids import IdSet
from indexer.manifest import MANIFEST, SCHEMA, DatasetRef, manifest_json
from indexer.publish import RELOCATING, build_lock, clear_write_errors, new_version_id, publish
from indexer.sources import open_source
from indexer.store_update import share_file

_SAMPLE = 20


def relocate_index(home: Path, name: str, root: Path, *, moved: Path | None = None) -> Path:
    """Publish a version that reads its records below another folder.

    Every indexed record must be there under the same path, and a sample must read at the rate and length that the
    index knows; other data is refused.

    Args:
        home: the directory of settings and indexes.
        name: of the index.
        root: where the data is now.
        moved: where it was; None is enough if the index was read from one folder, or if exactly one of them is gone.

    Returns:
        The new version's directory.

    Raises:
        NotSetUpError: if there is no such index or folder.
        UsageError: if `moved` is needed, or is no folder of the index.
        DataError: if the folder holds other data.
        FgclepError: if the disk is full, or another process builds or has just built this index.
    """
    directory = index_dir(home, name)
    base = open_base(home, name)
    if not root.is_dir():
        raise NotSetUpError(f"{root} is no folder; expected the one that the data of index {name} is in now.")
    old_root = _old_root(base, moved)
    new_root = str(root.resolve())
    manifest = base.manifest
    for number, (first_key, reference) in enumerate(manifest.sources):
        if reference.root == old_root:
            following = [key for key, _ in manifest.sources[number + 1 :]]
            end_key = following[0] if following else None
            _check_same_data(base, old_root, open_source(reference, name, root), first_key, end_key)

    def at_new_root(reference: DatasetRef) -> DatasetRef:
        return replace(reference, root=new_root) if reference.root == old_root else reference

    with clear_write_errors(directory, "Free some space."), build_lock(directory):
        base.check_current()
        version = new_version_id(manifest.model.fingerprint)
        changed = replace(
            manifest,
            version=version,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            dataset=at_new_root(manifest.dataset),
            additions=tuple(replace(one, dataset=at_new_root(one.dataset)) for one in manifest.additions),
            options={**manifest.options, "base": base.path.name},
            schema=SCHEMA,
        )
        target = directory / RELOCATING
        shutil.rmtree(target, ignore_errors=True)
        for file in manifest.files:
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            share_file(base.path / file, target / file)
        write_durably(target / MANIFEST, manifest_json(changed).encode())
        return publish(target, directory, version)


def _old_root(base: Base, moved: Path | None) -> str:
    roots = list(dict.fromkeys(reference.root for _, reference in base.manifest.sources))
    if moved is not None and str(moved.absolute()) in roots:
        return str(moved.absolute())
    if moved is None and len(roots) == 1:
        return roots[0]
    gone = [root for root in roots if not os.path.isdir(root)]  # noqa: PTH112 - a Path's raises for a stale mount
    if moved is None and len(gone) == 1:
        return gone[0]
    problem = "say which of them moved" if moved is None else f"{moved} is none of them"
    raise UsageError(
        f"Index {base.manifest.name} was read from {', '.join(roots)}; {problem}.",
        f"fgclep index relocate NEW-PATH --name {base.manifest.name} --moved {(gone or roots)[0]}",
    )


def _check_same_data(base: Base, old_root: str, dataset: Dataset, first_key: int, end_key: int | None) -> None:
    """Refuse data that lacks an indexed record, or has another one in its place."""
    missing = IdSet(dataset.missing)
    there = IdSet(f"{name}\n{path}" for name, path in dataset.iter_listed() if name not in missing)
    records, absent, example = 0, 0, ""
    with base.open_store() as store:
        for key, info in store.iter_infos():
            if key < first_key or (end_key is not None and key >= end_key):
                continue
            records += 1
            if f"{info.record_id}\n{info.path}" not in there:
                absent += 1
                example = example or f"{info.record_id} ({info.path})"
        if absent:
            raise DataError(
                f"{absent:,} of the {records:,} indexed records of {old_root} are not in {dataset.root}, such as "
                f"{example}.",
                f"Give the folder that holds the same data as before; see what it has: fgclep data scan {dataset.root}",
            )
        if not records:
            return
        wanted = ((key, info) for key, info in store.iter_infos() if key >= first_key)
        sample = list(islice(wanted, 0, records, max(1, records // _SAMPLE)))
        rows = store.records([key for key, _ in sample])
    for key, info in sample:
        try:
            record = dataset.read(info)
        except RecordReject as reject:
            raise DataError(
                f"{dataset.root} is not the same data: {reject.message}", "Give another folder."
            ) from reject
        duration_s = record.waveform.shape[1] / record.fs_hz
        if (record.fs_hz, duration_s) != (rows[key]["fs_hz"], rows[key]["duration_s"]):
            raise DataError(
                f"{info.record_id} in {dataset.root} has {record.fs_hz:g} Hz and {duration_s:g} s; the index knows "
                f"{rows[key]['fs_hz']:g} Hz and {rows[key]['duration_s']:g} s.",
                "Give the folder that holds the same data as before.",
            )
