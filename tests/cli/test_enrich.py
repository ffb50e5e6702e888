"""`fgclep enrich` as a user types it."""

import csv
import json
import re
from pathlib import Path

import pytest

from cli.main import COMMANDS, run
from fgclep.enrichment.knowledge import knowledge


@pytest.fixture(autouse=True)
def _home(fgclep_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "enrich", "cli.enrich:app")


def said(capsys: pytest.CaptureFixture[str], *words: object) -> dict:
    """Run with --json and return what it printed."""
    assert run(["enrich", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_whole_journey_with_the_knowledge_base(synthetic_tree, tiny_bundle, fgclep_home, tmp_path, capsys) -> None:
    plan = said(capsys, "plan", "--data", synthetic_tree)
    assert (plan["records"], plan["answered"], plan["output_tokens"]) == (40, 0, 0)
    assert plan["to_ask"] == plan["unique_texts"] <= 40
    assert not fgclep_home.exists()  # planning writes nothing

    ran = said(capsys, "run", "--data", synthetic_tree)
    assert ran["answered_now"] == plan["unique_texts"]
    assert ran["run"] == plan["run"]
    assert said(capsys, "run", "--data", synthetic_tree)["answered_now"] == 0
    assert said(capsys, "plan", "--data", synthetic_tree)["to_ask"] == 0

    words = ("validate", "--data", synthetic_tree, "--model", tiny_bundle, "--workers", 1)
    kept = said(capsys, *words, "--quantile", 0.5)
    assert (kept["validation"], kept["records"]) == (1, 40)
    assert 0 < kept["accepted"] < kept["proposed"]
    assert kept["truth"]["judged"] > 0
    assert len(kept["rejected"]) == 10

    status = said(capsys, "status")
    assert [row["key"] for row in status["runs"]] == [plan["run"]]
    assert status["validations"][0]["report"]["accepted"] == kept["accepted"]

    assert run(["enrich", "export", str(tmp_path / "out.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(rows) == 40
    assert sum(len(row["features"]) for row in rows) == kept["accepted"]
    known = {feature for criteria in knowledge().values() for feature in criteria.features}
    for row in rows:
        assert set(row["features"]) <= known
        assert all(feature in row["text"] for feature in row["features"])
        assert row["text"].startswith(row["report"].splitlines()[0].strip(" ."))
    assert run(["enrich", "export", str(tmp_path / "out.csv"), "--validation", "1", "--limit", "5"]) == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        assert [row["record_id"] for row in csv.DictReader(file)] == [row["record_id"] for row in rows[:5]]


def test_people_read_tables(synthetic_tree, tiny_bundle, capsys) -> None:
    assert run(["enrich", "run", "--data", str(synthetic_tree)]) == 0
    capsys.readouterr()
    words = ["enrich", "validate", "--data", str(synthetic_tree), "--model", str(tiny_bundle), "--workers", "1"]
    assert run(words) == 0
    printed = capsys.readouterr()
    assert "--quantile" in printed.err  # an untrained model and the paper's threshold
    assert re.search(r"accepted +[\d,]+ of [\d,]+ proposals", printed.out)
    assert re.search(r"accepting all +0\.\d+ of \d+", printed.out)
    assert run(["enrich", "status"]) == 0
    out = capsys.readouterr().out
    assert "knowledge-base@" in out
    assert "cosine 0.95" in out


def test_a_plan_for_a_language_model_counts_tokens_and_hours(synthetic_tree, capsys) -> None:
    words = ("plan", "--data", synthetic_tree, "--backend", "http", "--llm", "nobody/nothing")
    plan = said(capsys, *words, "--tokens-per-second", 50)
    assert "4 characters per token" in plan["tokenizer"]
    assert plan["prompt_tokens"] == plan["to_ask"] * plan["shared_prompt_tokens"] + plan["report_tokens"]
    assert plan["output_tokens"] == 100 * plan["to_ask"]
    assert plan["hours"] == {"50": pytest.approx(plan["output_tokens"] / 50 / 3600)}
    assert run(["enrich", *map(str, words)]) == 0
    out = capsys.readouterr().out
    assert all(f"hours at {rate}/s" in out for rate in (3000, 6000, 12000))


def test_a_plan_counts_with_the_models_own_tokenizer(synthetic_tree, tiny_bundle, capsys) -> None:
    from transformers import AutoTokenizer

    from fgclep.datasets import open_dataset
    from fgclep.enrichment.prompts import build_messages
    from fgclep.enrichment.worklist import collect_texts

    plan = said(capsys, "plan", "--data", synthetic_tree, "--backend", "vllm", "--llm", tiny_bundle)
    tokenizer = AutoTokenizer.from_pretrained(tiny_bundle)
    texts = collect_texts(open_dataset(synthetic_tree).iter_infos()).texts.values()
    assert plan["tokenizer"] == str(tiny_bundle)
    assert plan["report_tokens"] == sum(len(tokenizer.tokenize(text)) for text in texts)
    assert plan["shared_prompt_tokens"] == len(tokenizer.tokenize(build_messages("")[0]["content"]))


def test_recorded_answers_are_replayed_into_another_store(synthetic_tree, tmp_path, capsys) -> None:
    ran = said(capsys, "run", "--data", synthetic_tree)
    recording, other = tmp_path / "answers.jsonl", tmp_path / "other.sqlite"
    assert run(["enrich", "export", str(recording), "--answers"]) == 0
    capsys.readouterr()
    words = ("--data", synthetic_tree, "--backend", "replay", "--answers", recording, "--store", other)
    replayed = said(capsys, "run", *words)
    assert (replayed["run"], replayed["features"]) == (ran["run"], ran["features"])
    assert replayed["unanswered"] == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run"], 2, "No data set was named"),
        (["run", "--data", "TREE", "--backend", "oracle"], 2, "expected one of knowledge, vllm, http, replay"),
        (["run", "--data", "TREE", "--backend", "vllm"], 2, "needs a language model"),
        (["plan", "--data", "TREE", "--backend", "http"], 2, "needs a language model"),
        (["run", "--data", "TREE", "--backend", "replay"], 2, "needs recorded answers"),
        (["run", "--data", "nowhere"], 3, "nowhere does not exist"),
        (["status"], 3, "nothing was enriched yet"),
        (["validate", "--data", "TREE"], 3, "nothing was enriched yet"),
        (["validate", "--data", "TREE", "--quantile", "2"], 2, "the share to keep"),
        (["validate", "--data", "TREE", "--score", "guess"], 2, "expected one of cosine, sigmoid, calibrated"),
        (["export", "out.jsonl"], 3, "nothing was enriched yet"),
    ],
)
def test_what_cannot_be_done_is_told(synthetic_tree, capsys, words: list[str], code: int, message: str) -> None:
    assert run(["enrich", *(str(synthetic_tree) if word == "TREE" else word for word in words)]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "hint: " in error


def test_a_run_must_be_chosen_among_several_and_offline_means_offline(synthetic_tree, tmp_path, capsys) -> None:
    pytest.importorskip("openai", reason="the client library comes with the server extra")
    head = {"prompt": "features-1", "model": "m", "sampling": None}
    recording = tmp_path / "answers.jsonl"
    assert run(["enrich", "run", "--data", str(synthetic_tree)]) == 0
    assert run(["enrich", "export", str(recording), "--answers"]) == 0
    lines = recording.read_text().splitlines()
    recording.write_text("\n".join([json.dumps(head), *lines[1:]]))
    words = ["enrich", "run", "--data", str(synthetic_tree), "--backend"]
    assert run([*words, "replay", "--answers", str(recording)]) == 0
    capsys.readouterr()
    assert run(["enrich", "export", str(recording), "--answers"]) == 2
    assert "several runs are stored" in capsys.readouterr().err
    far = [*words, "http", "--llm", "m", "--url", "https://example.org/v1"]
    assert run(["--offline", *far]) == 2
    assert "is not on this machine" in capsys.readouterr().err


def test_a_server_that_is_down_costs_nothing_that_was_answered(synthetic_tree, tmp_path, capsys) -> None:
    pytest.importorskip("openai", reason="the client library comes with the server extra")
    (tmp_path / "key").write_text("secret-word\n")
    words = ["run", "--data", str(synthetic_tree), "--backend", "http", "--llm", "m", "--url", "http://127.0.0.1:9/v1"]
    assert run(["enrich", *words, "--retries", "0", "--key-file", str(tmp_path / "key")]) == 1
    error = capsys.readouterr().err
    assert "cannot be reached" in error
    assert "secret-word" not in error
    assert run(["enrich", *words, "--key-file", str(tmp_path / "none")]) == 3
