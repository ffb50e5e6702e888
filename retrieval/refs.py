"""What a REF means: a record id, a bare study id, or the path of a WFDB file. Every command asks here."""

from pathlib import Path

from fgclep.errors import UsageError
from fgclep.wfdb_io import header_path, record_stem
from indexer.open import OpenIndex


def file_of(ref: str) -> Path | None:
    """Return the path, without extension, of the WFDB record whose header is there under this name, or None."""
    stem = record_stem(Path(ref).expanduser())
    return stem if stem.name and header_path(stem).is_file() else None


def named_file(ref: str) -> Path | None:
    """Return the record of a WFDB file given with its extension: it needs no index, since no record id has one."""
    stem = file_of(ref)
    return stem if stem is not None and stem.name != Path(ref).name else None


def resolve_ref(index: OpenIndex, ref: str) -> int | Path:
    """Find the record that a REF names.

    Args:
        index: where record and study ids are looked up; they come before files.
        ref: `<dataset>:<native id>`, a study id as the data set writes it, or a WFDB file with or without extension.

    Returns:
        the record's key in the store, or the path of a WFDB record without extension.

    Raises:
        UsageError: if it names nothing, or several records.
    """
    ref = ref.strip()
    key = index.store.key_of(ref)
    if key is not None:
        return key
    studies = index.store.of_study(ref)
    if len(studies) == 1:
        return studies[0][0]
    if studies:
        raise UsageError(
            f"{ref!r} is the study id of several records: {', '.join(name for _, name in studies)}.",
            f"fgclep show {studies[0][1]}",
        )
    if (file := file_of(ref)) is not None:
        return file
    example = next(index.store.record_ids())
    raise UsageError(
        f"{ref!r} is neither a record or study id of index {index.manifest.name} (its records are called like "
        f"{example}) nor the path of a WFDB file (no {record_stem(Path(ref).expanduser())}.hea).",
        "fgclep search TEXT --ids",
    )
