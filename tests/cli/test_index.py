"""The journey of an index at the command line: build, look, verify, choose, and every exit code on the way."""

import csv
import io
import json
import logging
import shutil
from pathlib import Path

import pytest

from cli.doctor import look_at_indexes
from cli.main import run
from cli.progress import record_progress
from fgclep.errors import CompatibilityError
from indexer import build as build_module
from indexer.embed import Tally
from indexer.manifest import read_manifest
from indexer.open import matching_model
from tests.indexer.fakes import forbid_gpu


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


def test_looking_needs_no_gpu(built: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_gpu(monkeypatch)
    assert built("search", "sinus", "--ids") == 0, built.err
    assert built("show", built.out.splitlines()[0]) == 0, built.err
    checks = {check.name: check.detail for check in look_at_indexes()}
    assert "40 ECGs, searched by numpy" in checks["index a"]


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


def test_the_life_of_an_index(
    fgclep: Run, synthetic_tree: Path, tiny_bundle: Path, other_bundle: Path, tmp_path: Path, fgclep_home: Path
) -> None:
    """Build, add, rebuild, use, go back, clean up, export, import and relocate, as one would type it."""
    tree = shutil.copytree(synthetic_tree, tmp_path / "tree")
    one_process = ("--workers", 0)
    build = ("index", "build", "--data", tree, "--model", tiny_bundle, "--name", "a", "--limit", 25, *one_process)
    assert fgclep(*build) == 0, fgclep.err
    first = Path(fgclep.out.strip())

    add = ("index", "add", "--data", tree, *one_process)
    assert fgclep(*add) == 1 and "25 of the 40 records" in fgclep.err
    assert fgclep.err.strip().endswith(f"fgclep index add --data {tree} --name a --only-new")
    estimate = fgclep.json(*add, "--only-new", "--dry-run")
    assert estimate["dry_run"] and estimate["estimate"]["records"] == 15 and estimate["estimate"]["seconds"] > 0
    assert fgclep.json("index", "info")["version"] == first.name
    added = fgclep.json(*add, "--only-new")
    assert (added["counts"]["indexed"], added["counts"]["beyond_limit"]) == (40, 0)
    assert fgclep(*add, "--only-new") == 1 and "nothing new for index a: all 40" in fgclep.err
    assert fgclep("index", "info") == 0 and f"15 of synthetic ECGs in MIMIC-IV-ECG's layout; {tree}" in fgclep.out

    assert fgclep(*add, "--only-new", "--model", other_bundle) == 5
    assert fgclep("index", "rebuild", "--model", other_bundle, *one_process) == 0, fgclep.err
    rebuilt = Path(fgclep.out.strip())
    assert f"fgclep index use a --version {rebuilt.name}" in fgclep.err
    assert fgclep.json("index", "info")["model"]["path"] == str(tiny_bundle)
    assert fgclep("index", "use", "a", "--version", rebuilt.name) == 0
    assert fgclep.json("index", "info")["model"]["path"] == str(other_bundle)
    assert fgclep("index", "verify", "--full") == 0 and "40 listed, every indexed record among them" in fgclep.out
    assert fgclep("search", "sinus rhythm", "--ids") == 0 and fgclep.out

    assert fgclep("index", "rollback") == 0 and Path(fgclep.out.strip()) == Path(added["path"])
    assert fgclep.json("index", "gc", "--keep", 1, "--dry-run")["removed"] == [first.name]
    assert fgclep("index", "gc", "--keep", 1) == 0 and fgclep.out == f"{first.name}\n"
    assert sorted(path.name for path in first.parent.iterdir()) == sorted([Path(added["path"]).name, rebuilt.name])

    archive = tmp_path / "a.tar.zst"
    assert fgclep("index", "export", archive) == 0 and fgclep.out == f"{archive}\n"
    assert fgclep("index", "export", archive) == 2
    assert fgclep("index", "import", archive) == 2 and "--name OTHER-NAME" in fgclep.err
    moved = tree.rename(tmp_path / "moved")
    assert fgclep("index", "import", archive, "--name", "b") == 0
    assert f"Its ECGs were in {tree}" in fgclep.err and "fgclep index relocate PATH --name b" in fgclep.err
    rebuild = ("index", "rebuild", "b", "--model", other_bundle, *one_process)
    assert fgclep(*rebuild) == 3 and "which is not there" in fgclep.err
    assert fgclep("index", "relocate", synthetic_tree / "files", "--name", "b") == 1
    assert fgclep("index", "relocate", moved, "--name", "b") == 0, fgclep.err
    assert fgclep.json("index", "info", "b")["dataset"]["root"] == str(moved)
    assert fgclep("show", fgclep.json("search", "sinus", "--index", "b")["hits"][0]["record"], "--index", "b") == 0
    assert fgclep(*rebuild, "--activate") == 0, fgclep.err
    assert fgclep.json("index", "info", "b")["model"]["path"] == str(other_bundle)
    archive.write_bytes(archive.read_bytes()[:-9])
    assert fgclep("index", "import", archive, "--name", "c") == 6


def test_gc_removes_what_a_killed_first_import_left(fgclep: Run, fgclep_home: Path) -> None:
    left = fgclep_home / "indexes" / "half" / "incoming"
    left.mkdir(parents=True)
    (left / "store.sqlite").write_bytes(bytes(10))
    assert fgclep.json("index", "gc", "half", "--dry-run")["leftovers"] == ["incoming"]
    assert fgclep("index", "gc", "half") == 0 and not left.exists()
    assert "Removed what a killed import, relocation or removal left: incoming." in fgclep.err
    assert fgclep("index", "gc", "half") == 3


def test_a_dry_run_measures_and_writes_nothing(
    fgclep: Run, synthetic_tree: Path, tiny_bundle: Path, fgclep_home: Path
) -> None:
    words = ("index", "build", "--data", synthetic_tree, "--model", tiny_bundle, "--name", "x", "--dry-run")
    assert fgclep(*words, "--workers", 0) == 0 and not fgclep_home.exists()
    assert [line.split()[0] for line in fgclep.out.splitlines()] == ["records", "sample", "time", "memory", "disk"]
    assert "40 of them" in fgclep.out and "nothing is written" in fgclep.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["add", "--data", "."], 3, "no index"),
        (["rebuild", "--model", "small"], 3, "no index"),
        (["rollback"], 3, "no index"),
        (["gc", "demo"], 2, "cannot be changed"),
        (["relocate", ".", "--name", "demo"], 2, "cannot be changed"),
        (["import", "nowhere.tar.zst"], 3, "does not exist"),
        (["use", "x", "--version", "y"], 3, "no version 'y'"),
        (["gc", "--keep", "0"], 2, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_changed_is_one_error(
    words: list[str], code: int, message: str, fgclep: Run, fgclep_home: Path
) -> None:
    assert fgclep("index", *words) == code
    assert fgclep.err.count("error: ") == 1 and message in fgclep.err
    assert not fgclep_home.exists()


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
