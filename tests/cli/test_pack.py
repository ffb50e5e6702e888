"""`fgclep data pack` as a user types it, and the pack in place of the tree."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.main import run
from fgclep.datasets import open_dataset
from indexer.home import resolve_index
from indexer.open import open_index

HEADER = "ecg_id,patient_id,age,sex,recording_date,report,scp_codes,strat_fold,filename_lr,filename_hr"
CODES = ("'NORM': 100.0", "'IMI': 0.0", "'LVH': 50.0, 'IMI': 0.0", "'SR': 0.0", "'NORM': 80.0")
REPORTS = ("sinus rhythm, inferior infarction", "", "trace only requested.", "normal ecg", "sinus rhythm. normal ecg")


@pytest.fixture(scope="module")
def tree(synthetic_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty ECGs in PTB-XL's layout; one without files, one without samples."""
    root = tmp_path_factory.mktemp("ptbxl")
    shutil.copytree(synthetic_tree / "files", root / "records500")
    headers = sorted((root / "records500").rglob("*.hea"))
    lines = [HEADER]
    for number, header in enumerate(headers):
        path = header.relative_to(root).with_suffix("").as_posix()
        codes, report = CODES[number % len(CODES)], REPORTS[number % len(REPORTS)]
        lines.append(f'{number},{number // 2}.0,60,0,,"{report}","{{{codes}}}",{number % 10 + 1},,{path}')
    (root / "ptbxl_database.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    headers[11].unlink()
    headers[12].with_suffix(".dat").unlink()
    return root


class Words:
    """Runs commands and keeps what they print."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *words: object) -> int:
        self._capsys.readouterr()
        code = run([str(word) for word in words])
        self.out, self.err = self._capsys.readouterr()
        return code

    def json(self, *words: object) -> Any:
        assert self(*words, "--json") == 0, self.err
        return json.loads(self.out)


@pytest.fixture
def fgclep(fgclep_home: Path, capsys: pytest.CaptureFixture[str]) -> Words:
    return Words(capsys)


@pytest.fixture
def packed(fgclep: Words, tree: Path, tmp_path: Path) -> Path:
    assert fgclep("data", "pack", tree, tmp_path / "pack", "--workers", 0) == 0, fgclep.err
    return tmp_path / "pack"


def test_a_pack_is_told_of_in_numbers_that_add_up(fgclep: Words, tree: Path, packed: Path) -> None:
    assert "Packing 39 records of PTB-XL at 500 Hz" in fgclep.err
    assert f"Next: fgclep index build --data {packed} --name NAME" in fgclep.err
    told = dict(line.strip("│\n ").split("│", 1) for line in fgclep.out.splitlines() if line.startswith("│"))
    told = {key.strip(): value.strip() for key, value in told.items()}
    assert told["records listed"] == "40"
    assert (told["files missing"], told["rejected"]) == ("1", "1 (1 missing-file)")
    assert (told["packed"], told["bit for bit"]) == ("38 of 20 subjects", "38")
    assert told["reports to train on"] == "16, 2 different texts"
    lacking = [told[f"report {fault}"].split()[0] for fault in ("empty", "uninformative", "short")]
    assert lacking == ["7", "7", "8"]
    records = [int(told[split].split()[0]) for split in ("train", "val", "test")]
    assert records == [30, 4, 4]
    assert told["split by"].startswith("the data set's folds")


def test_commands_take_a_pack_for_the_tree(
    fgclep: Words, tree: Path, packed: Path, tiny_bundle: Path, fgclep_home: Path
) -> None:
    scans = [fgclep.json("data", "scan", path) for path in (tree, packed)]
    assert scans[0] | {"root": ""} == scans[1] | {"root": ""}
    words = ("evaluate", "zero-shot", "--dataset", "ptbxl-super", "--split", "train", "--model", tiny_bundle)
    scores = [fgclep.json(*words, "--draws", 0, "--data", path)["results"][0] for path in (tree, packed)]
    assert scores[0]["records"] > 20
    same = ("classes", "listed", "missing", "records", "rejects", "source")
    assert [scores[0].get(name) for name in same] == [scores[1].get(name) for name in same]
    indexes = []
    for name, path in (("tree", tree), ("pack", packed)):
        build = ("index", "build", "--model", tiny_bundle, "--workers", 0)
        assert fgclep(*build, "--data", path, "--name", name) == 0, fgclep.err
        assert fgclep("index", "verify", name) == 0, fgclep.err
        indexes.append(open_index(resolve_index(name, fgclep_home)))
    first, second = indexes
    assert list(first.store.record_ids()) == list(second.store.record_ids())
    assert np.array_equal(first.vectors, second.vectors)
    assert first.manifest.counts == second.manifest.counts
    assert fgclep("show", "ptb-xl:3", "--index", "pack") == 0, fgclep.err
    moved = ("index", "relocate", packed, "--name", "tree")
    assert fgclep(*moved) == 0, "an index of the tree goes on with the pack: " + fgclep.err


def test_the_same_command_again_reads_nothing(fgclep: Words, tree: Path, packed: Path, monkeypatch) -> None:
    files = {path: path.stat().st_mtime_ns for path in packed.iterdir()}
    monkeypatch.setattr("fgclep.datasets.pack_write._write_shards", None)
    assert fgclep("data", "pack", tree, packed) == 0, fgclep.err
    assert f"{packed} is a finished pack; comparing it with {tree}." in fgclep.err
    assert {path: path.stat().st_mtime_ns for path in packed.iterdir()} == files


def test_another_rate(fgclep: Words, tree: Path, packed: Path, tmp_path: Path) -> None:
    told = fgclep.json("data", "pack", tree, tmp_path / "slow", "--fs", 100, "--workers", 0)
    assert told["counts"]["rates_hz"] == {"100": 38}
    assert told["counts"]["bit_for_bit"] == 0
    assert open_dataset(tmp_path / "slow").rates == (100,)
    assert "resampled to 100 Hz" in fgclep.err
    assert (
        fgclep.json("data", "pack", tree, tmp_path / "own", "--fs", 500, "--workers", 0)["counts"]["bit_for_bit"] == 38
    )


def test_a_dry_run_writes_nothing(fgclep: Words, tree: Path, tmp_path: Path) -> None:
    assert fgclep("data", "pack", tree, tmp_path / "pack", "--dry-run") == 0
    assert "about 4.7 MB" in fgclep.err and "dry run" in fgclep.err
    assert not (tmp_path / "pack").exists()


def test_too_little_space_is_told_before_anything_is_written(
    fgclep: Words, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=4_000_000))
    assert fgclep("data", "pack", tree, tmp_path / "pack") == 1
    assert "needs about 5 MB" in fgclep.err and "4 MB are free" in fgclep.err
    assert not (tmp_path / "pack").exists()


def test_mistakes_are_told_in_a_sentence(fgclep: Words, tree: Path, packed: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    for words, code, complaint in [
        ((tree, tmp_path / "full"), 2, "holds other things than a pack"),
        ((tmp_path / "none", tmp_path / "new"), 3, "does not exist"),
        ((tree, packed, "--fs", 100), 2, "pack with another resampled_to_hz None, now 100"),
        ((tree, tmp_path / "new", "--fs", 1), 2, "--fs"),
    ]:
        assert fgclep("data", "pack", *words) == code
        assert complaint in fgclep.err
        assert fgclep.err.count("error: ") == 1 and "internal error" not in fgclep.err
    assert not (tmp_path / "new").exists()
    (packed / "00000.i16").write_bytes(b"")
    assert fgclep("data", "scan", packed) == 6
    assert "the manifest says" in fgclep.err and "--restart" in fgclep.err
