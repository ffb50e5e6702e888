"""Asking: each unique text once per prompt, model and sampling; kill -9 loses a slice at most; nothing breaks a run."""

import json
import multiprocessing
import signal
import sqlite3
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fgclep.enrichment.export import write_answers
from fgclep.enrichment.providers.base import Reply, Sampling
from fgclep.enrichment.providers.replay import Replay
from fgclep.enrichment.providers.vllm_engine import VllmEngine
from fgclep.enrichment.run import run_enrichment
from fgclep.enrichment.store import EnrichmentStore
from fgclep.enrichment.worklist import collect_texts, hash_of
from fgclep.errors import CorruptionError, DataError, FgclepError, NotSetUpError
from fgclep.record import RecordInfo
from tests.fgclep.enrichment_fakes import TEXTS, FakeProvider, run_and_die

PROCESSES = multiprocessing.get_context("forkserver")  # one import for all of them; SIGKILL ends each one wholly
PROCESSES.set_forkserver_preload(["tests.fgclep.enrichment_fakes"])


@pytest.fixture
def store(tmp_path):
    opened = EnrichmentStore(tmp_path / "enrichment.sqlite", create=True)
    yield opened
    opened.close()


def info(number: int, *lines: str) -> RecordInfo:
    return RecordInfo(f"wfdb:{number}", "wfdb", str(number), str(number), f"r{number}", report_lines=lines)


def answers_of(path: Path) -> list[tuple]:
    with sqlite3.connect(path) as connection:
        return sorted(connection.execute("SELECT text_hash, answer, problem, features, cut FROM answers"))


class TestWorklist:
    def test_texts_that_say_the_same_are_one(self) -> None:
        infos = [
            info(0, "Sinus rhythm", "LVH"),
            info(1, "SINUS RHYTHM.", "*** LVH ***"),
            info(2, "AF"),
            info(3),
            info(4, ""),
        ]
        worklist = collect_texts(infos)
        assert list(worklist.texts.values()) == ["sinus rhythm. lvh", "af"]
        assert (worklist.records, worklist.without_report) == (5, 2)
        assert hash_of(infos[0]) == hash_of(infos[1]) == next(iter(worklist.texts))
        assert hash_of(infos[3]) is None

    def test_the_most_frequent_comes_first(self) -> None:
        texts = ["a b c"] * 2 + ["d e f"] * 5 + ["g h i"]
        assert list(collect_texts(info(n, t) for n, t in enumerate(texts)).texts.values()) == [
            "d e f",
            "a b c",
            "g h i",
        ]


class TestRun:
    def test_every_text_is_asked_once_and_never_again(self, store) -> None:
        provider = FakeProvider()
        tally = run_enrichment(store, TEXTS, provider)
        assert sorted(provider.asked) == sorted(TEXTS.values())
        assert (tally.done, tally.resumed, tally.features, tally.rejected) == (40, 0, 80, 0)
        again = FakeProvider()
        tally = run_enrichment(store, TEXTS, again)
        assert again.asked == []
        assert (tally.done, tally.resumed) == (40, 40)

    def test_new_texts_only_are_asked(self, store) -> None:
        some = dict(list(TEXTS.items())[:15])
        run_enrichment(store, some, FakeProvider())
        provider = FakeProvider()
        run_enrichment(store, TEXTS, provider)
        assert sorted(provider.asked) == sorted(set(TEXTS.values()) - set(some.values()))

    @pytest.mark.parametrize("other", [FakeProvider("other"), FakeProvider(sampling=Sampling(temperature=0.7))])
    def test_another_model_or_sampling_is_another_run(self, store, other) -> None:
        run_enrichment(store, TEXTS, FakeProvider())
        run_enrichment(store, TEXTS, other)
        assert len(other.asked) == len(TEXTS)
        assert [run.answers for run in store.runs()] == [40, 40]

    def test_bad_answers_are_counted_by_class_and_kept(self, store) -> None:
        rubbish = [
            "",
            "no JSON",
            '{"features": 1}',
            '{"features": ["wide QRS"]}',
            '["follow no instruction that stands"]',
        ]

        class Rubbish(FakeProvider):
            def reply(self, report):
                number = int(report.split()[-1])
                return Reply(rubbish[number % 5], cut=number == 3)

        tally = run_enrichment(store, TEXTS, Rubbish())
        expected = {"empty": 8, "not-json": 8, "wrong-schema": 8, "repeats-prompt": 8, "too-long": 1}
        assert tally.problems == expected
        assert store.runs()[0].problems == expected
        assert len(store.features_by_hash(1)) == tally.features == 7

    def test_texts_without_a_reply_are_asked_again(self, store) -> None:
        class Forgetful(FakeProvider):
            def reply(self, report):
                return None if report.endswith("7") else super().reply(report)

        tally = run_enrichment(store, TEXTS, Forgetful())
        assert (tally.done, tally.unanswered) == (36, 4)
        provider = FakeProvider()
        tally = run_enrichment(store, TEXTS, provider)
        assert sorted(provider.asked) == [f"report number {n}" for n in (17, 27, 37, 7)]
        assert (tally.done, tally.resumed) == (40, 36)

    def test_a_text_that_is_never_answered_stops_no_run(self, store) -> None:
        class Stubborn(FakeProvider):
            def reply(self, report):
                return None if report.endswith(" 7") else super().reply(report)

        texts = dict(list(TEXTS.items())[:10])
        for resumed in (0, 9, 9):
            tally = run_enrichment(store, texts, Stubborn())
            assert (tally.done, tally.resumed, tally.unanswered) == (9, resumed, 1)
            assert tally.warning == "1 reports have no answer; the last: no reply"

    @pytest.mark.parametrize(("heard", "silent"), [(0, 8), (16, 24)])
    def test_a_provider_without_any_answer_stops_the_run(self, store, heard: int, silent: int) -> None:
        """At once if it never answered, else after three slices."""

        class Silent(FakeProvider):
            def reply(self, report):
                return None if len(self.asked) > heard else super().reply(report)

        told = rf"fake answered none of {silent} reports in a row \(no reply\); the answers to {heard} are kept"
        with pytest.raises(FgclepError, match=told):
            run_enrichment(store, TEXTS, Silent())
        assert store.runs()[0].answers == heard

    def test_what_utf8_cannot_hold_is_stored_all_the_same(self, store) -> None:
        class Broken(FakeProvider):
            def reply(self, report):
                return Reply('{"features": ["wide \ud83d QRS\x00"]}')

        assert run_enrichment(store, TEXTS, Broken()).done == 40


@pytest.mark.parametrize(("slices", "when"), [(1, "asking"), (3, "asking"), (2, "storing"), (5, "storing")])
def test_killed_runs_go_on_where_they_were(tmp_path, slices, when) -> None:
    path = tmp_path / "killed.sqlite"
    process = PROCESSES.Process(target=run_and_die, args=(path, slices, when))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    stored = len(answers_of(path))
    assert stored == 8 * (slices - 1)  # whole slices, and all but the one in hand

    rest = FakeProvider()
    store = EnrichmentStore(path, create=False)
    run_enrichment(store, TEXTS, rest)
    store.close()
    assert len(rest.asked) == len(TEXTS) - stored
    undisturbed = EnrichmentStore(tmp_path / "undisturbed.sqlite", create=True)
    run_enrichment(undisturbed, TEXTS, FakeProvider())
    undisturbed.close()
    assert answers_of(path) == answers_of(tmp_path / "undisturbed.sqlite")


def test_a_report_that_vllm_refuses_stays_unanswered_alone_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    class Picky:
        def __init__(self, **arguments: object) -> None:
            pass

        def chat(self, conversations, params, *, use_tqdm):
            if any("too long" in message["content"] for (message,) in conversations):
                raise ValueError("longer than the model's context")
            output = SimpleNamespace(text="{}", token_ids=(1,), finish_reason="stop")
            return [SimpleNamespace(outputs=[output], prompt_token_ids=(1, 2))] * len(conversations)

    vllm = SimpleNamespace(LLM=Picky, SamplingParams=dict)
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setitem(sys.modules, "vllm.exceptions", SimpleNamespace(VLLMValidationError=ValueError))
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", SimpleNamespace(StructuredOutputsParams=dict))
    engine = VllmEngine("hub/model", Sampling(), {})
    replies = engine.answer(["sinus rhythm", "too long", "atrial fibrillation"])
    assert [reply is not None for reply in replies] == [True, False, True]
    assert engine.failure == "longer than the model's context"


class TestReplay:
    def test_recorded_answers_fill_another_store_with_the_same(self, store, tmp_path) -> None:
        class Mixed(FakeProvider):
            def reply(self, report):
                return Reply("rubbish", cut=True) if report.endswith("3") else super().reply(report)

        run_enrichment(store, TEXTS, Mixed())
        (run,) = store.runs()
        assert write_answers(tmp_path / "answers.jsonl", Mixed().identity, store.iter_answers(run.id)) == 40
        other = EnrichmentStore(tmp_path / "other.sqlite", create=True)
        run_enrichment(other, TEXTS, Replay(tmp_path / "answers.jsonl"))
        assert other.runs()[0].key == run.key
        other.close()
        assert answers_of(tmp_path / "other.sqlite") == answers_of(store.path)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "line 1: found ''"),
            ("[1]\n", "line 1: .* expected a JSON object"),
            ('{"model": "m"}\n', "line 1: .* the keys prompt, model and sampling"),
            ('{"prompt": "", "model": "m", "sampling": {"heat": 1}}\n', "line 1"),
            ('{"prompt": "", "model": "m", "sampling": null}\n{"answer": "x"}\n', "line 2: .* report and answer"),
        ],
    )
    def test_a_damaged_file_is_named_with_its_line(self, tmp_path, content, message) -> None:
        (tmp_path / "answers.jsonl").write_text(content)
        with pytest.raises(DataError, match=message):
            Replay(tmp_path / "answers.jsonl")

    def test_a_missing_file(self, tmp_path) -> None:
        with pytest.raises(NotSetUpError, match="does not exist"):
            Replay(tmp_path / "none.jsonl")


class TestStore:
    def test_a_store_that_does_not_exist_is_not_made_by_reading(self, tmp_path) -> None:
        with pytest.raises(NotSetUpError, match="nothing was enriched yet"):
            EnrichmentStore(tmp_path / "none.sqlite", create=False)
        assert list(tmp_path.iterdir()) == []

    def test_another_file_is_refused(self, tmp_path) -> None:
        (tmp_path / "x.sqlite").write_bytes(b"no database " * 200)
        with pytest.raises(CorruptionError, match=r"x\.sqlite is not a readable enrichment store"):
            EnrichmentStore(tmp_path / "x.sqlite", create=True)

    def test_another_database_is_left_alone(self, tmp_path) -> None:
        path = tmp_path / "library.sqlite"
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE notes (text)")
        with pytest.raises(CorruptionError, match="another database, with the tables notes"):
            EnrichmentStore(path, create=True)
        with sqlite3.connect(path) as connection:
            assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("notes",)]

    def test_a_full_disk_keeps_what_was_stored(self, store) -> None:
        run_enrichment(store, dict(list(TEXTS.items())[:8]), FakeProvider())
        with store._transaction() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")  # as if not a page more could be written

        class Verbose(FakeProvider):
            def reply(self, report):
                return Reply(json.dumps({"features": ["wide QRS"], "note": "x" * 7000}))

        with pytest.raises(FgclepError, match="disk is full; what was stored before is kept"):
            run_enrichment(store, TEXTS, Verbose())
        assert store.runs()[0].answers == 8

    def test_a_validation_and_its_features_come_back(self, store) -> None:
        run_enrichment(store, TEXTS, FakeProvider())
        accepted = [("ptb-xl:1", [("wide QRS", 0.97)]), ("ptb-xl:2", [("wide QRS", 0.99), ("no P waves", 1.0)])]
        row = {"run_id": 1, "data": "tree", "model": "m", "rule": '{"score": "cosine"}', "report": '{"accepted": 3}'}
        number = store.add_validation(row, accepted)
        assert store.accepted(number) == dict(accepted)
        (found,) = store.validations()
        assert (found["rule"], found["report"]) == ({"score": "cosine"}, {"accepted": 3})
        assert store.runs()[0].validations == 1
