"""Query embeddings already computed, in the user's `library.sqlite`: a repeated query needs no model.

The cache is a convenience: where the file cannot be read or written, or hold a text, searching goes on without it.
"""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LIBRARY = "library.sqlite"
_TABLE = """
CREATE TABLE IF NOT EXISTS query_embeddings (
    text TEXT NOT NULL, fingerprint TEXT NOT NULL, vector BLOB NOT NULL, PRIMARY KEY (text, fingerprint)
) WITHOUT ROWID
"""

log = logging.getLogger(__name__)


class QueryCache:
    """Text and model fingerprint -> embedding.

    Args:
        home: the folder of `library.sqlite`; made when the first embedding is stored.
    """

    def __init__(self, home: Path) -> None:
        self._path = home / LIBRARY

    def get(self, text: str, fingerprint: str, dim: int) -> NDArray[np.float32] | None:
        """Return the embedding, float32 (dim,), or None if it is not there."""
        if not self._path.is_file():
            return None
        try:
            with closing(sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro", uri=True, timeout=1.0)) as db:
                where = "SELECT vector FROM query_embeddings WHERE text = ? AND fingerprint = ?"
                row = db.execute(where, (text, fingerprint)).fetchone()
        except (sqlite3.Error, UnicodeError) as error:
            log.debug("%s: query cache not read: %s", self._path, error)
            return None
        if row is None or len(row[0]) != 4 * dim:
            return None
        return np.frombuffer(row[0], "<f4").astype(np.float32)

    def put(self, text: str, fingerprint: str, vector: NDArray[np.float32]) -> None:
        """Store an embedding; a home that cannot be written is left as it is."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=1.0)) as db, db:
                db.execute(_TABLE)
                row = (text, fingerprint, vector.astype("<f4").tobytes())
                db.execute("INSERT OR REPLACE INTO query_embeddings VALUES (?, ?, ?)", row)
        except (sqlite3.Error, OSError, UnicodeError) as error:
            log.debug("%s: query cache not written: %s", self._path, error)
