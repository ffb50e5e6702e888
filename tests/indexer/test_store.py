"""The store gives back what was put in, finds words in reports, and cannot be written once published."""

import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DatabaseError

from fgclep.errors import CorruptionError
from fgclep.record import Measurements, RecordInfo
from indexer.rows import record_row
from indexer.store import MissingRow, RecordRow, Store, SubjectRow, open_store, write_store
from retrieval.where import NUMBER_COLUMNS


def info(number: int) -> RecordInfo:
    return RecordInfo(
        record_id=f"fake:{number}",
        dataset="fake",
        subject_id=f"s{number // 2}",
        study_id=str(number),
        path=f"a/{number}",
        report_lines=("Überleitungsstörung", f"line {number}"),
        tags=("SR", f"T{number}"),
        measurements=Measurements(qrs_duration_ms=90.5),
        extra={"device": "Gerät"},
    )


@pytest.fixture
def store(tmp_path: Path):
    folder = tmp_path / "odd name ?#% ü"  # characters that mean something in a database URL
    folder.mkdir()
    rows = (record_row(3 * i, info(i), fs_hz=500, duration_s=10, flags=("one", "two")) for i in range(5000))
    rejects = [{"record_id": "fake:x", "path": "a/x", "reason": "nan", "detail": "only NaN"}]
    write_store(folder / "store.sqlite", rows, rejects, ["fake:gone"])
    with open_store(folder / "store.sqlite") as opened:
        yield opened


def test_gives_back_every_column_in_the_order_asked(store: Store) -> None:
    found = store.records([2997, 0, 4, 14997])
    assert list(found) == [2997, 0, 14997]
    row = found[2997]
    assert (row["record_id"], row["subject_id"], row["report"]) == ("fake:999", "s499", "Überleitungsstörung\nline 999")
    assert (row["qrs_duration_ms"], row["qtc_ms"], row["age_years"]) == (90.5, None, None)
    assert (row["flags"], row["extra"], row["tags"]) == ("one\ntwo", '{"device": "Gerät"}', ["SR", "T999"])


def test_more_keys_than_sqlite_has_variables(store: Store) -> None:
    assert list(store.records(store.keys().tolist() * 20)) == store.keys().tolist()


def test_finds_records_words_subjects_and_rejects(store: Store) -> None:
    assert store.key_of("fake:7") == 21
    assert store.key_of("fake:none") is None
    assert store.rejects() == [{"record_id": "fake:x", "path": "a/x", "reason": "nan", "detail": "only NaN"}]
    with store.engine.connect() as connection:
        words = text("SELECT rowid FROM reports_fts WHERE reports_fts MATCH 'überleitungsstörung AND 4711'")
        assert connection.scalars(words).all() == [3 * 4711]
        subject = select(SubjectRow.records).where(SubjectRow.subject_id == "s7")
        assert connection.scalar(subject) == 2
        assert connection.scalars(select(MissingRow.record_id)).all() == ["fake:gone"]


def test_is_one_sound_file_that_nobody_can_write(store: Store) -> None:
    assert [path.name for path in store.path.parent.iterdir()] == ["store.sqlite"]
    assert store.integrity_problem() is None
    with store.engine.connect() as connection, pytest.raises(DatabaseError, match="readonly"):
        connection.execute(text("DELETE FROM records"))


@pytest.mark.parametrize("column", ["sex", "ecg_time", "dataset", *NUMBER_COLUMNS])
def test_filters_read_a_narrow_index_instead_of_whole_rows(column: str, store: Store) -> None:
    with store.connect() as connection:
        asked = (
            select(RecordRow.key).where(getattr(RecordRow, column) > 1, RecordRow.age_years < 50).compile(connection)
        )
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {asked}", (1, 50)).all()
    assert all("USING COVERING INDEX ix_records_filters" in step[-1] for step in plan), plan


def test_a_stream_may_go_on_in_another_thread(store: Store) -> None:
    infos = store.iter_infos()
    first = next(infos)
    with ThreadPoolExecutor(1) as pool:
        others = pool.submit(list, infos).result()
    assert [key for key, _ in (first, *others)] == store.keys().tolist()
    assert (others[0][1].record_id, others[0][1].path) == ("fake:1", "a/1")


def test_a_stream_left_half_read_may_outlive_its_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    complaints: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    infos = store.iter_infos()
    next(infos)
    store.close()
    del infos
    gc.collect()
    assert not complaints


def tags_of(record: RecordInfo) -> list[str]:
    tags: list[str] = record_row(1, record, fs_hz=500, duration_s=10, flags=())["tags"]
    return tags


def test_what_a_report_remarks_on_the_recording_is_a_flag() -> None:
    lines = ("Sinus rhythm", "*** Poor data quality ***", "Artifact in lead(s) V1")
    row = record_row(1, replace(info(1), report_lines=lines), fs_hz=500, duration_s=10, flags=("flat:V2",))
    assert row["flags"].splitlines() == ["flat:V2", "quality:Poor data quality", "quality:Artifact in lead(s) V1"]


def test_tags_are_the_codes_of_the_data_set_and_what_the_report_asserts() -> None:
    lines = ("Sinus bradycardia", "Possible inferior infarct - age undetermined", "T wave inversion in V4", "No LVH")
    tags = tags_of(replace(info(1), tags=("CODE", "sbrad"), report_lines=lines))
    assert tags[:2] == ["CODE", "sbrad"]
    assert {"IMI", "TINV@V4"} <= set(tags)
    assert not {"SBRAD", "LVH"} & set(tags)


def test_a_generated_record_keeps_its_exact_truth() -> None:
    truth = replace(info(1), record_id="synthetic:3-1", tags=("AFLT",), report_lines=("Probable atrial fibrillation",))
    assert tags_of(truth) == ["AFLT"]
    assert "AFIB" in tags_of(replace(truth, record_id="mimic-iv-ecg:1"))


@pytest.mark.parametrize("content", [None, b"", b"this is no database" * 100])
def test_refuses_a_file_that_is_no_store(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorruptionError, match=r"store\.sqlite is not a readable index store"):
        open_store(path)
