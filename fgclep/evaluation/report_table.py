"""A table with intervals and footnotes, and its four written forms: Markdown, CSV, LaTeX and HTML."""

import csv
import html
import io
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from fgclep.evaluation.results import Interval

MISSING = "–"

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A value with footnotes."""

    value: "float | Interval | str | None"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """One column; `digits` are those after the point, of numbers and intervals."""

    name: str
    digits: int = 1


@dataclass(frozen=True)
class Row:
    """One row; a published one is set apart from ours."""

    cells: tuple[Cell, ...]
    published: bool = False


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
        name: of its files, such as `zero-shot-auc`.
        title: one line.
        lead: what the numbers are, in a sentence or two.
        columns: the first names the rows.
        rows: each with as many cells as there are columns.
    """

    name: str
    title: str
    lead: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        if any(len(row.cells) != len(self.columns) for row in self.rows):
            raise ValueError(f"{self.name}: a row has not {len(self.columns)} cells")

    @cached_property
    def _holds_words(self) -> tuple[bool, ...]:
        """Tell of each column whether it holds words, which are set to the left, or numbers."""
        columns = zip(*(row.cells for row in self.rows), strict=True) if self.rows else [()] * len(self.columns)
        return tuple(all(isinstance(cell.value, str) for cell in column) for column in columns)

    @property
    def footnotes(self) -> tuple[str, ...]:
        """All notes, each once, in the order of their first use; their numbers count from 1."""
        return tuple(dict.fromkeys(note for row in self.rows for cell in row.cells for note in cell.notes))

    def to_markdown(self) -> str:
        """Return title, lead, table and footnotes."""
        lines = [f"## {self.title}", "", self.lead, ""]
        lines.append(_pipes(column.name for column in self.columns))
        lines.append(_pipes("---" if words else "---:" for words in self._holds_words))
        for row in self.rows:
            lines.append(_pipes(self._text(cell, column) for cell, column in zip(row.cells, self.columns, strict=True)))
        lines += ["", *(f"[{number}] {note}  " for number, note in enumerate(self.footnotes, 1))]
        return "\n".join(lines).rstrip() + "\n"

    def to_csv(self) -> str:
        """Return full numbers: a column with intervals becomes three, the row's notes one more, joined by ` | `."""
        wide = [any(isinstance(row.cells[i].value, Interval) for row in self.rows) for i in range(len(self.columns))]
        header: list[str] = []
        for column, three in zip(self.columns, wide, strict=True):
            header += [column.name, f"{column.name} low", f"{column.name} high"] if three else [column.name]
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*header, "published", "notes"])
        for row in self.rows:
            values: list[object] = []
            for cell, three in zip(row.cells, wide, strict=True):
                values += _numbers(cell)[: 3 if three else 1]
            notes = dict.fromkeys(note for cell in row.cells for note in cell.notes)
            writer.writerow([*values, "yes" if row.published else "no", " | ".join(notes)])
        return stream.getvalue()

    def to_latex(self) -> str:
        """Return a `table` for the package booktabs, published rows below a rule."""
        head = " & ".join(_latex(column.name) for column in self.columns)
        lines = [r"\begin{table}", r"\centering\small", rf"\caption{{{_latex(f'{self.title}. {self.lead}')}}}"]
        sides = "".join("l" if words else "r" for words in self._holds_words)
        lines += [rf"\label{{tab:{self.name}}}", rf"\begin{{tabular}}{{{sides}}}", r"\toprule"]
        lines += [head + r" \\", r"\midrule"]
        before = False
        for row in self.rows:
            if row.published and not before and row is not self.rows[0]:
                lines.append(r"\midrule")
            before = row.published
            texts = [self._latex_cell(cell, column) for cell, column in zip(row.cells, self.columns, strict=True)]
            lines.append(" & ".join(texts) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}"]
        for number, note in enumerate(self.footnotes, 1):
            lines += [rf"\par\footnotesize\raggedright\textsuperscript{{{number}}}\,{_latex(note)}"]
        return "\n".join([*lines, r"\end{table}"]) + "\n"

    def to_html(self) -> str:
        """Return a `table` element with its footnotes in a list after it."""
        sides = [" class=words" if words else "" for words in self._holds_words]
        titles = zip(self.columns, sides, strict=True)
        head = "".join(f"<th scope=col{side}>{html.escape(column.name)}</th>" for column, side in titles)
        body = []
        for row in self.rows:
            cells = [self._html_cell(cell, column) for cell, column in zip(row.cells, self.columns, strict=True)]
            first = cells[0]
            others = "".join(f"<td{side}>{cell}</td>" for cell, side in zip(cells[1:], sides[1:], strict=True))
            kind = " class=published" if row.published else ""
            body.append(f"<tr{kind}><th scope=row>{first}</th>{others}</tr>")
        table = f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(body) + "\n</tbody></table>"
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.footnotes)
        return f"<div class=wide>{table}</div>" + (f"\n<ol class=notes>{notes}</ol>" if notes else "")

    def _text(self, cell: Cell, column: Column) -> str:
        marks = self._marks(cell)
        text = _shown(cell, column).replace("|", r"\|")
        return f"{text} [{marks}]" if marks else text

    def _latex_cell(self, cell: Cell, column: Column) -> str:
        marks = self._marks(cell)
        text = _latex(_shown(cell, column))
        if isinstance(cell.value, Interval):
            text = re.sub(r"\[.*\]", lambda match: rf"{{\scriptsize {match[0]}}}", text)
        return rf"{text}\textsuperscript{{{marks}}}" if marks else text

    def _html_cell(self, cell: Cell, column: Column) -> str:
        marks = self._marks(cell)
        text = html.escape(_shown(cell, column))
        if isinstance(cell.value, Interval):  # the interval may go below its value, but never break inside
            value, _, interval = text.partition(" ")
            text = f"{value} <small>{interval}</small>" if interval else value
        return f"{text}<sup>{marks}</sup>" if marks else text

    def _marks(self, cell: Cell) -> str:
        return ",".join(str(self.footnotes.index(note) + 1) for note in cell.notes)


def _shown(cell: Cell, column: Column) -> str:
    value, digits = cell.value, column.digits
    if isinstance(value, str):
        return value
    if value is None or math.isnan(value.value if isinstance(value, Interval) else value):
        return MISSING
    if isinstance(value, Interval):
        if math.isnan(value.low):
            return f"{value.value:.{digits}f}"
        return f"{value.value:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"
    return f"{value:,.{digits}f}"


def _numbers(cell: Cell) -> list[object]:
    value = cell.value
    if isinstance(value, Interval):
        return ["" if math.isnan(part) else f"{part:.6g}" for part in (value.value, value.low, value.high)]
    if isinstance(value, float):
        return ["" if math.isnan(value) else f"{value:.6g}", "", ""]
    return ["" if value is None else value, "", ""]


def _pipes(texts: Iterable[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def _latex(text: str) -> str:
    return re.sub(r"[\\&%$#_{}~^–<>]", lambda match: _LATEX[match[0]], text)
