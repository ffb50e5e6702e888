"""Filter expressions: the SQL they become selects what a plain reading of the expression selects."""

import operator
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Engine

from fgclep.errors import UsageError
from fgclep.record import Measurements, RecordInfo
from indexer.rows import record_row
from indexer.store import open_store, write_store
from retrieval.filters import Filters
from retrieval.where import RECORDS, column_name, parse_where

ROWS: list[dict[str, Any]] = [
    {"key": 1, "age_years": 70.0, "sex": "F", "qrs_duration_ms": 90.0, "ecg_time": "2015-03-09 10:00:00",
     "study_id": "40689238", "report": ["Sinus rhythm", "Low voltage in limb leads"], "tags": ["LVOLT", "SR"]},
    {"key": 2, "age_years": 30.0, "sex": "M", "qrs_duration_ms": 150.0, "ecg_time": "2015-12-31 23:59:00",
     "study_id": "2", "report": ["Atrial fibrillation"], "tags": ["AFIB"]},
    {"key": 3, "age_years": None, "sex": None, "qrs_duration_ms": 120.0, "ecg_time": "2016-06-01 00:00:00",
     "study_id": "3", "report": [], "tags": []},
    {"key": 4, "age_years": 65.0, "sex": "F", "qrs_duration_ms": None, "ecg_time": None, "study_id": "4",
     "report": ["It's a 50% \"block\"; low T voltage"], "tags": ["SR"]},
]  # fmt: skip


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A real store of these rows."""
    path = tmp_path_factory.mktemp("store") / "store.sqlite"
    rows = []
    for row in ROWS:
        info = RecordInfo(
            f"wfdb:{row['key']}",
            "wfdb",
            "s",
            row["study_id"],
            "path",
            row["ecg_time"],
            row["age_years"],
            row["sex"],
            tuple(row["report"]),
            tuple(row["tags"]),
            measurements=Measurements(qrs_duration_ms=row["qrs_duration_ms"]),
        )
        rows.append(record_row(row["key"], info, fs_hz=100.0, duration_s=10.0, flags=()))
    write_store(path, rows, [], [])
    with open_store(path) as store:
        yield store.engine


def keys(engine: Engine, condition: Any) -> list[int]:
    with engine.connect() as connection:
        return list(connection.scalars(select(RECORDS.c.key).where(condition).order_by(RECORDS.c.key)))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("age >= 65", [1, 4]),
        ("AGE_YEARS>=65 AND Sex='F' and qrs between 80 and 100", [1]),
        ("age < 65 or qrs >= 120", [2, 3]),
        ("age < 65 or sex = 'F' and qrs is null", [2, 4]),
        ("(age < 65 or sex = 'F') and qrs is null", [4]),
        ("not sex = 'F'", [2]),
        ("not not sex = 'F'", [1, 4]),
        ("sex is null", [3]),
        ("sex is not null and not (age < 50)", [1, 4]),
        ("sex in ('F')", [1, 4]),
        ("study not in (40689238, '2')", [3, 4]),
        ("study_id = 40689238", [1]),
        ("qrs not between 100 and 140", [1, 2]),
        ("qrs > age", [1, 2]),
        ("report like '%voltage%'", [1, 4]),
        ("report not like 'sinus%'", [2, 3, 4]),
        ("report is null", [3]),
        ("report is not null", [1, 2, 4]),
        ("flags is null and qt is null", [1, 2, 3, 4]),
        ("report like 'It''s%'", [4]),
        ('report like "%""block""%"', [4]),
        ("age != 7e1", [2, 4]),
        ("axis < -30", []),
        ("date > '2016'", [3]),
    ],
)
def test_an_expression_selects_the_rows_it_says(engine: Engine, expression: str, expected: list[int]) -> None:
    assert keys(engine, parse_where(expression)) == expected


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("agee > 3", "Did you mean 'age"),
        ("tag = 'AFIB'", "Tags are no column"),
        ("colour = 'red'", "Unknown column 'colour'. The columns are age_years, "),
        ("age > 'old'", "holds numbers"),
        ("age like '6%'", "holds numbers"),
        ("sex = F", "sex = 'F'"),
        ("sex = age", "cannot be compared"),
        ("age >", "expected a number"),
        ("age > 3 sex = 'F'", "expected 'and', 'or' or the end at character 9"),
        ("(age > 3", "expected ')'"),
        ("age > 3)", "expected 'and'"),
        ("age", "expected a comparison"),
        ("3 < age", "expected a column name"),
        ("sex = 'F", "not closed"),
        ("age > 3; drop table records", "';"),
        ("age between 3", "expected 'and'"),
        ("sex in ()", "expected text in quotes"),
        ("age > 12abc", "not understood"),
        ("  ", "empty"),
        ("(" * 60 + "age > 3" + ")" * 60, "nests deeper"),
        ("age > 3 or " * 1000 + "age > 3", "characters"),
    ],
)
def test_a_bad_expression_is_refused_in_words(expression: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        parse_where(expression)


COMPARE = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def as_number(column: str) -> st.SearchStrategy[tuple[str, Any]]:
    """Comparisons of one number column: their text, and the three-valued reading of it (None: unknown)."""

    def build(symbol: str, value: float) -> tuple[str, Any]:
        def reading(row: dict[str, Any]) -> bool | None:
            return None if row[column] is None else COMPARE[symbol](row[column], value)

        return f"{column} {symbol} {value}", reading

    return st.builds(build, st.sampled_from(sorted(COMPARE)), st.sampled_from([30, 65, 70.0, 90, 120, 150.5, -1]))


def join(left: tuple[str, Any], word: str, right: tuple[str, Any]) -> tuple[str, Any]:
    decided = word == "or"  # the value that settles the whole, whatever the other side is

    def reading(row: dict[str, Any]) -> bool | None:
        sides = (left[1](row), right[1](row))
        if decided in sides:
            return decided
        return None if None in sides else not decided

    return f"({left[0]}) {word} ({right[0]})", reading


def deny(part: tuple[str, Any]) -> tuple[str, Any]:
    return f"not ({part[0]})", lambda row: None if part[1](row) is None else not part[1](row)


EXPRESSIONS = st.recursive(
    st.one_of(as_number("age_years"), as_number("qrs_duration_ms")),
    lambda inner: st.one_of(st.builds(join, inner, st.sampled_from(["and", "or"]), inner), st.builds(deny, inner)),
    max_leaves=8,
)


@settings(deadline=None, max_examples=150)
@given(EXPRESSIONS)
def test_sql_agrees_with_three_valued_logic(engine: Engine, case: tuple[str, Any]) -> None:
    expression, reading = case
    assert keys(engine, parse_where(expression)) == [row["key"] for row in ROWS if reading(row) is True]


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=40))
def test_what_a_user_types_never_becomes_sql(value: str) -> None:
    quoted = value.replace("'", "''")
    compiled = parse_where(f"sex = '{quoted}'").compile(dialect=sqlite.dialect())
    assert str(compiled) == "records.sex = ?"
    assert list(compiled.params.values()) == [value]


@settings(deadline=None, max_examples=150)
@given(
    st.text(
        st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.sampled_from("\"'()*:^-+ OR"),
        max_size=20,
    )
)
def test_any_text_may_be_looked_for_in_reports(engine: Engine, value: str) -> None:
    try:
        condition = Filters(report_has=(value,)).condition()
    except UsageError:
        return
    assert set(keys(engine, condition)) <= {1, 2, 4}


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet="age sx'\"()<>=,.;-1not and or in like null", max_size=40))
def test_any_text_is_parsed_or_refused(value: str) -> None:
    try:
        parse_where(value)
    except UsageError as refusal:
        assert refusal.message.endswith((".", "'"))


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(), [1, 2, 3, 4]),
        (Filters(sex="f"), [1, 4]),
        (Filters(sex="male"), [2]),
        (Filters(age="65:"), [1, 4]),
        (Filters(age=":65"), [2, 4]),
        (Filters(age="65:70", qrs=":100"), [1]),
        (Filters(where="age > 20", sex="M"), [2]),
        (Filters(date="2015:2015"), [1, 2]),
        (Filters(date="2015-04:"), [2, 3]),
        (Filters(date="2015-12:2015"), [2]),
        (Filters(date=":2015-03-09"), [1]),
        (Filters(report_has=("low voltage",)), [1]),
        (Filters(report_has=("LOW", "t voltage")), [4]),
        (Filters(report_lacks=("voltage",)), [2, 3]),
        (Filters(report_has=('"block" OR NOT* low',)), []),
        (Filters(tags=("sr",)), [1, 4]),
        (Filters(tags=("SR", "LVOLT")), [1]),
    ],
)
def test_shorthands_select_the_rows_they_say(engine: Engine, filters: Filters, expected: list[int]) -> None:
    condition = filters.condition()
    assert [row["key"] for row in ROWS] == expected if condition is None else keys(engine, condition) == expected


@pytest.mark.parametrize(
    ("filters", "says"),
    [
        (Filters(age="40"), "expected LOW:HIGH"),
        (Filters(age=":"), "expected LOW:HIGH"),
        (Filters(age="a:b"), "expected numbers"),
        (Filters(age="nan:60"), "expected numbers"),
        (Filters(rate="60:inf"), "expected numbers"),
        (Filters(qtc="500:400"), "lower end comes first"),
        (Filters(sex="x"), "expected F or M"),
        (Filters(date="yesterday:"), "expected YYYY"),
        (Filters(date="2016:2015-12"), "the earlier end comes first"),
        (Filters(report_has=("--",)), "at least one word"),
        (Filters(tags=(" ",)), "--tag is empty"),
    ],
)
def test_bad_shorthands_are_refused_in_words(filters: Filters, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        filters.condition()


def test_every_alias_names_a_column_and_given_tells_only_what_was_given() -> None:
    assert column_name("RATE") == "heart_rate_bpm"
    assert Filters(sex="F", tags=("SR",)).given() == {"sex": "F", "tags": ["SR"]}
