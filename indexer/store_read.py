"""Reading `store.sqlite`: fixed queries by Python's own SQLite, filters in SQLAlchemy's language.

Importing SQLAlchemy takes as long as all the rest of a search from a cold shell (benchmarks/cold_start.py), so it is
imported only where its language is needed: for filters, and by `Store.connect`.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import CorruptionError
from fgclep.record import RecordInfo

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from indexer.schema import Base

TableName = Literal["records", "subjects", "tags", "rejects", "missing"]
TABLES: tuple[TableName, ...] = ("records", "subjects", "tags", "rejects", "missing")

_VARIABLES = 500  # SQLite limits the variables of one statement
_REBUILD = "Build the index again with `fgclep index build`, or restore the file from a copy."


class Store:
    """A published store, opened read-only; it stays readable while it is open, even if its file is removed.

    Args:
        path: the SQLite file.

    Raises:
        CorruptionError: if it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # immutable: a published version never changes, so SQLite needs no locks and no side files (read-only media).
        uri = f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1"
        try:
            # A stream of rows may be read by another thread than the one that began it, one thread at a time.
            self._database = sqlite3.connect(uri, uri=True, check_same_thread=False)
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @cached_property
    def engine(self) -> "Engine":
        """The engine of SQLAlchemy; any write through it fails."""
        from sqlalchemy import StaticPool, create_engine

        return create_engine("sqlite://", creator=lambda: self._database, poolclass=StaticPool)

    @contextmanager
    def connect(self) -> Iterator["Connection"]:
        """Open a connection for queries in SQLAlchemy's language.

        Raises:
            CorruptionError: if SQLite meets damage that opening did not show.
        """
        from sqlalchemy.exc import DatabaseError

        try:
            with self.engine.connect() as connection:
                yield connection
        except DatabaseError as error:
            raise self._damaged(error.orig) from error

    def keys(self) -> NDArray[np.int64]:
        """Return every record's key, ascending, int64 (N,)."""
        # Unordered, SQLite reads the smallest index instead of every row.
        return np.sort(np.fromiter(chain.from_iterable(self._rows("SELECT key FROM records")), np.int64))

    def keys_where(self, condition: str, values: Sequence[object]) -> NDArray[np.int64]:
        """Return the keys of the records that meet a condition, in no order, int64 (n,).

        Args:
            condition: SQL over the table `records`, made by this program alone; what users type is in `values`.
            values: for the question marks in it.
        """
        rows = self._rows(f"SELECT key FROM records WHERE {condition}", values)
        return np.fromiter(chain.from_iterable(rows), np.int64)

    def records(self, keys: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Return the columns of some records by key, with their `tags` as a list; unknown keys are left out."""
        found: dict[int, dict[str, Any]] = {}
        wanted = [int(key) for key in keys]
        for start in range(0, len(wanted), _VARIABLES):
            part = wanted[start : start + _VARIABLES]
            among = f"WHERE key IN ({', '.join('?' * len(part))})"
            for row in self._rows(f"SELECT * FROM records {among}", part):
                found[row["key"]] = {**dict(row), "tags": []}
            for key, tag in self._rows(f"SELECT key, tag FROM tags {among} ORDER BY key, tag", part):
                found[key]["tags"].append(tag)
        return {key: found[key] for key in wanted if key in found}

    def key_of(self, record_id: str) -> int | None:
        """Return the key of a record id, or None if it is not indexed."""
        return next((row[0] for row in self._rows("SELECT key FROM records WHERE record_id = ?", [record_id])), None)

    def of_study(self, study_id: str) -> list[tuple[int, str]]:
        """Return key and record id of the first few records of a study."""
        query = "SELECT key, record_id FROM records WHERE study_id = ? ORDER BY key LIMIT 4"
        return [(row[0], row[1]) for row in self._rows(query, [study_id])]

    def iter_infos(self) -> Iterator[tuple[int, RecordInfo]]:
        """Yield the key of every record, ascending, with what is needed to read its samples again; constant memory."""
        columns = "record_id, dataset, subject_id, study_id, path"
        for key, *values in self._rows(f"SELECT key, {columns} FROM records ORDER BY key"):
            yield key, RecordInfo(*values)

    def record_ids(self, table: Literal["records", "rejects", "missing"] = "records") -> Iterator[str]:
        """Yield every record id of one table, in no order that means anything."""
        return (row[0] for row in self._rows(f"SELECT record_id FROM {table}"))

    def rejected_by_reason(self) -> dict[str, int]:
        """Count the rejected records by reason, in order of the reasons."""
        query = "SELECT reason, count(*) FROM rejects GROUP BY reason ORDER BY reason"
        return {row[0]: row[1] for row in self._rows(query)}

    def rejects(self) -> list[dict[str, str]]:
        """Return every rejected record with its reason."""
        return [dict(row) for row in self._rows("SELECT * FROM rejects ORDER BY record_id")]

    def count(self, table: "TableName | type[Base]") -> int:
        """Return the number of rows of one table, given by name or as a model of `indexer.schema`."""
        name = table if isinstance(table, str) else table.__tablename__
        return next(int(row[0]) for row in self._rows(f"SELECT count(*) FROM {name}"))

    def integrity_problem(self) -> str | None:
        """Return what SQLite's own integrity check finds, or None."""
        answer = next(str(row[0]) for row in self._rows("PRAGMA integrity_check(1)"))
        return None if answer == "ok" else answer

    def _rows(self, query: str, values: Sequence[object] = ()) -> Iterator[sqlite3.Row]:
        """Yield the rows of one of this class's own queries, in constant memory.

        Raises:
            CorruptionError: if the file is no store, or damaged.
        """
        try:
            cursor = self._database.cursor()
            cursor.row_factory = sqlite3.Row
            # Not `yield from`: a stream left half read would then close its cursor, perhaps after the database.
            for row in cursor.execute(query, values):  # noqa: UP028
                yield row
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def _damaged(self, error: BaseException | None) -> CorruptionError:
        return CorruptionError(f"{self.path} is not a readable index store: {error}.", _REBUILD)


def open_store(path: Path) -> Store:
    """Open a store read-only.

    Raises:
        CorruptionError: if the file is missing or is not a store.
    """
    store = Store(path)
    try:
        for table in TABLES:
            any(store._rows(f"SELECT * FROM {table} LIMIT 1"))
    except CorruptionError:
        store.close()
        raise
    return store
