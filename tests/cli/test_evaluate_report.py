"""`fgclep evaluate all`, `figures` and `compare` as a user types them, on a small tree in PTB-XL's layout."""

import contextlib
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cli.main import run
from fgclep.evaluation.results import Scored

HEADER = "ecg_id,patient_id,age,sex,recording_date,report,scp_codes,strat_fold,filename_lr,filename_hr"
CODES = ("'NORM': 100.0, 'SR': 0.0", "'IMI': 80.0, 'LPR': 0.0", "'NORM': 80.0", "'LVH': 50.0, 'STD_': 0.0")
CONFIG = """
title = "A small tree"
models = ["{model}", "random:{model}"]
benchmarks = ["ptbxl-super"]
seed = {seed}
draws = 60
[data]
ptbxl = "ptbxl"
[zero_shot]
prompts = ["plain", "ensemble"]
[linear_probe]
fractions = [100]
[retrieval]
bm25 = false
[calibration]
[figures]
findings = ["LPR", "STD"]
queries = ["low QRS voltage"]
"""


@dataclass
class Place:
    """A folder with a tree, a configuration and, after `all`, a report."""

    root: Path
    model: Path

    def call(self, *words: object) -> tuple[int, str]:
        """Run a command there; returns exit code and standard output."""
        out = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
            patch.setenv("FGCLEP_HOME", str(self.root / "home"))
            patch.chdir(self.root)
            return run(["evaluate", *map(str, words)]), out.getvalue()

    def configure(self, seed: int = 3, more: str = "") -> Path:
        file = self.root / "evaluate.toml"
        file.write_text(CONFIG.format(model=self.model, seed=seed) + more, encoding="utf-8")
        return file

    def report(self, *words: object) -> dict[str, Any]:
        code, out = self.call("all", "--config", self.root / "evaluate.toml", "--out", "report", "--json", *words)
        assert code == 0
        told: dict[str, Any] = json.loads(out)
        return told


@pytest.fixture(scope="module")
def place(synthetic_tree: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Forty ECGs at 500 Hz of as many patients: four to train, 36 in fold 9, half of them normal."""
    root = tmp_path_factory.mktemp("report")
    shutil.copytree(synthetic_tree / "files", root / "ptbxl" / "records500")
    lines = [HEADER]
    for number, header in enumerate(sorted((root / "ptbxl" / "records500").rglob("*.hea"))):
        path = header.relative_to(root / "ptbxl").with_suffix("").as_posix()
        fold = 1 if number < 4 else 9
        lines.append(f'{number},{number}.0,60,0,,inverted waves {number},"{{{CODES[number % 4]}}}",{fold},,{path}')
    (root / "ptbxl" / "ptbxl_database.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = Place(root, tiny_bundle)
    found.configure()
    found.report()
    yield found


def parts(place: Place) -> list[dict[str, Any]]:
    content = json.loads((place.root / "report" / "results.json").read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = content["parts"]
    return found


def test_one_folder_holds_results_tables_figures_and_a_page(place: Place) -> None:
    report = place.root / "report"
    results = json.loads((report / "results.json").read_text(encoding="utf-8"))
    assert results["schema"] == 1 and results["seed"] == 3 and results["packages"]["numpy"]
    assert results["command"][:3] == ["fgclep", "evaluate", "all"]
    assert results["config"]["draws"] == 60 and len(results["models"]) == 2
    assert {(part["kind"], part["error"]) for part in results["parts"]} == {
        (kind, None) for kind in ("zero-shot", "linear-probe", "retrieval", "calibration", "comparison", "figure")
    }
    tables = {path.name for path in (report / "tables").iterdir()}
    for name in ("zero-shot", "zero-shot-metrics", "comparison", "linear-probe-ptbxl-super", "calibration"):
        assert {f"{name}.md", f"{name}.csv", f"{name}.tex"} <= tables
    stems = {"ptbxl-super-tiny-roc", "ptbxl-super-tiny-pr", "reliability-ptbxl-all-tiny", "similarity-ptbxl-all-tiny"}
    stems |= {"map-ptbxl-all", "hits-ptbxl-all-tiny-low-qrs-voltage"}
    drawn = {path.name for path in (report / "figures").iterdir()}
    assert drawn == {f"{stem}.{suffix}" for stem in stems for suffix in ("png", "svg")}
    page = (report / "index.html").read_text(encoding="utf-8")
    assert "A small tree" in page and page.count("data:image/svg+xml;base64,") == len(stems)
    assert "FG-CLEP v1" in page and "xresnet1d101" in page and "Not done" not in page


def test_the_main_table_holds_the_auc_of_the_kept_scores(place: Place) -> None:
    csv = (place.root / "report" / "tables" / "zero-shot.csv").read_text(encoding="utf-8").splitlines()
    assert csv[0].split(",")[:5] == ["model", "prompts", "ptbxl-super", "ptbxl-super low", "ptbxl-super high"]
    for prompts in ("plain", "ensemble"):
        [file] = (place.root / "report" / "parts").glob(f"zero-shot-ptbxl-super-val-{prompts}-tiny-*.npz")
        scored = Scored.load(file)
        columns = [c for c in range(5) if 0 < scored.labels[:, c].sum() < len(scored.labels)]
        expected = 100 * np.mean([roc_auc_score(scored.labels[:, c], scored.scores[:, c]) for c in columns])
        [row] = [line.split(",") for line in csv if line.startswith(f"tiny,{prompts},")]
        assert float(row[2]) == pytest.approx(expected, abs=1e-3) and float(row[3]) < float(row[2]) < float(row[4])


def test_only_what_changed_is_done_again(place: Place) -> None:
    before = parts(place)
    told = place.report()["parts"]
    assert set(told.values()) == {"kept"} and len(told) == len(before)
    for old, new in zip(before, parts(place), strict=True):
        assert (old["result"], old["key"], old["seconds"]) == (new["result"], new["key"], new["seconds"])
    lost = next((place.root / "report" / "parts").glob("linear-probe-*-tiny-*.json"))
    lost.unlink()
    (place.root / "report" / "figures" / "map-ptbxl-all.svg").unlink()
    again = place.report()["parts"]
    assert {name for name, state in again.items() if state == "done"} == {lost.stem, "figure-map"}
    for old, new in zip(before, parts(place), strict=True):
        assert old["result"] == new["result"]


def test_a_part_that_fails_is_told_and_the_others_go_on(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    file = place.configure()
    file.write_text(file.read_text(encoding="utf-8").replace('"ensemble"', '"none.json"'), encoding="utf-8")
    code, out = place.call("all", "--config", file, "--out", "failing")
    assert code == 1 and out.strip() == str(Path("failing") / "index.html")
    assert "2 of 15 parts failed: zero-shot-ptbxl-super-val-none-" in capsys.readouterr().err
    page = (place.root / "failing" / "index.html").read_text(encoding="utf-8")
    assert page.count("Not done:") == 2 and "none.json&#x27;, and no such file" in page
    assert (place.root / "failing" / "tables" / "calibration.md").exists()
    place.configure()


def test_compare_tells_the_difference_of_two_models(place: Place) -> None:
    scores = place.root / "report" / "parts"
    [a], [b] = (scores.glob(f"zero-shot-ptbxl-super-val-plain-{name}-*.npz") for name in ("tiny", "random-tiny"))
    code, out = place.call("compare", a, b, "--draws", 100, "--json")
    [found] = json.loads(out)["results"]
    [part] = [part for part in parts(place) if part["kind"] == "comparison"]
    of_all = next(each for each in part["result"]["comparisons"] if "plain" in each["name"])
    assert code == 0 and found["difference"]["value"] == pytest.approx(of_all["difference"]["value"])
    assert found["records"] == 36 and found["real"] is (found["corrected"] < 0.05)
    code, out = place.call("compare", a, a)
    assert code == 0 and "no difference shown" in out and "+0.0000 [+0.0000, +0.0000]" in out
    code, _ = place.call("compare", a, place.root / "report" / "parts")
    assert code == 2


def test_figures_are_drawn_of_any_set(place: Place) -> None:
    words = ["--dataset", "ptbxl-super", "--data", "ptbxl", "--model", place.model, "--out", "drawn", "--draws", 10]
    code, out = place.call("figures", *words, "--finding", "LPR", "--query", "inverted waves", "--json")
    assert code == 0
    files = [Path(name) for name in json.loads(out)["files"]]
    stems = {file.stem.removeprefix("ptbxl-super-val-tiny-") for file in files}
    assert stems == {"roc", "pr", "similarity", "map", "hits-inverted-waves", "reliability"}
    assert all((place.root / file).stat().st_size > 1000 for file in files) and len(files) == 12


def test_an_unknown_key_is_refused_before_anything_is_done(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    file = place.configure(more="querys = []\n")
    code, _ = place.call("all", "--config", file, "--out", "refused")
    assert code == 2 and "did you mean 'queries'?" in capsys.readouterr().err
    assert not (place.root / "refused").exists()
    place.configure()
