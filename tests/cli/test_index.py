"""The journey of an index at the command line: build, look, verify, choose, and every exit code on the way."""

import csv
import io
import json
import logging
from pathlib import Path

import pytest

from cli.main import run
from cli.progress import record_progress
from fgclep.errors import CompatibilityError
from indexer import build as build_module
from indexer.embed import Tally
from indexer.manifest import read_manifest
from indexer.open import matching_model


class Run:
    """Runs commands and keeps what they print."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *words: object) -> int:
        self._capsys.readouterr()
        code = run([str(word) for word in words])
        self.out, self.err = self._capsys.readouterr()
        return code

    def json(self, *words: object) -> dict:
        assert self(*words, "--json") == 0, self.err
        return json.loads(self.out)


@pytest.fixture
def fgclep(fgclep_home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(capsys)


@pytest.fixture
def built(fgclep: Run, synthetic_tree: Path, tiny_bundle: Path) -> Run:
    """A home with the index `a` of forty synthetic ECGs."""
    words = ("index", "build", "--data", synthetic_tree, "--model", tiny_bundle, "--name", "a", "--workers", 0)
    assert fgclep(*words) == 0, fgclep.err
    return fgclep


def test_build_says_what_it_does_and_prints_the_path_only(built: Run, synthetic_tree: Path, fgclep_home: Path) -> None:
    assert Path(built.out.strip()).parent == fgclep_home / "indexes" / "a" / "versions"
    assert f"40 records of synthetic ECGs in MIMIC-IV-ECG's layout at 500 Hz in {synthetic_tree}" in built.err
    assert "Done: 40 listed = 40 indexed + 0 rejected + 0 missing" in built.err
    assert "Next: fgclep search" in built.err


def test_look_verify_and_choose(built: Run, synthetic_tree: Path, tiny_bundle: Path) -> None:
    path = built.out
    assert built("index", "path") == 0 and built.out == path
    manifest = built.json("index", "info", "a", "--rejects")
    assert (manifest["counts"]["indexed"], manifest["rejects"]) == (40, [])
    assert manifest["model"]["path"] == str(tiny_bundle) and manifest["dataset"]["root"] == str(synthetic_tree)
    assert built("index", "info") == 0 and "40 listed = 40 indexed" in built.out
    assert built("index", "verify", "--full") == 0
    assert "FAILED" not in built.out and "checksums" in built.out
    again = ("index", "build", "--data", synthetic_tree, "--model", tiny_bundle, "--name", "b", "--limit", 5)
    assert built.json(*again)["counts"]["indexed"] == 5
    assert built("index", "use", "b") == 0
    assert built("index", "path") == 0 and "/b/" in built.out


def test_the_index_accepts_its_own_model_only(built: Run, tiny_bundle: Path, other_bundle: Path) -> None:
    manifest = read_manifest(Path(built.out.strip()))
    assert matching_model(manifest) == matching_model(manifest, str(tiny_bundle)) == tiny_bundle
    with pytest.raises(CompatibilityError, match=manifest.model.fingerprint):
        matching_model(manifest, str(other_bundle))


def test_list_in_every_form(built: Run) -> None:
    (row,) = built.json("index", "list")["indexes"]
    assert (row["name"], row["default"], row["records"], row["problem"]) == ("a", True, 40, None)
    assert built("index", "list", "--csv") == 0
    (from_csv,) = csv.DictReader(io.StringIO(built.out))
    assert from_csv == {key: "" if value is None else str(value) for key, value in row.items()}
    assert built("index", "list", "--jsonl") == 0 and json.loads(built.out) == row
    assert built("index", "list", "--ids") == 0 and built.out == "a\n"
    assert built("index") == 0 and "* " in built.out and "mimic-iv-ecg" in built.out
    assert built("index", "list", "--ids", "--csv") == 2


def test_a_damaged_index_is_listed_with_its_problem_and_fails_verification(built: Run, fgclep_home: Path) -> None:
    path = Path(built.out.strip())
    (path / "embeddings" / "vectors.npy").write_bytes(b"")
    assert built("index", "verify") == 6 and "error: " in built.err and "vectors.npy has 0 bytes" in built.out
    assert built("index", "verify", "--json") == 6 and json.loads(built.out)["passed"] is False
    (path / "manifest.json").write_text("{")
    (row,) = built.json("index", "list")["indexes"]
    assert "manifest.json cannot be read" in row["problem"]
    assert built("index", "info") == 6
    (fgclep_home / "indexes" / "a" / "CURRENT").write_text("gone\n")
    (row,) = built.json("index", "list")["indexes"]
    assert "'gone', which does not exist" in row["problem"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["index", "build", "--name", "x"], 2, "No data was given"),
        (["index", "build", "--data", "nowhere", "--name", "x"], 3, "nowhere"),
        (["index", "build", "--data", ".", "--name", "x"], 1, "empty"),
        (["index", "build", "--data", ".", "--name", "x", "--model", "nowhere"], 3, "nowhere"),
        (["index", "build", "--data", "TREE", "--name", "../x"], 2, "../x"),
        (["index", "path"], 3, "no index"),
        (["index", "path", "x"], 3, "'x'"),
        (["index", "use", "x"], 3, "'x'"),
        (["index", "info", "."], 3, "'.'"),
    ],
)
def test_bad_input_is_one_error_and_leaves_nothing(
    words: list[str], code: int, message: str, fgclep: Run, synthetic_tree: Path, tiny_bundle: Path, fgclep_home: Path
) -> None:
    words = [str(synthetic_tree) if word == "TREE" else word for word in words]
    if "build" in words and "--model" not in words:
        words += ["--model", str(tiny_bundle)]
    assert fgclep(*words) == code
    assert fgclep.err.count("error: ") == 1 and message in fgclep.err and "hint: " in fgclep.err
    assert not fgclep_home.exists()


def test_a_device_that_is_none_is_refused(
    fgclep: Run, synthetic_tree: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, fgclep_home: Path
) -> None:
    monkeypatch.setenv("FGCLEP_DEVICE", "toaster")
    assert fgclep("index", "build", "--data", synthetic_tree, "--model", tiny_bundle, "--name", "x") == 2
    assert "The device 'toaster' cannot be used" in fgclep.err and not fgclep_home.exists()


def test_too_many_rejects_exit_7_and_can_be_allowed(
    fgclep: Run, synthetic_tree: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    import shutil

    tree = shutil.copytree(synthetic_tree, tmp_path / "tree")
    for path in sorted(tree.rglob("*.dat"))[:10]:
        path.write_bytes(path.read_bytes()[:100])
    words = ("index", "build", "--data", tree, "--model", tiny_bundle, "--name", "x", "--workers", 0)
    assert fgclep(*words) == 7
    assert "10 of 40 records were rejected (truncated 10)" in fgclep.err and "--max-reject-rate 0.26" in fgclep.err
    assert fgclep("index", "list", "--ids") == 0 and fgclep.out == ""
    assert fgclep(*words, "--max-reject-rate", 0.26) == 0
    assert fgclep("index", "info", "--rejects") == 0 and fgclep.out.count("\ttruncated\t") == 10


def test_an_interrupted_build_exits_130_and_says_how_to_go_on(
    fgclep: Run, synthetic_tree: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    words = ("index", "build", "--data", synthetic_tree, "--model", tiny_bundle, "--name", "x", "--workers", 0)
    with monkeypatch.context() as patch:
        patch.setattr(build_module, "assemble", interrupted)
        assert fgclep(*words) == 130
    assert "Repeat the same command" in fgclep.err
    assert fgclep(*words) == 0 and "Going on with index x" in fgclep.err


def test_progress_off_a_terminal_is_a_line_now_and_then(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("cli.progress.time.monotonic", lambda: now)
    logging.getLogger("cli").setLevel(logging.WARNING)
    with record_progress("a") as update:
        for now, done in ((10.0, 300), (50.0, 1300), (60.0, 1500)):  # noqa: B007
            tally = Tally(total=2300, done=done, resumed=300)
            tally.rejected_by_reason["flat"] = 2
            update(tally)
    assert capsys.readouterr().err == "a: 1,300 of 2,300, 20/s, 0:00:50 left, 2 rejected\n"
