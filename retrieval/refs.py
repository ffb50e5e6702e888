"""What a REF means: a record id, a bare study id, or the path of a WFDB file. Every command asks here."""

from pathlib import Path

from sqlalchemy import select

from fgclep.errors import UsageError
from indexer.open import OpenIndex
from indexer.store import RecordRow


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
    with index.store.engine.connect() as connection:
        same = select(RecordRow.key, RecordRow.record_id).where(RecordRow.study_id == ref).limit(4)
        studies = connection.execute(same).all()
        example = connection.scalar(select(RecordRow.record_id).limit(1))
    if len(studies) == 1:
        return int(studies[0].key)
    if studies:
        raise UsageError(
            f"{ref!r} is the study id of several records: {', '.join(row.record_id for row in studies)}.",
            f"fgclep show {studies[0].record_id}",
        )
    path = Path(ref).expanduser()
    base = path.with_suffix("") if path.suffix in {".hea", ".dat", ".mat"} else path
    if ref and base.with_name(f"{base.name}.hea").is_file():
        return base
    raise UsageError(
        f"{ref!r} is neither a record or study id of index {index.manifest.name} (its records are called like "
        f"{example}) nor the path of a WFDB file (no {base}.hea).",
        "fgclep search TEXT --ids",
    )
