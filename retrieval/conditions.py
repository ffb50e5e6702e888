"""Filters turned into one SQL condition with bound parameters; expressions are in `where`.

A search without filters does not import this module, and so not SQLAlchemy's query language.
"""

import difflib
import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import and_, bindparam, column, func, literal, not_, select, table
from sqlalchemy.dialects import sqlite

from fgclep.errors import UsageError
from indexer.store_read import Store
from retrieval.filters import Filters
from retrieval.where import ALIASES, RECORDS, Condition, parse_where

TAGS = table("tags", column("tag"), column("key"))
REPORTS_FTS = table("reports_fts", column("rowid"), column("reports_fts"))

_RANGES = ("age", "rate", "pr", "qrs", "qtc", "axis")


def condition_of(filters: Filters) -> Condition:
    """Join all conditions of at least one filter with `and`; see `Filters.condition`.

    Raises:
        UsageError: if one of them cannot be understood.
    """
    parts = [parse_where(filters.where)] if filters.where is not None else []
    if filters.sex is not None:
        parts.append(_sex_condition(filters.sex))
    for option in _RANGES:
        parts.extend(_range_condition(option, getattr(filters, option)))
    parts.extend(_date_condition(filters.date))
    parts.extend(_report_condition(text, "report-has") for text in filters.report_has)
    parts.extend(not_(_report_condition(text, "report-lacks")) for text in filters.report_lacks)
    parts.extend(_tag_condition(tag) for tag in filters.tags)
    return and_(*parts)


def matching_keys(store: Store, condition: Condition) -> NDArray[np.int64]:
    """Return the keys of the records of a store that meet a condition, in no order, int64 (n,).

    Raises:
        CorruptionError: if SQLite meets damage.
    """
    compiled = condition.compile(dialect=sqlite.dialect(), compile_kwargs={"render_postcompile": True})
    return store.keys_where(str(compiled), [compiled.params[name] for name in compiled.positiontup or ()])


def _sex_condition(sex: str) -> Condition:
    word = sex.strip().upper()
    if word not in {"F", "M", "FEMALE", "MALE"}:
        raise UsageError(f"--sex is {sex!r}, expected F or M.", "--sex F")
    return RECORDS.c.sex == literal(word[0])


def _range_condition(option: str, text: str | None) -> list[Condition]:
    """Turn `LOW:HIGH` on a number column into no, one or two comparisons."""
    if text is None:
        return []
    low, high = _split_range(option, text)
    try:
        bounds = [_finite(part) if part else None for part in (low, high)]
    except ValueError:
        raise UsageError(f"--{option} is {text!r}, expected numbers as LOW:HIGH.", f"--{option} 40:65") from None
    if bounds[0] is not None and bounds[1] is not None and bounds[0] > bounds[1]:
        raise UsageError(f"--{option} is {text!r}; the lower end comes first.", f"--{option} {high}:{low}")
    values = RECORDS.c[ALIASES[option]]
    parts = [] if bounds[0] is None else [values >= literal(bounds[0])]
    return parts if bounds[1] is None else [*parts, values <= literal(bounds[1])]


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is no bound")  # comparisons with NaN are never true, so nothing would be found
    return value


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
    if low and high and low[: len(high)] > high[: len(low)]:
        raise UsageError(f"--date is {text!r}; the earlier end comes first.", f"--date {high}:{low}")
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
    return RECORDS.c.key.in_(select(TAGS.c.key).where(TAGS.c.tag == literal(tag.strip())))


def why_nothing(store: Store, filters: Filters) -> list[str]:
    """Name the shorthands that leave no record of a store, whatever their value: a typing error, or unknown data."""
    sentences = []
    with store.connect() as connection:
        for option in ("sex", *_RANGES, "date"):
            values = RECORDS.c[ALIASES.get(option, option)]
            known = select(values).where(values.is_not(None)).limit(1)
            if getattr(filters, option) is not None and connection.scalar(known) is None:
                sentences.append(f"--{option} leaves nothing: this index knows the {values.name} of no record.")
        tags: Sequence[str] = connection.scalars(select(TAGS.c.tag).distinct()).all() if filters.tags else ()
    by_folded = {tag.lower(): tag for tag in tags}
    for tag in filters.tags:
        folded = tag.strip().lower()
        if folded not in by_folded:
            near = difflib.get_close_matches(folded, by_folded, n=1)
            meant = f"; did you mean {by_folded[near[0]]!r}?" if near else "."
            sentences.append(f"No record of this index has the tag {tag.strip()!r}{meant}")
    return sentences
