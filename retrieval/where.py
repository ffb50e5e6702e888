"""Filter expressions such as `age >= 65 and sex = 'F'`, turned into SQL with bound parameters.

The result is a SQLAlchemy expression over a fixed set of the store's columns; what the user types only ever becomes
a bound value, never SQL.

Where a value is unknown (NULL), a comparison with it is neither true nor false, as in SQL: the record is left out,
also under `not`. Use `is null` to ask for it.
"""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, column, literal, not_, or_, table

from fgclep.errors import UsageError

NUMBER_COLUMNS = (
    "age_years",
    "fold",
    "heart_rate_bpm",
    "rr_interval_ms",
    "pr_interval_ms",
    "qrs_duration_ms",
    "qt_interval_ms",
    "qtc_ms",
    "p_axis_deg",
    "qrs_axis_deg",
    "t_axis_deg",
    "fs_hz",
    "duration_s",
)
TEXT_COLUMNS = ("record_id", "dataset", "subject_id", "study_id", "path", "ecg_time", "sex", "report", "flags")
ALIASES = {
    "age": "age_years",
    "rate": "heart_rate_bpm",
    "heart_rate": "heart_rate_bpm",
    "rr": "rr_interval_ms",
    "pr": "pr_interval_ms",
    "qrs": "qrs_duration_ms",
    "qt": "qt_interval_ms",
    "qtc": "qtc_ms",
    "axis": "qrs_axis_deg",
    "date": "ecg_time",
    "subject": "subject_id",
    "study": "study_id",
    "record": "record_id",
}
"""Short names for columns, the same as the command line's shorthands."""

Condition = ColumnElement[bool]

# Not the model of `indexer.schema`: importing SQLAlchemy's ORM takes half as long again as its query language.
RECORDS = table("records", *map(column, ("key", *NUMBER_COLUMNS, *TEXT_COLUMNS)))

_MAX_LENGTH = 4000
_MAX_DEPTH = 50
_TOKEN = re.compile(
    r"\s*(?:(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?![\w.])"
    r"|(?P<string>'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")"
    r"|(?P<word>[A-Za-z_]\w*)"
    r"|(?P<symbol><=|>=|<>|!=|==|=|<|>|\(|\)|,))"
)
_KEYWORDS = {"and", "or", "not", "between", "in", "is", "null", "like"}
_COMPARE: dict[str, Callable[[ColumnElement[object], ColumnElement[object]], Condition]] = {
    "=": lambda a, b: a == b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<>": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_EXAMPLE = "--where \"age >= 65 and sex = 'F' and qrs between 120 and 160\""


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int


def parse_where(expression: str) -> Condition:
    """Turn a filter expression into a condition on the table `records`.

    Understood: `= != < <= > >=`, `and or not`, parentheses, `[not] between LOW and HIGH`, `[not] in (A, B)`,
    `is [not] null`, `[not] like 'pattern'` (% any text, _ one character). Text stands in quotes; keywords and column
    names in any case; columns by full name or alias (`ALIASES`).

    Raises:
        UsageError: if the expression does not follow the grammar, compares text with a number, or names an unknown
            column (the nearest one is named).
    """
    if not expression.strip():
        raise UsageError("The filter expression is empty.", _EXAMPLE)
    if len(expression) > _MAX_LENGTH:
        raise UsageError(f"The filter expression has {len(expression)} characters; at most {_MAX_LENGTH} are read.")
    return _Parser(_tokenize(expression), expression).parse()


def _tokenize(expression: str) -> list[_Token]:
    """Split an expression into tokens; the last one is of kind `end`."""
    tokens: list[_Token] = []
    position, end = 0, len(expression.rstrip())
    while position < end:
        match = _TOKEN.match(expression, position)
        if match is None:
            rest = expression[position:].lstrip()
            if rest[0] in "'\"":
                problem = f"the quote at {rest[:20]!r} is not closed"
            else:
                problem = f"{rest[:20]!r} is not understood"
            raise UsageError(f"In the filter {expression!r}, {problem}.", _EXAMPLE)
        group = str(match.lastgroup)
        kind, text = group, match[group]
        if kind == "word" and text.lower() in _KEYWORDS:
            kind, text = "keyword", text.lower()
        tokens.append(_Token(kind, text, match.start(group)))
        position = match.end()
    tokens.append(_Token("end", "the end", end))
    return tokens


class _Parser:
    """Recursive descent: or < and < not < comparison."""

    def __init__(self, tokens: list[_Token], expression: str) -> None:
        self._tokens = tokens
        self._expression = expression
        self._next = 0
        self._depth = 0

    def parse(self) -> Condition:
        condition = self._disjunction()
        if self._peek().kind != "end":
            raise self._expected("'and', 'or' or the end")
        return condition

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        if token.kind != "end":
            self._next += 1
        return token

    def _accept(self, *texts: str) -> bool:
        token = self._peek()
        if token.kind in {"keyword", "symbol"} and token.text in texts:
            self._next += 1
            return True
        return False

    def _require(self, text: str) -> None:
        if not self._accept(text):
            raise self._expected(repr(text))

    def _expected(self, wanted: str) -> UsageError:
        token = self._peek()
        found = token.text if token.kind == "end" else repr(token.text)
        return UsageError(
            f"In the filter {self._expression!r}, expected {wanted} at character {token.position + 1}, found {found}.",
            _EXAMPLE,
        )

    def _disjunction(self) -> Condition:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise UsageError(f"The filter expression nests deeper than {_MAX_DEPTH} parentheses.", _EXAMPLE)
        parts = [self._conjunction()]
        while self._accept("or"):
            parts.append(self._conjunction())
        self._depth -= 1
        return or_(*parts)

    def _conjunction(self) -> Condition:
        parts = [self._negation()]
        while self._accept("and"):
            parts.append(self._negation())
        return and_(*parts)

    def _negation(self) -> Condition:
        negate = False
        while self._accept("not"):
            negate = not negate
        if self._accept("("):
            condition = self._disjunction()
            self._require(")")
        else:
            condition = self._comparison()
        return not_(condition) if negate else condition

    def _comparison(self) -> Condition:
        name = self._column()
        left = RECORDS.c[name]
        token = self._peek()
        if token.kind == "symbol" and token.text in _COMPARE:
            return _COMPARE[self._take().text](left, self._operand(name))
        if self._accept("is"):
            negate = self._accept("not")
            self._require("null")
            return not_(_is_unknown(name)) if negate else _is_unknown(name)
        negate = self._accept("not")
        condition: Condition
        if self._accept("between"):
            low = self._operand(name)
            self._require("and")
            condition = left.between(low, self._operand(name))
        elif self._accept("in"):
            condition = left.in_(self._list(name))
        elif self._accept("like"):
            condition = self._like(name)
        else:
            raise self._expected("a comparison such as '=', '<', 'between', 'in', 'is null' or 'like'")
        return not_(condition) if negate else condition

    def _column(self) -> str:
        if self._peek().kind != "word":
            raise self._expected("a column name")
        return column_name(self._take().text)

    def _operand(self, left: str) -> ColumnElement[object]:
        """Read what `left` is compared with: a value, or another column of the same type."""
        token = self._peek()
        if token.kind == "word":
            if token.text.lower() not in {*NUMBER_COLUMNS, *TEXT_COLUMNS, *ALIASES} and left in TEXT_COLUMNS:
                raise UsageError(f"In the filter {self._expression!r}, text stands in quotes: {left} = '{token.text}'.")
            right = self._column()
            if (right in NUMBER_COLUMNS) != (left in NUMBER_COLUMNS):
                raise UsageError(f"The columns {left} and {right} cannot be compared: one is text, the other a number.")
            return RECORDS.c[right]
        return literal(self._value(left))

    def _value(self, left: str) -> str | float:
        """Read a literal and check that it suits the column."""
        token = self._peek()
        if token.kind not in {"number", "string"}:
            raise self._expected("a number" if left in NUMBER_COLUMNS else "text in quotes")
        self._take()
        text = token.text if token.kind == "number" else _unquote(token.text)
        if left in TEXT_COLUMNS:
            return text
        if token.kind == "string":
            raise UsageError(f"The column {left} holds numbers; {token.text} is text.", f'--where "{left} >= 65"')
        return float(text)

    def _list(self, left: str) -> list[str | float]:
        self._require("(")
        values = [self._value(left)]
        while self._accept(","):
            values.append(self._value(left))
        self._require(")")
        return values

    def _like(self, left: str) -> Condition:
        if left in NUMBER_COLUMNS:
            raise UsageError(f"The column {left} holds numbers; like is for text.", f'--where "{left} >= 65"')
        if self._peek().kind != "string":
            raise self._expected("text in quotes")
        return RECORDS.c[left].like(literal(_unquote(self._take().text)))


def _is_unknown(name: str) -> Condition:
    """Ask for an unknown value; the store writes a missing report as empty text."""
    values = RECORDS.c[name]
    return or_(values.is_(None), values == literal("")) if name in TEXT_COLUMNS else values.is_(None)


def _unquote(text: str) -> str:
    """Strip the quotes of a string literal and undouble those inside."""
    quote = text[0]
    return text[1:-1].replace(quote * 2, quote)


def column_name(name: str) -> str:
    """Return the store's name of a column given by name or alias, in any case.

    Raises:
        UsageError: if there is none; names the nearest and lists all.
    """
    folded = name.lower()
    folded = ALIASES.get(folded, folded)
    if folded in NUMBER_COLUMNS or folded in TEXT_COLUMNS:
        return folded
    if folded in {"tag", "tags"}:
        raise UsageError("Tags are no column: a record has many.", "--tag AFIB")
    known = [*NUMBER_COLUMNS, *TEXT_COLUMNS]
    nearest = difflib.get_close_matches(folded, [*known, *ALIASES], n=1, cutoff=0.6)
    meant = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise UsageError(f"Unknown column {name!r}.{meant} The columns are {', '.join(known)}.", _EXAMPLE)
