"""Stores made from other stores: with more records, or without some that can no longer be read."""

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, text

from indexer.manifest import Counts
from indexer.schema import RecordRow, RejectRow, TagRow
from indexer.store import count_subjects, insert_missing, insert_records, writing
from indexer.store_read import open_store


def extend_store(
    path: Path,
    base: Path,
    records: Iterable[Mapping[str, Any]],
    rejects: Iterable[Mapping[str, Any]],
    missing: Iterable[str],
) -> None:
    """Write a store that holds another one and more.

    A record that was rejected or missing and is now among `records` counts as a record only.

    Args:
        path: must not exist.
        base: the other store; not changed.
        records: new rows of `record_row`, keys above all there are; streamed.
        rejects: new rows of `RejectRow`; those of records rejected before replace them.
        missing: record ids whose files are absent now.

    Raises:
        sqlalchemy.exc.IntegrityError: if a new record has the id of one that is there.
        sqlalchemy.exc.DatabaseError: if SQLite fails, for instance on a full disk.
    """
    shutil.copyfile(base, path)
    with writing(path) as connection:
        before = connection.scalar(text("SELECT coalesce(max(key), -1) FROM records"))
        insert_records(connection, records)
        _insert_rejects(connection, rejects)
        insert_missing(connection, missing)
        connection.execute(text("DELETE FROM rejects WHERE record_id IN (SELECT record_id FROM records)"))
        connection.execute(
            text(
                "DELETE FROM missing WHERE record_id IN (SELECT record_id FROM records) "
                "OR record_id IN (SELECT record_id FROM rejects)"
            )
        )
        count_subjects(connection)
        words = "INSERT INTO reports_fts(rowid, report) SELECT key, report FROM records WHERE key > :before"
        connection.execute(text(words), {"before": before})
        connection.execute(text("ANALYZE"))


def reduce_store(path: Path, base: Path, rejects: Iterable[Mapping[str, Any]]) -> None:
    """Write a store in which some of another one's records are rejects; errors as of `extend_store`.

    Without any, the file itself is shared where the file system can do that.
    """
    rows = list(rejects)
    if not rows:
        share_file(base, path)
        return
    shutil.copyfile(base, path)
    with writing(path) as connection:
        _insert_rejects(connection, rows)
        for table in (TagRow, RecordRow):  # the tags go first: they point at the records
            gone = text("key IN (SELECT key FROM records WHERE record_id = :gone)").bindparams(bindparam("gone"))
            connection.execute(delete(table).where(gone), [{"gone": row["record_id"]} for row in rows])
        count_subjects(connection)
        connection.execute(text("INSERT INTO reports_fts(reports_fts) VALUES ('rebuild')"))
        connection.execute(text("ANALYZE"))


def recount(path: Path, beyond_limit: int) -> Counts:
    """Count where every listed record went, from the store itself."""
    with open_store(path) as store:
        indexed, missing, reasons = store.count("records"), store.count("missing"), store.rejected_by_reason()
    read = indexed + sum(reasons.values())
    listed = read + missing + beyond_limit
    return Counts(listed, missing, beyond_limit, read, indexed, read - indexed, reasons)


def share_file(source: Path, target: Path) -> None:
    """Give a file that never changes a second name; copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _insert_rejects(connection: Connection, rejects: Iterable[Mapping[str, Any]]) -> None:
    for row in rejects:
        connection.execute(insert(RejectRow).prefix_with("OR REPLACE"), row)
