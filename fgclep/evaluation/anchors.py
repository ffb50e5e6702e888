"""Published numbers (`data/anchors.toml`) and what keeps each from being compared with ours."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Anchor:
    """One published row.

    Attributes:
        model: as the source names it.
        source: where it was published or read.
        values: column -> what is published there. `zero-shot`: the macro AUC in percent. `linear-probe`: the same at
            1, 10 and 100 % of the training records. `supervised`: the same with the ends of its 95 % interval.
            `report-retrieval`: R@1, R@5 and R@10 in percent. NaN where one of several is not published.
        notes: sentences on the whole row.
        cells: column -> a sentence on that value alone.
    """

    model: str
    source: str
    values: dict[str, tuple[float, ...]]
    notes: tuple[str, ...]
    cells: dict[str, str]


def anchors(table: str) -> tuple[Anchor, ...]:
    """Return the published rows of `zero-shot`, `linear-probe`, `supervised` or `report-retrieval`."""
    return _read()[table]


@cache
def _read() -> dict[str, tuple[Anchor, ...]]:
    content = tomllib.loads((files("fgclep.evaluation") / "data" / "anchors.toml").read_text(encoding="utf-8"))
    sentences = content.pop("notes")
    return {table: tuple(_anchor(row, sentences) for row in rows) for table, rows in content.items()}


def _anchor(row: dict[str, Any], sentences: dict[str, str]) -> Anchor:
    values = {
        name: tuple(map(float, value)) if isinstance(value, list) else (float(value),)
        for name, value in row["values"].items()
    }
    return Anchor(
        model=row["model"],
        source=row["source"],
        values=values,
        notes=tuple(sentences[note] for note in row.get("notes", [])),
        cells={column: sentences[note] for column, note in row.get("cells", {}).items()},
    )
