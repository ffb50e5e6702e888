"""Sets of hashed ids answer as Python's own sets of the ids do."""

from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.ids import IdSet, repeated_ids

IDS = st.lists(st.text(max_size=8), max_size=60)


@settings(deadline=None)
@given(there=IDS, asked=IDS)
def test_knows_what_is_there(there: list[str], asked: list[str]) -> None:
    known = IdSet(there)
    assert len(known) == len(set(there))
    assert [record_id in known for record_id in asked] == [record_id in set(there) for record_id in asked]


@settings(deadline=None)
@given(IDS)
def test_finds_what_comes_twice_in_order(ids: list[str]) -> None:
    expected = [record_id for record_id in dict.fromkeys(ids) if ids.count(record_id) > 1]
    assert repeated_ids(lambda: ids) == expected
