"""`store.sqlite`: what is known about every indexed record; written once by a build, then only read.

Flags and report lines are joined by newlines; `extra` is a JSON object.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import URL, Connection, Engine, create_engine, delete, func, insert, select, text
from sqlalchemy.exc import DatabaseError

from fgclep.errors import CorruptionError
from fgclep.record import RecordInfo
from indexer.schema import Base, MissingRow, RecordRow, RejectRow, SubjectRow, TagRow

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
_VARIABLES = 500  # SQLite limits the variables of one statement
_REBUILD = "Build the index again with `fgclep index build`, or restore the file from a copy."
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
        Base.metadata.create_all(connection)
        insert_records(connection, records)
        for batch in _batches(rejects):
            connection.execute(insert(RejectRow), batch)
        insert_missing(connection, missing)
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


class Store:
    """A published store, opened read-only.

    Attributes:
        path: the SQLite file.
        engine: of SQLAlchemy; any write through it fails.
    """

    def __init__(self, path: Path, engine: Engine) -> None:
        self.path = path
        self.engine = engine

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.engine.dispose()

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Open a connection for queries.

        Raises:
            CorruptionError: if SQLite meets damage that opening did not show.
        """
        try:
            with self.engine.connect() as connection:
                yield connection
        except DatabaseError as error:
            raise CorruptionError(f"{self.path} is not a readable index store: {error.orig}.", _REBUILD) from error

    def keys(self) -> NDArray[np.int64]:
        """Return every record's key, ascending, int64 (N,)."""
        with self.connect() as connection:
            return np.fromiter(connection.scalars(select(RecordRow.key).order_by(RecordRow.key)), np.int64)

    def records(self, keys: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Return the columns of some records by key, with their `tags` as a list; unknown keys are left out."""
        found: dict[int, dict[str, Any]] = {}
        with self.connect() as connection:
            for part in _parts([int(key) for key in keys]):
                rows = connection.execute(select(RecordRow.__table__).where(RecordRow.key.in_(part)))
                found.update({row["key"]: {**row, "tags": []} for row in rows.mappings()})
                tags = select(TagRow.key, TagRow.tag).where(TagRow.key.in_(part)).order_by(TagRow.key, TagRow.tag)
                for key, tag in connection.execute(tags):
                    found[key]["tags"].append(tag)
        return {int(key): found[int(key)] for key in keys if int(key) in found}

    def key_of(self, record_id: str) -> int | None:
        """Return the key of a record id, or None if it is not indexed."""
        with self.connect() as connection:
            return connection.scalar(select(RecordRow.key).where(RecordRow.record_id == record_id))

    def record_ids(self) -> Iterator[str]:
        """Yield the id of every record, in order of key."""
        with self.connect() as connection:
            ids = select(RecordRow.record_id).order_by(RecordRow.key)
            yield from connection.execution_options(yield_per=_BATCH).scalars(ids)

    def iter_infos(self) -> Iterator[tuple[int, RecordInfo]]:
        """Yield the key of every record, ascending, with what is needed to read its samples again; constant memory."""
        columns = (RecordRow.record_id, RecordRow.dataset, RecordRow.subject_id, RecordRow.study_id, RecordRow.path)
        last = -1
        while True:
            page = select(RecordRow.key, *columns).where(RecordRow.key > last).order_by(RecordRow.key).limit(_BATCH)
            with self.connect() as connection:
                rows = connection.execute(page).all()
            for key, record_id, dataset, subject_id, study_id, path in rows:
                yield key, RecordInfo(record_id, dataset, subject_id, study_id, path)
            if not rows:
                return
            last = rows[-1][0]

    def rejected_by_reason(self) -> dict[str, int]:
        """Count the rejected records by reason, in order of the reasons."""
        with self.connect() as connection:
            reasons = select(RejectRow.reason, func.count().label("records")).group_by(RejectRow.reason)
            return {row.reason: row.records for row in connection.execute(reasons.order_by(RejectRow.reason))}

    def rejects(self) -> list[dict[str, str]]:
        """Return every rejected record with its reason."""
        with self.connect() as connection:
            rows = connection.execute(select(RejectRow.__table__).order_by(RejectRow.record_id))
            return [dict(row) for row in rows.mappings()]

    def count(self, table: type[Base]) -> int:
        """Return the number of rows of one table."""
        with self.connect() as connection:
            return connection.scalar(select(func.count()).select_from(table)) or 0

    def integrity_problem(self) -> str | None:
        """Return what SQLite's own integrity check finds, or None."""
        with self.connect() as connection:
            answer = str(connection.scalar(text("PRAGMA integrity_check(1)")))
        return None if answer == "ok" else answer


def open_store(path: Path) -> Store:
    """Open a store read-only.

    Raises:
        CorruptionError: if the file is missing or is not a store.
    """
    # immutable: a published version never changes, so SQLite needs no locks and no side files (read-only media work).
    options = {"mode": "ro", "immutable": "1", "uri": "true"}
    engine = create_engine(URL.create("sqlite", database=f"file:{quote(str(path.resolve()))}", query=options))
    store = Store(path, engine)
    try:
        with store.connect() as connection:
            for table in (RecordRow, SubjectRow, TagRow, RejectRow, MissingRow):
                connection.execute(select(table.__table__).limit(1)).all()
    except CorruptionError:
        store.close()
        raise
    return store


def _batches(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    """Cut a stream into batches for bulk inserts."""
    stream = iter(rows)
    while batch := list(islice(stream, _BATCH)):
        yield batch


def _parts(keys: Sequence[int]) -> Iterator[Sequence[int]]:
    return (keys[start : start + _VARIABLES] for start in range(0, len(keys), _VARIABLES))
