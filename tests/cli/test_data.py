"""`fgclep data` as a user types it."""

import json
import shutil
from pathlib import Path

import pytest

from cli.main import run


def files_below(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture
def tree(tmp_path, synthetic_tree):
    """A private copy of a small MIMIC-shaped tree, to damage."""
    return Path(shutil.copytree(synthetic_tree, tmp_path / "tree"))


@pytest.mark.usefixtures("fgclep_home")
class TestScan:
    def test_says_what_is_there_and_writes_nothing(self, tree, capsys):
        before = files_below(tree)
        assert run(["data", "scan", str(tree)]) == 0
        out = capsys.readouterr().out
        assert "synthetic ECGs in MIMIC-IV-ECG's layout (mimic-iv-ecg) in" in out
        assert "40 at 500 Hz" in out
        assert "10 s" in out
        assert files_below(tree) == before

    def test_names_what_would_be_rejected_and_why(self, tree, capsys):
        headers = sorted(tree.rglob("*.hea"))
        headers[0].unlink()
        headers[1].with_suffix(".dat").write_bytes(b"")
        headers[2].write_text(headers[2].read_text().replace(" aVL", " aVX"))
        headers[3].with_suffix(".dat").unlink()
        swapped = headers[4].read_text().replace(" aVL", " tmp").replace(" aVF", " aVL").replace(" tmp", " aVF")
        headers[4].write_text(swapped)
        samples = headers[5].with_suffix(".dat")
        samples.write_bytes(b"\x00\x80" * (samples.stat().st_size // 2))
        headers[6].write_text(headers[6].read_text().replace(" 5000", " 4000", 1))
        assert run(["data", "scan", str(tree), "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["schema"] == 1
        assert (report["listed"], report["missing"], report["usable"], report["rejected"]) == (40, 1, 33, 6)
        examples = {reason: entry["examples"][0]["record"] for reason, entry in report["rejects"].items()}
        assert examples == {
            "truncated": f"mimic-iv-ecg:{headers[1].stem}",
            "missing-lead": f"mimic-iv-ecg:{headers[2].stem}",
            "missing-file": f"mimic-iv-ecg:{headers[3].stem}",
            "lead-mismatch": f"mimic-iv-ecg:{headers[4].stem}",
            "nan": f"mimic-iv-ecg:{headers[5].stem}",
            "bad-header": f"mimic-iv-ecg:{headers[6].stem}",
        }
        assert run(["data", "scan", str(tree)]) == 0
        out = capsys.readouterr().out
        assert "lead aVL is missing" in out
        assert "aVL/aVF exchanged" in out
        assert f"1 listed records have no files here, such as mimic-iv-ecg:{headers[0].stem}." in out

    def test_limit_reads_the_first_records_only(self, tree, capsys):
        assert run(["data", "scan", str(tree), "--limit", "7", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert (report["usable"], report["beyond_limit"], report["rates"]) == (7, 33, {"500": 7})

    def test_partial_ptbxl_with_two_rates(self, shared_data, capsys):
        assert run(["data", "scan", str(shared_data / "ptbxl")]) == 0
        out = capsys.readouterr().out
        assert "100 Hz, 500 Hz; read at 500 Hz" in out
        assert "21777 listed records have no files here" in out

    def test_mixed_wfdb_folder(self, shared_data, capsys):
        assert run(["data", "scan", str(shared_data / "challenge2021")]) == 0
        assert "35 at 500 Hz, 3 at 1000 Hz" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("prepare", "code", "message"),
        [
            (lambda path: None, 3, "does not exist"),
            (lambda path: path.mkdir(), 1, "is empty; that is no data set"),
            (lambda path: path.write_text("x"), 1, "is a file; expected the folder"),
            (lambda path: (path.mkdir(), (path / "scan.pdf").touch()), 1, "holds scan.pdf; that is no data set"),
            (
                lambda path: (path.mkdir(), (path / "ptbxl_database.csv").touch()),
                1,
                "neither records100 nor records500",
            ),
        ],
    )
    def test_wrong_places_have_one_clear_error(self, tmp_path, capsys, prepare, code, message):
        prepare(tmp_path / "place")
        assert run(["data", "scan", str(tmp_path / "place")]) == code
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("error: ")
        assert message in captured.err
        assert "\nhint: " in captured.err


@pytest.mark.usefixtures("fgclep_home")
class TestSynth:
    def test_writes_a_tree_that_scan_reads(self, tmp_path, capsys):
        out = tmp_path / "new" / "tree"
        assert run(["data", "synth", str(out), "-n", "6", "--seed", "3", "--fs-hz", "100"]) == 0
        assert capsys.readouterr().out == ""
        assert run(["data", "scan", str(out), "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert (report["usable"], report["rejected"], report["rates"]) == (6, 0, {"100": 6})

    def test_the_seed_decides_the_tree(self, tmp_path):
        trees = [tmp_path / name for name in "abc"]
        for tree, seed in zip(trees, ("3", "3", "4"), strict=True):
            assert run(["data", "synth", str(tree), "-n", "3", "--seed", seed]) == 0
        first, again, other = (
            {path.relative_to(tree): path.read_bytes() for path in tree.rglob("*") if path.is_file()} for tree in trees
        )
        assert first == again
        assert first != other

    def test_never_writes_into_a_folder_that_holds_something(self, tmp_path, capsys):
        (tmp_path / "mine.txt").write_text("keep")
        assert run(["data", "synth", str(tmp_path), "-n", "3"]) == 2
        assert "not an empty directory" in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir() if path.name not in ("home", "work")] == ["mine.txt"]

    def test_an_impossible_request_is_a_usage_error_and_writes_nothing(self, tmp_path):
        for options in (["-n", "0"], ["-n", "3", "--seed", "-1"], ["-n", "3", "--fs-hz", "60"]):
            assert run(["data", "synth", str(tmp_path / "out"), *options]) == 2
        assert not (tmp_path / "out").exists()
