"""`fgclep evaluate retrieval` and `calibrate` on synthetic ECGs with an untrained bundle: a user's journey."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from cli.main import run
from fgclep.evaluation.results import Scored
from fgclep.pretrained import bundle_fingerprint, load_calibration

pytest.importorskip("bm25s")


@pytest.fixture(scope="module")
def results(synthetic_tree: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run with files; the text that it printed is in `stdout`, the files' folder in `out`."""
    import contextlib
    import io

    out = tmp_path_factory.mktemp("retrieval")
    text = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(text):
        patch.setenv("FGCLEP_HOME", str(out / "home"))
        patch.chdir(out)
        assert run([*_words(synthetic_tree, tiny_bundle), "--draws", "20", "--out", str(out / "results")]) == 0
    return {"stdout": text.getvalue(), "out": out / "results"}


def _words(tree: Path, bundle: Path) -> list[str]:
    return ["evaluate", "retrieval", "--dataset", "synthetic", "--data", str(tree), "--model", str(bundle)]


def _result(results: dict[str, Any], encoder: str) -> Any:
    [file] = results["out"].glob(f"retrieval-synthetic-all-{encoder}-*.json")
    document = json.loads(file.read_text())
    assert document["schema"] == 1 and document["command"][:3] == ["fgclep", "evaluate", "retrieval"]
    [result] = document["results"]
    return result


def test_the_tables_say_what_was_measured(results: dict[str, Any], tiny_bundle: Path) -> None:
    text = results["stdout"]
    assert "Retrieval on synthetic, split all" in text
    assert bundle_fingerprint(tiny_bundle) in text
    assert "40 of 40 listed records" in text
    for heading in ("Label retrieval", "Report retrieval", "Compound queries", "Queries about one lead", "Other words"):
        assert heading in text
    assert "random order" in text and "best possible" in text
    assert "bm25" in text and "not the ECGs" in text


def test_numbers_are_those_of_the_written_scores(results: dict[str, Any]) -> None:
    for encoder in ("tiny", "bm25"):
        result = _result(results, encoder)
        [file] = results["out"].glob(f"retrieval-synthetic-all-{encoder}-*.npz")
        scored = Scored.load(file)
        assert len(scored.record_ids) == result["records"] == 40
        expected = [
            average_precision_score(scored.labels[:, c], scored.scores[:, c]) for c in range(len(scored.classes))
        ]
        found = [query["values"]["average_precision"]["value"] for query in result["labels"]["queries"]]
        assert found == pytest.approx(expected)
        macro = result["labels"]["macro"]["average_precision"]
        assert macro["value"] == pytest.approx(np.mean(expected))
        assert macro["low"] < macro["high"]


def test_words_find_reports_that_say_them(results: dict[str, Any]) -> None:
    """The baseline reads English reports written from the truth: it must beat an untrained model by far."""
    read, untrained = _result(results, "bm25"), _result(results, "tiny")
    mean = [result["labels"]["macro"]["average_precision"]["value"] for result in (read, untrained)]
    assert mean[0] > mean[1] + 0.1
    assert read["reports"] is None, "it would search the reports for themselves"
    assert untrained["reports"]["queries"] == 40


def test_json_is_the_same_every_time(
    synthetic_tree: Path, tiny_bundle: Path, fgclep_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = []
    for _ in range(2):  # the second run takes the vectors from the cache
        assert run([*_words(synthetic_tree, tiny_bundle), "--draws", "5", "--json"]) == 0
        documents.append(json.loads(capsys.readouterr().out))
    assert documents[0]["results"] == documents[1]["results"]
    assert [result["encoder"] for result in documents[0]["results"]] == ["tiny", "bm25"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--dataset", "ptbxl"], 2, "ptbxl-all"),
        (["--split", "test"], 2, "no splits"),
        (["--splits", "."], 2, "--splits"),
        (["--dataset", "ptbxl-all"], 1, "PTB-XL"),
        (["--data", "nowhere"], 3, "nowhere"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(
    synthetic_tree: Path,
    tiny_bundle: Path,
    fgclep_home: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    said: str,
) -> None:
    assert run([*_words(synthetic_tree, tiny_bundle), *words]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err


class TestCalibrate:
    @pytest.fixture
    def bundle(self, tiny_bundle: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(tiny_bundle, tmp_path / "mine"))

    def _run(self, tree: Path, bundle: Path, *words: str) -> int:
        return run(
            ["evaluate", "calibrate", "--dataset", "synthetic", "--data", str(tree), "--model", str(bundle), *words]
        )

    def test_it_looks_without_touching(
        self, synthetic_tree: Path, bundle: Path, fgclep_home: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = (bundle / "calibration.json").read_bytes()
        assert self._run(synthetic_tree, bundle) == 0
        captured = capsys.readouterr()
        assert (bundle / "calibration.json").read_bytes() == before
        assert "--write" in captured.err
        for said in ("old: score", "new: score", "cross-validated", "other wordings", "observed share", "5 %"):
            assert said in captured.out

    def test_written_it_is_what_search_uses(
        self, synthetic_tree: Path, bundle: Path, fgclep_home: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fingerprint = bundle_fingerprint(bundle)
        words = ["index", "build", "--data", str(synthetic_tree), "--model", str(bundle), "--name", "mine"]
        assert run(words) == 0
        search = ["search", "sinus rhythm", "--index", "mine", "--json", "-n", "3"]
        capsys.readouterr()
        assert run(search) == 0
        old = json.loads(capsys.readouterr().out)["hits"]
        assert self._run(synthetic_tree, bundle, "--write", "--json", "--out", str(fgclep_home / "out")) == 0
        [result] = json.loads(capsys.readouterr().out)["results"]
        assert load_calibration(bundle).slope == result["new"]["slope"]
        assert load_calibration(bundle).prevalence == result["prevalence"] == 0.05
        assert bundle_fingerprint(bundle) == fingerprint
        [file] = (fgclep_home / "out").glob("calibrate-synthetic-all-mine-*.json")
        assert json.loads(file.read_text())["results"] == [result]
        assert run(search) == 0
        new = json.loads(capsys.readouterr().out)["hits"]
        assert [hit["record"] for hit in new] == [hit["record"] for hit in old]
        expected = load_calibration(bundle).score(np.array([hit["similarity"] for hit in new]))
        assert [hit["score"] for hit in new] == pytest.approx(expected, abs=1e-5)
        assert [hit["score"] for hit in new] != pytest.approx([hit["score"] for hit in old], abs=1e-5)
