"""Searching equals brute force on the rows that pass, whatever is filtered, grouped or limited."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgclep.errors import UsageError
from indexer.backends.base import brute_force
from indexer.open import OpenIndex
from retrieval.encoder import QueryEncoder
from retrieval.filters import Filters
from retrieval.query import Query
from retrieval.searcher import WEAK_SCORE, Searcher

TEXTS = ["1 0 0 0", "1 1 0 0", "-1 0.5 0.2 0", "0.3 0.1 -1 2"]


def stored_rows(index: OpenIndex) -> list[dict[str, Any]]:
    """All rows of the store in the order of the index."""
    return list(index.store.records([int(key) for key in index.keys]).values())


def expected_records(index: OpenIndex, encoder: QueryEncoder, query: Query, low: int, sex: str | None) -> list[str]:
    """Answer a query the slow way: pick rows in Python, rank them all, then group and cut."""
    rows = stored_rows(index)
    passing = [
        number
        for number, row in enumerate(rows)
        if row["age_years"] is not None and row["age_years"] >= low and sex in (None, row["sex"])
    ]
    assert query.text is not None
    vector = encoder.encode_text(query.text)
    if not passing:
        return []
    similarities, order = brute_force(index.vectors[passing], vector[None], len(passing))
    shown: list[str] = []
    per_patient: dict[str, int] = {}
    for similarity, position in zip(similarities[0], order[0], strict=True):
        row = rows[passing[position]]
        if query.min_score is not None and encoder.score(np.array([similarity]))[0] < query.min_score:
            continue
        per_patient[row["subject_id"]] = per_patient.get(row["subject_id"], 0) + 1
        if query.per_patient is None or per_patient[row["subject_id"]] <= query.per_patient:
            shown.append(row["record_id"])
    return shown[: query.limit]


@settings(deadline=None, max_examples=150)
@given(
    text=st.sampled_from(TEXTS),
    limit=st.integers(1, 100),
    low=st.integers(0, 95),
    sex=st.sampled_from([None, "F", "M"]),
    per_patient=st.sampled_from([None, 1, 2, 5]),
    min_score=st.sampled_from([None, 0.0, 0.3, 0.9, 1.0]),
)
def test_a_search_equals_brute_force_on_the_rows_that_pass(
    index: OpenIndex,
    encoder: QueryEncoder,
    text: str,
    limit: int,
    low: int,
    sex: str | None,
    per_patient: int | None,
    min_score: float | None,
) -> None:
    query = Query(text, (), limit, Filters(age=f"{low}:", sex=sex), per_patient, min_score)
    result = Searcher(index, encoder).search(query)
    assert [hit.row["record_id"] for hit in result.hits] == expected_records(index, encoder, query, low, sex)
    assert [hit.rank for hit in result.hits] == list(range(1, len(result.hits) + 1))


def test_asking_for_more_than_there_is_returns_everything(index: OpenIndex, encoder: QueryEncoder) -> None:
    result = Searcher(index, encoder).search(Query("1 0 0 0", limit=10_000))
    assert {hit.row["key"] for hit in result.hits} == set(index.keys.tolist())
    assert result.considered == result.total == 80
    assert result.notes == ("80 of 10000: the index holds only 80 records to rank.",)


def test_percentile_is_the_share_of_the_whole_corpus_below(index: OpenIndex, encoder: QueryEncoder) -> None:
    query = Query("1 1 0 0", limit=100, filters=Filters(sex="F"))
    everything = Searcher(index, encoder).search(Query("1 1 0 0", limit=80)).hits
    similarities = [hit.similarity for hit in everything]
    for hit in Searcher(index, encoder).search(query).hits:
        below = sum(similarity < hit.similarity for similarity in similarities)
        assert hit.percentile == pytest.approx(100.0 * below / 80)


def test_an_example_finds_the_records_nearest_to_it_without_itself(index: OpenIndex, encoder: QueryEncoder) -> None:
    result = Searcher(index, encoder).search(Query(like=("synthetic:3-5",), limit=100))
    order = [hit.row["record_id"] for hit in result.hits]
    assert "synthetic:3-5" not in order and len(order) == result.considered == 79
    near = brute_force(index.vectors, index.vectors[5:6], 80)[1][0]
    assert order == [f"synthetic:3-{row}" for row in near if row != 5]
    assert all(hit.score is None for hit in result.hits)


def test_text_and_examples_are_the_mean_of_their_unit_vectors(index: OpenIndex, encoder: QueryEncoder) -> None:
    result = Searcher(index, encoder).search(Query("0 3 0 0", ("1005", "synthetic:3-9"), limit=3))
    mean = (encoder.encode_text("0 1 0 0") + index.vectors[5] + index.vectors[9]) / 3.0
    allowed = np.ones(80, np.bool_)
    allowed[[5, 9]] = False
    _, rows = brute_force(index.vectors, (mean / np.linalg.norm(mean))[None].astype(np.float32), 3, allowed)
    assert [hit.row["record_id"] for hit in result.hits] == [f"synthetic:3-{row}" for row in rows[0]]
    assert result.plan == (
        "mean of the unit vectors of text '0 3 0 0' and the ECG 1005 and the ECG synthetic:3-9; "
        "examples are left out of the hits"
    )


def test_an_ecg_file_can_be_the_example(index: OpenIndex, encoder: QueryEncoder, shared_data: Path) -> None:
    header = next((shared_data / "ptbxl" / "records100").rglob("*.hea"))
    result = Searcher(index, encoder).search(Query(like=(str(header),), limit=5))
    assert [hit.row["record_id"] for hit in result.hits] == [
        f"synthetic:3-{row}" for row in brute_force(index.vectors, np.eye(4, dtype=np.float32)[3:], 5)[1][0]
    ]


@pytest.mark.parametrize("ref", ["", "nothing:1", "99", "no/such/file.hea"])
def test_a_ref_that_names_nothing_is_refused_in_one_sentence(index: OpenIndex, encoder: QueryEncoder, ref: str) -> None:
    with pytest.raises(UsageError, match=r"neither a record or study id of index toy .*synthetic:3-0.* nor the path"):
        Searcher(index, encoder).search(Query(like=(ref,)))


@pytest.mark.parametrize(
    ("query", "note"),
    [
        (Query("1 0 0 0", limit=5), None),
        (Query("1 0 0 0", filters=Filters(where="qrs <= 86")), "7 of 10: only 7 records match the filters."),
        (Query("1 0 0 0", filters=Filters(where="qrs = 80")), "1 of 10: only 1 record matches the filters."),
        (Query("1 0 0 0", filters=Filters(where="qrs < 0")), "0 of 10: no record matches the filters."),
        (
            Query("1 0 0 0", limit=40, per_patient=1),
            "25 of 40: of 80 records considered, the rest fail: at most 1 per patient.",
        ),
    ],
)
def test_fewer_hits_than_asked_for_are_explained(
    index: OpenIndex, encoder: QueryEncoder, query: Query, note: str | None
) -> None:
    assert Searcher(index, encoder).search(query).notes[:1] == (() if note is None else (note,))


def test_a_query_without_a_likely_hit_is_told_so(index: OpenIndex, encoder: QueryEncoder) -> None:
    opposite = Filters(where="record in ('synthetic:3-0', 'synthetic:3-1')")
    vector = -(index.vectors[0] + index.vectors[1])
    text = " ".join(str(value) for value in vector)
    result = Searcher(index, encoder).search(Query(text, limit=2, filters=opposite))
    assert result.hits[0].score is not None and result.hits[0].score < WEAK_SCORE
    assert result.notes[0].startswith("No likely hit for")


def test_the_json_of_a_result_has_the_promised_names(index: OpenIndex, encoder: QueryEncoder) -> None:
    content: Any = Searcher(index, encoder).search(Query("1 0 0 0", limit=1, filters=Filters(tags=("SR",)))).to_dict()
    assert list(content) == ["schema", "query", "index", "considered", "total", "notes", "hits"]
    assert content["schema"] == 1 and content["considered"] == 40
    assert content["query"]["filters"] == {"tags": ["SR"]}
    assert content["index"]["model_fingerprint"] == "f" * 16
    assert list(content["hits"][0]) == [
        "rank", "record", "subject_id", "study_id", "similarity", "score", "percentile", "path", "dataset", "fold",
        "ecg_time", "age_years", "sex", "heart_rate_bpm", "rr_interval_ms", "pr_interval_ms", "qrs_duration_ms",
        "qt_interval_ms", "qtc_ms", "p_axis_deg", "qrs_axis_deg", "t_axis_deg", "fs_hz", "duration_s", "flags", "tags",
        "report", "evidence",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "bad",
    [
        {"text": "  "},
        {},
        {"text": "a", "limit": 0},
        {"text": "a", "per_patient": 0},
        {"text": "a", "min_score": 1.5},
        {"text": "a", "like": ("x",), "min_score": 0.5},
    ],
)
def test_a_query_that_makes_no_sense_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Query(**bad)


def test_a_misspelt_tag_is_told_with_the_nearest(index: OpenIndex, encoder: QueryEncoder) -> None:
    result = Searcher(index, encoder).search(Query("1 0 0 0", filters=Filters(tags=("SSR", "sr", "xyz"))))
    assert result.hits == ()
    assert result.notes[1:] == (
        "No record of this index has the tag 'SSR'; did you mean 'SR'?",
        "No record of this index has the tag 'xyz'.",
    )


def test_a_filter_on_what_the_index_does_not_know_is_told(index: OpenIndex, encoder: QueryEncoder) -> None:
    result = Searcher(index, encoder).search(Query("1 0 0 0", filters=Filters(qtc="300:", date="2015:", qrs="80:")))
    assert result.notes == (
        "0 of 10: no record matches the filters.",
        "--qtc leaves nothing: this index knows the qtc_ms of no record.",
        "--date leaves nothing: this index knows the ecg_time of no record.",
    )
