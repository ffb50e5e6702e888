"""Training the text side of a finished bundle further: what changes and what not, resume, refusals, the command."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from cli.main import run
from fgclep.errors import UsageError
from fgclep.preprocessing import EcgProcessor
from fgclep.pretrained import load_calibration, load_model, save_bundle
from fgclep.training.config import CoarseConfig
from fgclep.training.run import train_coarse
from fgclep.training.settings import parse_overrides
from fgclep.training.text_run import train_text
from tests.fgclep.test_training import QUICK, ptbxl_tree, text_tower  # noqa: F401

CONFIG = CoarseConfig(text_steps=4, synthetic_records=16, extra_statements=4, report_pairs=4)


@pytest.fixture(scope="module")
def bundle(ptbxl_tree: Path, text_tower: str, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    config = CoarseConfig(**parse_overrides([*QUICK, f"text_tower={text_tower}", "tag_steps=2"]))
    return train_coarse(ptbxl_tree, tmp_path_factory.mktemp("run"), config, None, 1, lambda line: None)


def test_only_the_text_side_changes(bundle: Path, ptbxl_tree: Path, tmp_path: Path) -> None:  # noqa: F811
    said: list[str] = []
    done = train_text(bundle, ptbxl_tree, tmp_path, CONFIG, None, 1, said.append)
    before, after = load_file(bundle / "model.safetensors"), load_file(done / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name.partition(".")[0] for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"text_tower", "text_head"}
    configs = [json.loads((path / "config.json").read_text(encoding="utf-8")) for path in (bundle, done)]
    assert configs[0]["memory"] == configs[1]["memory"]
    card = (done / "README.md").read_text(encoding="utf-8")
    assert "Text side trained further** for 4 steps" in card
    assert [card.count(title) for title in ("## Text retrieval", "## Score", "## Tag head")] == [1, 1, 1]
    assert card.endswith("\n") and "macro AUC is now: super " in card


def test_an_interrupted_run_goes_on_as_if_unbroken(
    bundle: Path,
    ptbxl_tree: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fgclep.training.text_side.STEPS_PER_CHECKPOINT", 2)
    whole = train_text(bundle, ptbxl_tree, tmp_path / "whole", CONFIG, None, 1, lambda line: None)

    def stop(line: str) -> None:
        if line.startswith("text step 2/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_text(bundle, ptbxl_tree, tmp_path / "broken", CONFIG, None, 1, stop)
    said: list[str] = []
    resumed = train_text(bundle, ptbxl_tree, tmp_path / "broken", CONFIG, None, 1, said.append)
    assert "resuming after text step 2" in said
    expected, got = load_file(whole / "model.safetensors"), load_file(resumed / "model.safetensors")
    for name, tensor in expected.items():
        assert np.array_equal(tensor, got[name]), name
    with pytest.raises(UsageError, match="another text_steps"):
        train_text(bundle, ptbxl_tree, tmp_path / "broken", replace(CONFIG, text_steps=6), None, 1, said.append)


def test_refusals(
    bundle: Path,
    ptbxl_tree: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = load_model(bundle)
    model.memory = model.config.memory = None
    bare = tmp_path / "bare"
    processor, calibration = EcgProcessor.from_pretrained(bundle), load_calibration(bundle)
    save_bundle(bare, model, model.tokenizer, processor, calibration, "a card")
    options = ["train", "text", "--data", str(ptbxl_tree), "--out"]
    assert run([*options, str(tmp_path / "a"), "--model", str(bare)]) == 2
    assert "has no memory of findings" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    assert run([*options, str(tmp_path / "b"), "--model", str(bundle), "--synthetic", "0", "--steps", "1"]) == 2
    assert "these records settle" in capsys.readouterr().err


def test_the_command(
    bundle: Path,
    ptbxl_tree: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--model", str(bundle), "--synthetic", "16", "--steps", "1", "--workers", "1"]
    assert run(["train", "text", "--data", str(ptbxl_tree), "--out", str(tmp_path / "run"), *options]) == 0
    done = capsys.readouterr().out.strip()
    assert run(["model", "check", done]) == 0
