"""The command line's filters, turned into one SQL condition with bound parameters; expressions are in `where`."""

import re
from dataclasses import dataclass

from sqlalchemy import and_, bindparam, column, func, literal, not_, select, table

from fgclep.errors import UsageError
from indexer.schema import TagRow
from retrieval.where import ALIASES, RECORDS, Condition, parse_where

TAGS = TagRow.__table__
REPORTS_FTS = table("reports_fts", column("rowid"), column("reports_fts"))


@dataclass(frozen=True)
class Filters:
    """The command line's shorthands, all of which must hold; None or empty means no condition.

    Ranges are `LOW:HIGH`, both ends included, either side may be left open.

    Attributes:
        sex: `F` or `M`.
        date: a range of `YYYY`, `YYYY-MM` or `YYYY-MM-DD`.
        report_has: texts of which each must occur in the report, word by word in this order.
        report_lacks: texts of which none may occur.
        tags: codes the record must carry, all of them.
    """

    where: str | None = None
    sex: str | None = None
    age: str | None = None
    rate: str | None = None
    pr: str | None = None
    qrs: str | None = None
    qtc: str | None = None
    axis: str | None = None
    date: str | None = None
    report_has: tuple[str, ...] = ()
    report_lacks: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def condition(self) -> Condition | None:
        """Join all conditions with `and`; None if there are none.

        Raises:
            UsageError: if one of them cannot be understood.
        """
        parts = [parse_where(self.where)] if self.where is not None else []
        if self.sex is not None:
            parts.append(_sex_condition(self.sex))
        for option in ("age", "rate", "pr", "qrs", "qtc", "axis"):
            parts.extend(_range_condition(option, getattr(self, option)))
        parts.extend(_date_condition(self.date))
        parts.extend(_report_condition(text, "report-has") for text in self.report_has)
        parts.extend(not_(_report_condition(text, "report-lacks")) for text in self.report_lacks)
        parts.extend(_tag_condition(tag) for tag in self.tags)
        return and_(*parts) if parts else None

    def given(self) -> dict[str, object]:
        """Return the conditions that were given, by name."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items() if v not in (None, ())}


def _sex_condition(sex: str) -> Condition:
    letter = sex.strip().upper()[:1]
    if letter not in {"F", "M"} or sex.strip().upper() not in {"F", "M", "FEMALE", "MALE"}:
        raise UsageError(f"--sex is {sex!r}, expected F or M.", "--sex F")
    return RECORDS.c.sex == literal(letter)


def _range_condition(option: str, text: str | None) -> list[Condition]:
    """Turn `LOW:HIGH` on a number column into no, one or two comparisons."""
    if text is None:
        return []
    low, high = _split_range(option, text)
    try:
        bounds = [float(part) if part else None for part in (low, high)]
    except ValueError:
        raise UsageError(f"--{option} is {text!r}, expected numbers as LOW:HIGH.", f"--{option} 40:65") from None
    if bounds[0] is not None and bounds[1] is not None and bounds[0] > bounds[1]:
        raise UsageError(f"--{option} is {text!r}; the lower end comes first.", f"--{option} {high}:{low}")
    values = RECORDS.c[ALIASES[option]]
    parts = [] if bounds[0] is None else [values >= literal(bounds[0])]
    return parts if bounds[1] is None else [*parts, values <= literal(bounds[1])]


def _split_range(option: str, text: str) -> tuple[str, str]:
    """Split `LOW:HIGH` at its colon."""
    low, colon, high = (part.strip() for part in text.partition(":"))
    if not colon or ":" in high or not (low or high):
        example = "2015:2016" if option == "date" else "40:65"
        hint = f"--{option} {f'{low}:{low}' if low and not colon else example}"
        raise UsageError(f"--{option} is {text!r}, expected LOW:HIGH; one side may be left open.", hint)
    return low, high


def _date_condition(text: str | None) -> list[Condition]:
    """Turn a range of dates into comparisons of ISO 8601 texts, each end as precise as it was given."""
    if text is None:
        return []
    low, high = _split_range("date", text)
    for part in (low, high):
        if part and not re.fullmatch(r"\d{4}(-\d\d(-\d\d)?)?", part):
            raise UsageError(f"--date has {part!r}, expected YYYY, YYYY-MM or YYYY-MM-DD.", "--date 2015-03:2016")
    time = RECORDS.c.ecg_time
    parts = [func.substr(time, 1, len(low)) >= literal(low)] if low else []
    return [*parts, func.substr(time, 1, len(high)) <= literal(high)] if high else parts


def _report_condition(text: str, option: str) -> Condition:
    """Ask the full-text index for the words of `text`, one after the other."""
    if not re.search(r"\w", text):
        raise UsageError(f"--{option} is {text!r}, expected at least one word.", f'--{option} "low voltage"')
    phrase = '"' + text.replace('"', '""') + '"'  # one FTS5 string: operators inside it are plain words
    matching = select(REPORTS_FTS.c.rowid).where(REPORTS_FTS.c.reports_fts.op("MATCH")(bindparam(None, phrase)))
    return RECORDS.c.key.in_(matching)


def _tag_condition(tag: str) -> Condition:
    if not tag.strip():
        raise UsageError("--tag is empty, expected a code such as AFIB.", "--tag AFIB")
    carrying = select(TAGS.c.key).where(func.lower(TAGS.c.tag) == literal(tag.strip().lower()))
    return RECORDS.c.key.in_(carrying)
