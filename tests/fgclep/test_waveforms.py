"""Prepared waveforms: what a cache holds is what reading would give, whatever happened to the cache before."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from fgclep.datasets import open_dataset
from fgclep.preprocessing import CLIP_MV, EcgProcessor
from fgclep.training.waveforms import WaveformSet, read_waveforms, to_mv, to_units

SLOW = EcgProcessor(fs_hz=100, n_samples=1000, lowpass_hz=40.0, center="median")
FAST = EcgProcessor(fs_hz=250, n_samples=2500, lowpass_hz=None, center="none")


@pytest.fixture
def tree(synthetic_tree: Path, tmp_path: Path) -> Path:
    """Ten records, the third without its samples."""
    root = tmp_path / "tree"
    shutil.copytree(synthetic_tree, root)
    with (root / "record_list.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))[:11]
    with (root / "record_list.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    (root / rows[3][-1]).with_suffix(".dat").unlink()
    return root


def read(tree: Path, processor: EcgProcessor, cache: Path, workers: int = 1) -> tuple[WaveformSet, list[str]]:
    said: list[str] = []
    return read_waveforms(open_dataset(tree), processor, cache, workers, said.append), said


def test_every_record_stands_beside_its_own_waveform(tree: Path, tmp_path: Path) -> None:
    dataset = open_dataset(tree)
    infos = list(dataset.iter_infos())
    found, said = read(tree, SLOW, tmp_path / "cache")
    assert said == [f"rejected {infos[2].record_id}: missing-file"]
    assert found.infos == infos[:2] + infos[3:]
    assert len(found.waveforms) == len(found.infos)
    for info, units in zip(found.infos, found.waveforms, strict=True):
        record = dataset.read(info)
        assert np.abs(to_mv(units) - SLOW.prepare(record.waveform, record.fs_hz)).max() <= 0.000251


def test_a_cache_gives_what_was_read_and_reads_nothing_again(tree: Path, tmp_path: Path) -> None:
    first, _ = read(tree, SLOW, tmp_path / "cache", workers=2)
    for samples in tree.rglob("*.dat"):
        samples.unlink()
    again, said = read(tree, SLOW, tmp_path / "cache")
    assert said == []
    assert again.infos == first.infos
    assert np.array_equal(again.waveforms, first.waveforms)


def test_a_cache_of_another_input_is_not_used(tree: Path, tmp_path: Path) -> None:
    read(tree, SLOW, tmp_path / "cache")
    other, _ = read(tree, FAST, tmp_path / "cache")
    assert other.waveforms.shape == (9, 12, 2500)


def test_a_run_killed_while_it_replaces_a_cache_leaves_none(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the old description would stand beside the new waveforms."""
    expected, _ = read(tree, SLOW, tmp_path / "cache")
    monkeypatch.setattr("fgclep.training.waveforms.json.dumps", _killed)
    with pytest.raises(KeyboardInterrupt):
        read(tree, FAST, tmp_path / "cache")
    monkeypatch.undo()
    found, _ = read(tree, SLOW, tmp_path / "cache")
    assert np.array_equal(found.waveforms, expected.waveforms)


def _killed(*_: object) -> str:
    raise KeyboardInterrupt


def test_units_hold_everything_that_preparation_lets_through() -> None:
    extremes = np.array([-CLIP_MV, -0.0005, 0, 0.0005, CLIP_MV], np.float32)
    assert np.allclose(to_mv(to_units(extremes)), extremes, atol=1e-6)
