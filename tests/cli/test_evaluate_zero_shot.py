"""`fgclep evaluate zero-shot` as a user types it, on a small tree in PTB-XL's layout."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from cli.evaluate.options import BENCHMARK_NAMES, command_words
from cli.main import run
from fgclep.datasets import open_dataset
from fgclep.evaluation.benchmarks import BENCHMARKS
from fgclep.evaluation.results import Scored
from fgclep.preprocessing import EcgProcessor
from fgclep.pretrained import load_model

pytestmark = pytest.mark.usefixtures("fgclep_home")

HEADER = "ecg_id,patient_id,age,sex,recording_date,report,scp_codes,strat_fold,filename_lr,filename_hr"
CODES = ("'NORM': 100.0", "'IMI': 0.0", "'LVH': 50.0, 'IMI': 0.0", "'SR': 0.0", "'NORM': 80.0")


@pytest.fixture(scope="module")
def tree(synthetic_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty ECGs at 500 Hz: folds 9 and 10 have 15 each, two ECGs a patient, two without files."""
    root = tmp_path_factory.mktemp("ptbxl")
    shutil.copytree(synthetic_tree / "files", root / "records500")
    lines = [HEADER]
    for number, header in enumerate(sorted((root / "records500").rglob("*.hea"))):
        path = header.relative_to(root).with_suffix("").as_posix()
        fold = 9 if number < 15 else 10 if number < 30 else 1
        codes = CODES[number % len(CODES)]
        lines.append(f'{number},{number // 2}.0,60,0,,,"{{{codes}}}",{fold},,{path}')
    lines += [f"{number},90.0,60,0,,,\"{{'NORM': 1.0}}\",9,,records500/none{number}" for number in (98, 99)]
    (root / "ptbxl_database.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def call(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[str, str]:
    code = run(["evaluate", "zero-shot", *map(str, words)])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out, err


def results(capsys: pytest.CaptureFixture[str], *words: str | Path) -> list[dict[str, Any]]:
    out, _ = call(capsys, *words, "--json")
    found: list[dict[str, Any]] = json.loads(out)["results"]
    return found


def test_json_equals_a_recomputation_from_the_files(tree, tiny_bundle, tmp_path, capsys) -> None:
    words = ("--dataset", "ptbxl-super", "--data", tree, "--model", tiny_bundle, "--draws", "30")
    (result,) = results(capsys, *words, "--out", tmp_path / "out")
    assert (result["listed"], result["missing"], result["unlabelled"], result["records"]) == (17, 2, 3, 12)
    assert result["skipped"] == ["CD", "STTC"]
    assert result["thresholds"] == "in-sample"
    assert result["encoder"] == "tiny" and result["in_domain"] is None

    model, processor = load_model(tiny_bundle), EcgProcessor.from_pretrained(tiny_bundle)
    dataset = open_dataset(tree)
    infos = [info for info in dataset.iter_infos() if info.fold == 9 and info.tags != ("SR",)]
    records = [dataset.read(info) for info in infos]
    vectors = model.encode_ecg(np.stack([processor.prepare(r.waveform, r.fs_hz) for r in records]))
    scores = vectors @ model.encode_text(["myocardial infarction"])[0]
    relevant = np.array(["IMI" in info.tags for info in infos])
    by_name = {row["name"]: row for row in result["classes"]}
    assert by_name["MI"]["auc"]["value"] == pytest.approx(roc_auc_score(relevant, scores), abs=1e-6)
    assert by_name["MI"]["average_precision"]["value"] == pytest.approx(
        average_precision_score(relevant, scores), abs=1e-6
    )

    (file,) = (tmp_path / "out").glob("*.json")
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["results"] == [result]
    assert written["command"][:3] == ["fgclep", "evaluate", "zero-shot"]
    assert file.name == f"zero-shot-ptbxl-super-val-plain-tiny-{result['fingerprint'][:8]}.json"
    scored = Scored.load(file.with_suffix(".npz"))
    assert np.allclose(scored.scores[:, 2], scores, atol=1e-6)
    assert scored.record_ids == tuple(info.record_id for info in infos)
    assert run([*written["command"][1:], "--json"]) == 0, "the command in the file makes the result again"
    assert json.loads(capsys.readouterr().out)["results"] == [result]


def test_the_table_names_what_it_is_of(tree, tiny_bundle, capsys) -> None:
    out, err = call(capsys, "--dataset", "ptbxl-super", "--data", tree, "--model", tiny_bundle, "--draws", "20")
    for said in (
        "Zero-shot on ptbxl-super, split val, asked by prompts: plain",
        "tiny (fingerprint ",
        "not known whether trained in-domain",
        "12 of 17 listed records of 8 subjects; 2 without files, 3 without a class, 0 rejected.",
        "Skipped, for want of positives or negatives: CD, STTC.",
        "F1 is in-sample",
        "bootstrap over subjects, 20 draws, seed 0",
        "chance (prevalence)",
    ):
        assert said in out
    assert "Zero-shot" not in err


def test_another_split_takes_its_thresholds_from_val(tree, tiny_bundle, capsys) -> None:
    words = ("--dataset", "ptbxl-super", "--data", tree, "--model", tiny_bundle, "--draws", "0")
    (val,), (test,) = results(capsys, *words), results(capsys, *words, "--split", "test")
    assert (test["thresholds"], test["split"]) == ("val", "test")
    assert [row["threshold"] for row in test["classes"]] == [row["threshold"] for row in val["classes"]]
    assert test["classes"][0]["auc"]["low"] is None, "no draws, no interval"


def test_without_validation_records_f1_is_labelled_in_sample(tree, tiny_bundle, tmp_path, capsys) -> None:
    partial = tmp_path / "partial"
    shutil.copytree(tree, partial)
    table = partial / "ptbxl_database.csv"
    table.write_text(table.read_text().replace('",9,', '",8,'), encoding="utf-8")
    words = ("--dataset", "ptbxl-super", "--data", partial, "--model", tiny_bundle, "--draws", "0")
    assert results(capsys, *words, "--split", "test")[0]["thresholds"] == "in-sample"


def test_random_weights_stand_beside_the_model(tree, tiny_bundle, capsys) -> None:
    words = ("--dataset", "ptbxl-super", "--data", tree, "--model", tiny_bundle, "--draws", "0", "--random-init")
    trained, fresh = results(capsys, *words)
    assert (trained["encoder"], fresh["encoder"]) == ("tiny", "random-tiny")
    assert fresh["fingerprint"] != trained["fingerprint"] and fresh["in_domain"] is False
    out, _ = call(capsys, *words)
    assert "AUC, random-tiny" in out


def test_prompts_change_the_scores_and_a_file_may_give_them(tree, tiny_bundle, tmp_path, capsys) -> None:
    words = ("--dataset", "ptbxl-super", "--data", tree, "--model", tiny_bundle, "--draws", "0", "--prompts")
    file = tmp_path / "mine.json"
    texts = {"HYP": "hypertrophy", "NORM": "normal ecg", "MI": "myocardial infarction", "CD": "x", "STTC": "x"}
    file.write_text(json.dumps(texts), encoding="utf-8")
    by_kind = {kind: results(capsys, *words, kind)[0] for kind in ("plain", "ensemble", "curated", str(file))}
    aucs = {kind: [row["auc"]["value"] for row in result["classes"]] for kind, result in by_kind.items()}
    assert aucs["plain"] != aucs["ensemble"]
    assert aucs["plain"] == aucs[str(file)], "this tokenizer folds case"
    assert by_kind[str(file)]["prompts"] == str(file)


def test_split_files_are_taken(tree, tiny_bundle, tmp_path, capsys) -> None:
    published = "ecg_id,HYP,NORM,MI,CD,STTC\n0,0,1,0,0,0\n1,0,0,1,0,0\n31,0,0,1,0,0\n77,1,0,0,0,0\n"
    (tmp_path / "ptbxl_super_class_val.csv").write_text(published, encoding="utf-8")
    words = ("--dataset", "ptbxl-super", "--data", tree, "--model", tiny_bundle, "--draws", "0")
    (result,) = results(capsys, *words, "--splits", tmp_path)
    assert (result["listed"], result["missing"], result["records"]) == (4, 1, 3)
    assert result["source"] == "the split file ptbxl_super_class_val.csv"


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["--dataset", "ptbxl"], 2, "there is no benchmark 'ptbxl'"),
        (["--dataset", "cpsc2018"], 1, "cpsc2018 is made of CPSC2018"),
        (["--dataset", "ptbxl-super", "--prompts", "fancy"], 3, "there are no prompts 'fancy'"),
        (["--dataset", "ptbxl-super", "--model", "no-such"], 3, "no model bundle 'no-such'"),
        (["--dataset", "ptbxl-super", "--model", "merl:none.pth", "--random-init"], 2, "--random-init"),
        (["--dataset", "ptbxl-super", "--split", "dev"], 2, "'dev'"),
        ([], 2, "--dataset"),
    ],
)
def test_mistakes_are_told_in_a_sentence(tree, words, code, complaint, capsys) -> None:
    assert run(["evaluate", "zero-shot", "--data", str(tree), *words]) == code
    err = capsys.readouterr().err
    assert complaint in err and "internal error" not in err


def test_data_must_be_given(capsys) -> None:
    assert run(["evaluate", "zero-shot", "--dataset", "ptbxl-super"]) == 2
    assert "--dataset ptbxl-super --data PATH" in capsys.readouterr().err


def test_help_names_every_benchmark() -> None:
    assert ", ".join(BENCHMARKS) == BENCHMARK_NAMES


def test_command_words_leave_out_what_was_not_given() -> None:
    words = command_words("x", model=["a", "b"], random_init=True, full=False, splits=None, seed=0, data=Path("d"))
    assert words == "fgclep evaluate x --model a --model b --random-init --seed 0 --data d".split()


def test_without_any_class_to_measure_no_number_is_printed(tiny_bundle, shared_data, fgclep_home, capsys) -> None:
    folder = shared_data / "challenge2021" / "cpsc2018"
    if not folder.is_dir():
        pytest.skip(f"no records of CPSC2018: {folder} does not exist")
    words = ["evaluate", "zero-shot", "--dataset", "cpsc2018", "--data", str(folder), "--model", str(tiny_bundle)]
    assert run([*words, "--split", "val"]) == 0
    out = capsys.readouterr().out
    assert "1 of 1 listed records" in out
    assert "Skipped, for want of positives or negatives: AFIB, VPC, NORM, 1AVB, CRBBB, STE, PAC, CLBBB, STD." in out
    assert "nan" not in out
