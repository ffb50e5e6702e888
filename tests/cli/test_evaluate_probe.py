"""`fgclep evaluate linear-probe` as a user types it, on a small tree in PTB-XL's layout."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cli.main import run
from fgclep.evaluation.results import Scored

pytestmark = pytest.mark.usefixtures("fgclep_home")

HEADER = "ecg_id,patient_id,age,sex,recording_date,report,scp_codes,strat_fold,filename_lr,filename_hr"
CODES = ("'NORM': 100.0", "'IMI': 0.0", "'LVH': 50.0, 'IMI': 0.0", "'SR': 0.0", "'NORM': 80.0")


@pytest.fixture
def tree(synthetic_tree: Path, tmp_path: Path) -> Path:
    """Forty ECGs at 500 Hz, two a patient: twenty to train, ten each in folds 9 and 10."""
    root = tmp_path / "ptbxl"
    shutil.copytree(synthetic_tree / "files", root / "records500")
    lines = [HEADER]
    for number, header in enumerate(sorted((root / "records500").rglob("*.hea"))):
        path = header.relative_to(root).with_suffix("").as_posix()
        fold = 9 if number < 10 else 10 if number < 20 else 1
        lines.append(f'{number},{number // 2}.0,60,0,,,"{{{CODES[number % 5]}}}",{fold},,{path}')
    (root / "ptbxl_database.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


@pytest.fixture
def words(tree: Path, tiny_bundle: Path) -> list[str]:
    asked = ["--dataset", "ptbxl-super", "--data", str(tree), "--model", str(tiny_bundle), "--draws", "20"]
    return [*asked, "--fraction", "50", "--fraction", "100"]


def call(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    code = run(["evaluate", "linear-probe", *words])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def test_models_stand_side_by_side_with_random_weights(words, other_bundle, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    document = json.loads(call(capsys, *words, "--model", str(other_bundle), "--out", str(out), "--json"))
    results = document["results"]
    assert [result["encoder"] for result in results] == ["tiny", "other", "random-tiny"]
    assert [result["in_domain"] for result in results] == [None, None, False]
    for result in results:
        assert (result["records"], result["listed"], result["unlabelled"], result["train_records"]) == (8, 10, 2, 16)
        assert result["classes"] == ["HYP", "NORM", "MI"]
        assert result["skipped"] == ["CD", "STTC"]
        assert result["selected_on"] == result["split"] == "val"
        assert result["published_subset_exact"] is False
        rows = result["rows"]
        assert [(row["fraction"], row["subset"], row["train_records"]) for row in rows] == [
            (50, "published", 8), (50, "stratified", 8), (100, "all", 16),
        ]  # fmt: skip
        stem = f"linear-probe-ptbxl-super-val-{result['encoder']}-{result['fingerprint'][:8]}"
        assert json.loads((out / f"{stem}.json").read_text(encoding="utf-8"))["results"] == [result]
        for row in rows:
            scored = Scored.load(out / f"{stem}-{row['fraction']}-{row['subset']}.npz")
            assert scored.record_ids == tuple(f"ptb-xl:{number}" for number in (0, 1, 2, 4, 5, 6, 7, 9))
            assert scored.labels[:, 1].tolist() == [number % 5 in (0, 4) for number in (0, 1, 2, 4, 5, 6, 7, 9)]
            aucs = [roc_auc_score(scored.labels[:, c], scored.scores[:, c]) for c in range(3)]
            assert row["test_at_best_val"]["value"] == pytest.approx(np.mean(aucs))
            assert row["max_test"] == row["test_at_best_val"]["value"]
    assert document["command"][:3] == ["fgclep", "evaluate", "linear-probe"]
    assert run([*document["command"][1:], "--json"]) == 0, "the command in the result makes it again"
    assert json.loads(capsys.readouterr().out)["results"] == results


def test_features_are_computed_once(words, tree, capsys) -> None:
    first = json.loads(call(capsys, *words, "--json"))["results"]
    for samples in tree.rglob("*.dat"):
        status = samples.stat()
        samples.write_bytes(bytes(status.st_size))  # flat: rejected if it were read again
        os.utime(samples, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert json.loads(call(capsys, *words, "--json"))["results"] == first


def test_the_table_names_what_it_is_of(words, capsys) -> None:
    out = call(capsys, *words, "--no-random-init")
    for said in (
        "Linear probe and nearest neighbours on ptbxl-super, split val: macro AUC",
        "tiny (fingerprint ",
        "not known whether trained in-domain; 144 features): 8 of 10 listed records of 5 subjects; "
        "0 without files, 2 without a class, 0 rejected. Training records: 16 of 20 listed.",
        "Skipped, for want of positives or negatives: CD, STTC.",
        "Epoch and neighbours were chosen on val, the very records that are scored",
        "The published subset is drawn over the records at hand",
        "bootstrap over subjects, 20 draws, seed 0",
        "test@best_val",
        "max_test",
        "50 %, stratified",
    ):
        assert said in out
    assert "random-tiny" not in out


def test_the_test_split_is_scored_with_what_val_chose(words, capsys) -> None:
    asked = [*words, "--no-random-init", "--split", "test"]
    (result,) = json.loads(call(capsys, *asked, "--json"))["results"]
    assert (result["split"], result["selected_on"], result["records"]) == ("test", "val", 8)
    for row in result["rows"]:
        assert row["max_test"] >= row["test_at_best_val"]["value"]
    out = call(capsys, *asked)
    assert "test@best_val: epoch and neighbours chosen on val." in out
    assert "max_test: the best epoch on test itself, as papers print it; an upper bound." in out


@pytest.mark.parametrize(
    ("more", "code", "complaint"),
    [
        (["--split", "train"], 2, "cannot be reported on it"),
        (["--fraction", "1"], 2, "less than one"),
        (["--fraction", "0"], 2, "--fraction"),
        (["--model", "clef:none.ckpt"], 3, "none.ckpt does not exist"),
        (["--dataset", "ptbxl-all"], 2, "there is no benchmark 'ptbxl-all'"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    words: list[str], more: list[str], code: int, complaint: str, capsys: Any
) -> None:
    assert run(["evaluate", "linear-probe", *words, *more]) == code
    err = capsys.readouterr().err
    assert complaint in err and "internal error" not in err


def test_a_missing_test_fold_is_told(words, tree, capsys) -> None:
    for header in sorted(tree.rglob("*.hea"))[10:20]:
        header.unlink()
    assert run(["evaluate", "linear-probe", *words, "--split", "test"]) == 1
    assert "no record of ptbxl-super, split test" in capsys.readouterr().err
