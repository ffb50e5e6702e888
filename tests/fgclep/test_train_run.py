"""`fgclep train run`: all three steps, stopped in each of them and gone on with."""

import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.main import run
from fgclep.datasets import open_dataset
from fgclep.datasets.splits import split_of
from fgclep.enrichment.providers.choose import Backend, ProviderChoice
from fgclep.enrichment.providers.knowledge_base import KnowledgeBase
from fgclep.enrichment.store import EnrichmentStore
from fgclep.errors import FgclepError, UsageError
from fgclep.training import pipeline, step_log
from fgclep.training.config import CoarseConfig, PairConfig
from fgclep.training.run_config import EnrichConfig, hints_of_table, read_run_config
from tests.fgclep.pair_fakes import options, write_text_tower

QUICK = (
    "epochs=1", "batch_size=48", "learning_rate=1e-3", "frozen_text_blocks=0", "threads=1", "precision=fp32",
    "checkpoint_steps=1",
)  # fmt: skip


def test_three_steps_stopped_in_each_then_index_and_search(
    tmp_path: Path, fgclep_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fgclep.datasets.synthetic import write_tree

    tree, out = tmp_path / "tree", tmp_path / "run"
    write_tree(tree, n=160, seed=4)
    settings = tmp_path / "run.toml"
    settings.write_text(
        f'[coarse]\npreset = "fg-clep-v1"\ntower = "small"\ntext_tower = "{write_text_tower(tmp_path / "bert")}"\n'
        "[enrich]\nquantile = 0.5\n",
        encoding="utf-8",
    )
    words = ["train", "run", "--config", str(settings), "--data", str(tree), "--out", str(out), "--workers", "1"]
    words += options(*(f"coarse.{setting}" for setting in QUICK), *(f"fine.{setting}" for setting in QUICK))

    def interrupted(owner: Any, name: str, *, when: Callable[[Path], bool] = lambda path: True, also: str = "") -> None:
        """Run the program so that it is interrupted when it comes to a function, with one more setting if told."""
        original = getattr(owner, name)

        def stop(*arguments: Any, **keywords: Any) -> Any:
            result = original(*arguments, **keywords)
            if name != "add" or when(arguments[0].path):
                raise KeyboardInterrupt
            return result

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, stop)
            assert run([*words, *options(*also.split())]) == 130

    def done() -> list[str]:
        return [key for key in json.loads((out / "steps.json").read_text()) if key != "data"]

    interrupted(step_log.StepLog, "add", when=lambda path: path.parent.name == "coarse")
    assert done() == []
    interrupted(pipeline, "run_enrichment", also="enrich.quantile=0.9 fine.batch_size=32")  # not done: free to change
    assert done() == ["coarse"]
    coarse = (out / "coarse" / "bundle" / "model.safetensors").stat().st_mtime_ns
    interrupted(step_log.StepLog, "add", when=lambda path: path.parent.name == "fine")
    assert done() == ["coarse", "enrich"]
    export = (out / "enriched.jsonl").stat().st_mtime_ns
    capsys.readouterr()
    assert run([*words, "-o", "fine.batch_size=32"]) == 2
    assert f"remove {out / 'fine'}" in capsys.readouterr().err

    assert run(words) == 0
    told = capsys.readouterr()
    bundle = told.out.strip()
    assert "step 1, coarse: done before" in told.err
    assert "step 2, enrich: done before" in told.err
    assert (out / "coarse" / "bundle" / "model.safetensors").stat().st_mtime_ns == coarse
    assert (out / "enriched.jsonl").stat().st_mtime_ns == export
    rows = [json.loads(line) for line in (out / "enriched.jsonl").read_text(encoding="utf-8").splitlines()]
    assert any(row["features"] for row in rows)
    store = EnrichmentStore(out / "enrichment.sqlite", create=False)
    training = {info.record_id for info in open_dataset(tree).iter_infos() if split_of(info) == "train"}
    assert store.validations()[-1]["report"]["records"] == len(training) < 160  # no other ECG was looked at
    store.close()
    card = Path(bundle, "README.md").read_text(encoding="utf-8")
    assert "step 3 (FG-CLEP)" in card
    assert "accepted waveform features" in card
    assert str(tmp_path) not in Path(bundle, "config.json").read_text(encoding="utf-8")
    assert run(["index", "build", "--data", str(tree), "--model", bundle, "--name", "mine"]) == 0
    capsys.readouterr()
    assert run(["search", "sinus rhythm", "-n", "3", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["hits"]) == 3
    free = ("fine.threads=2", "coarse.checkpoint_steps=9", "enrich.url=http://127.0.0.1:9/v1", "enrich.retries=0")
    assert run([*words, *options(*free)]) == 0  # they change no result
    assert run([*words, "-o", "fine.seed=8"]) == 2
    assert "another fine.seed" in capsys.readouterr().err


def test_a_provider_is_gone_before_its_features_are_scored(
    synthetic_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A language model in this process would keep its memory from the coarse model."""

    class Scoring(Exception):
        pass

    opened: list[weakref.ref[KnowledgeBase]] = []

    def open_provider(choice: ProviderChoice) -> KnowledgeBase:
        provider = KnowledgeBase()
        opened.append(weakref.ref(provider))
        return provider

    def score(*arguments: Any, **keywords: Any) -> None:
        assert [provider() for provider in opened] == [None]
        raise Scoring

    monkeypatch.setattr(ProviderChoice, "open", open_provider)
    monkeypatch.setattr(pipeline, "validate_features", score)
    with pytest.raises(Scoring):
        pipeline.enrich_reports(synthetic_tree, tmp_path, tmp_path, EnrichConfig(), tmp_path / "x", 1, print)


def test_offline_means_offline_before_anything_is_done(
    synthetic_tree: Path, tmp_path: Path, fgclep_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "run", "--data", str(synthetic_tree), "--out", str(tmp_path / "run")]
    words += options("enrich.backend=http", "enrich.llm=m", "enrich.url=https://example.org/v1")
    assert run(["--offline", *words]) == 2
    assert "https://example.org/v1 is not on this machine" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("[corse]\nepochs = 1\n", {}, "unknown key 'corse'"),
        ("coarse = 3\n", {}, "expected a table"),
        ("[fine]\nepoch = 1\n", {}, "unknown key 'epoch'"),
        ("[enrich]\nbackend = 'gpt'\n", {}, "unknown backend 'gpt'"),
        ("[enrich]\nthreshold = 2.0\n", {}, "threshold"),
        ("[enrich]\nbackend = 'vllm'\n", {}, "needs a language model"),
        ("[enrich]\nconcurrency = 0\n", {}, "expected more than zero"),
        ("[enrich]\nengine = ['seed']\n", {}, "expected key=value"),
        ("", {"seed": 3}, "unknown key 'seed'"),
        ("", {"fine": 3}, "names no key"),
    ],
)
def test_bad_run_settings_are_named(tmp_path: Path, text: str, overrides: dict[str, Any], message: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        read_run_config(file, overrides)


@pytest.mark.parametrize(
    ("table", "hint", "reworded"),
    [
        (
            "fine",
            "-o batch_size=32 -o accumulation=2 and a new --out",
            "-o fine.batch_size=32 -o fine.accumulation=2 and remove run/fine",
        ),
        ("coarse", "Choose a new --out.", "Remove run/coarse."),
        ("coarse", "Repeat the settings or choose a new --out.", "Repeat the settings or remove run/coarse."),
        (
            "enrich",
            "--llm NAME as the server lists it, --key-file PATH",
            "-o enrich.llm=NAME as the server lists it, -o enrich.key_file=PATH",
        ),
        (
            "enrich",
            "-o max_model_len=1536, or a smaller model.",
            "-o 'enrich.engine=[\"max_model_len=1536\"]', or a smaller model.",
        ),
        ("enrich", "fgclep enrich run --data tree", "fgclep enrich run --data tree"),
    ],
)
def test_hints_name_the_settings_of_the_run(table: str, hint: str, reworded: str) -> None:
    with pytest.raises(FgclepError) as caught, hints_of_table(table, Path("run") / table):
        raise FgclepError("failed", hint)
    assert caught.value.hint == reworded


@pytest.mark.parametrize(
    ("overrides", "hint"),
    [
        ({"enrich.threshold": 2.0}, "-o enrich.threshold=0.95"),
        ({"enrich.backend": "vllm"}, "-o enrich.llm=NAME"),
        ({"coarse.shortest_crop": 0.1}, "-o coarse.shortest_crop=0.5"),
    ],
)
def test_hints_about_bad_run_settings_can_be_followed(overrides: dict[str, Any], hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_run_config(None, overrides)
    assert caught.value.hint == hint


def test_the_provider_gets_all_that_enrich_run_can_set() -> None:
    told = {"backend": "http", "llm": "m", "concurrency": 3, "timeout": 5.0, "retries": 1, "engine": ["seed=4", "a=b"]}
    choice = read_run_config(None, {f"enrich.{key}": value for key, value in told.items()}).enrich.provider()
    assert (choice.concurrency, choice.timeout_s, choice.retries) == (3, 5.0, 1)
    assert choice.engine == {"seed": 4, "a": "b"}
    assert EnrichConfig().provider() == ProviderChoice(Backend.KNOWLEDGE)


def test_steps_agree_on_a_preset() -> None:
    ours, paper = read_run_config(None, {}), read_run_config(None, {"coarse.preset": "fg-clep-v1"})
    assert isinstance(ours.coarse, CoarseConfig)
    assert isinstance(paper.coarse, PairConfig)
    assert (ours.fine.pair_labels, paper.fine.pair_labels) == ("equal-text", "diagonal")
    assert (ours.enrich.quantile, paper.enrich.quantile, paper.enrich.threshold) == (0.5, 0.0, 0.95)


def test_examples_are_the_defaults() -> None:
    folder = Path(__file__).resolve().parents[2] / "docs" / "examples"
    assert read_run_config(folder / "train-run.toml", {}) == read_run_config(None, {"coarse.preset": "fg-clep-v1"})
