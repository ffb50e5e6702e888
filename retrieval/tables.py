"""Rows as CSV, the same on standard output and in an export."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Write rows as CSV with a header line, one line per row.

    Args:
        rows: values by column; lists are joined by `;`, the values of one element by spaces; line breaks in texts
            become ` | `, None becomes empty.
        columns: names and order of the columns; also written where there are no rows.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    return stream.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, list | tuple):
        value = ";".join(
            " ".join(map(str, part.values())) if isinstance(part, Mapping) else str(part) for part in value
        )
    return " | ".join(value.splitlines()) if isinstance(value, str) else value
