"""Writing `store.sqlite`: what is known about every indexed record; written once by a build, then only read.

Flags and report lines are joined by newlines; `extra` is a JSON object.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, create_engine, delete, insert, text
from sqlalchemy.schema import CreateIndex, CreateTable

from indexer.schema import Base, MissingRow, RecordRow, RejectRow, SubjectRow, TagRow
from indexer.store_read import Store, open_store

__all__ = [
    "MissingRow",
    "RecordRow",
    "RejectRow",
    "Store",
    "SubjectRow",
    "TagRow",
    "open_store",
    "write_store",
]

_Row = TypeVar("_Row")

_BATCH = 2000
_CACHE_KIB = 65_536  # of pages while writing; SQLite's 2 MB would go to the disk for every row of a large index
_SUBJECTS = """
INSERT INTO subjects (dataset, subject_id, sex, records)
SELECT dataset, subject_id, max(sex), count(*) FROM records GROUP BY dataset, subject_id
"""


def write_store(
    path: Path, records: Iterable[Mapping[str, Any]], rejects: Iterable[Mapping[str, Any]], missing: Iterable[str]
) -> None:
    """Write a new store in one transaction and leave one plain file.

    Args:
        path: must not exist.
        records: rows of `record_row`; streamed.
        rejects: rows of `RejectRow`; streamed.
        missing: record ids whose files are absent.

    Raises:
        sqlalchemy.exc.DatabaseError: if SQLite fails, for instance on a full disk.
    """
    with writing(path) as connection:
        for table in Base.metadata.sorted_tables:
            connection.execute(CreateTable(table))
        insert_records(connection, records)
        for batch in _batches(rejects):
            connection.execute(insert(RejectRow), batch)
        insert_missing(connection, missing)
        # Sorted once at the end, an index takes a fraction of the time it takes to keep it in order row by row.
        for table in Base.metadata.sorted_tables:
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                connection.execute(CreateIndex(index))
        count_subjects(connection)
        connection.execute(
            text("CREATE VIRTUAL TABLE reports_fts USING fts5(report, content='records', content_rowid='key')")
        )
        connection.execute(text("INSERT INTO reports_fts(reports_fts) VALUES ('rebuild')"))
        connection.execute(text("ANALYZE"))


@contextmanager
def writing(path: Path) -> Iterator[Connection]:
    """Open a store for writing, in one transaction without a journal: on failure the file must be thrown away."""
    engine = create_engine(URL.create("sqlite", database=str(path)))
    try:
        # A half-written store is thrown away with its directory, so the rollback journal would protect nothing.
        with engine.connect() as connection:
            connection.execute(text("PRAGMA journal_mode = OFF"))
            connection.execute(text("PRAGMA synchronous = OFF"))
            connection.execute(text(f"PRAGMA cache_size = -{_CACHE_KIB}"))
            connection.commit()
            yield connection
            connection.commit()
    finally:
        engine.dispose()


def insert_records(connection: Connection, records: Iterable[Mapping[str, Any]]) -> None:
    """Insert rows of `record_row` with their tags."""
    for batch in _batches(records):
        connection.execute(insert(RecordRow), [{k: v for k, v in row.items() if k != "tags"} for row in batch])
        if tags := [{"key": row["key"], "tag": tag} for row in batch for tag in row["tags"]]:
            connection.execute(insert(TagRow), tags)


def insert_missing(connection: Connection, missing: Iterable[str]) -> None:
    """Insert ids of records whose files are absent; those that are there stay."""
    for names in _batches(missing):
        connection.execute(insert(MissingRow).prefix_with("OR IGNORE"), [{"record_id": name} for name in names])


def count_subjects(connection: Connection) -> None:
    """Fill the table of subjects anew."""
    connection.execute(delete(SubjectRow))
    connection.execute(text(_SUBJECTS))


def _batches(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    """Cut a stream into batches for bulk inserts."""
    stream = iter(rows)
    while batch := list(islice(stream, _BATCH)):
        yield batch
