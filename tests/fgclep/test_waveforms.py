"""Prepared waveforms: what a cache holds is what reading would give, whatever happened to the cache before."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fgclep.datasets import open_dataset
from fgclep.errors import FgclepError
from fgclep.preprocessing import CLIP_MV, EcgProcessor
from fgclep.training.waveforms import Waveforms, WaveformSet, read_waveforms, to_mv, to_units
from tests.fgclep.pack_job import run_pack

SLOW = EcgProcessor(fs_hz=100, n_samples=1000, lowpass_hz=40.0, center="median")
FAST = EcgProcessor(fs_hz=250, n_samples=2500, lowpass_hz=None, center="none")
PLAIN = [EcgProcessor(fs_hz=500, n_samples=n, lowpass_hz=None, center="none") for n in (4000, 5000, 6000)]


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


def test_a_cache_gives_what_was_read_and_reads_nothing_again(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = read(tree, SLOW, tmp_path / "cache", workers=2)
    monkeypatch.setattr("fgclep.datasets.base.read_wfdb", _killed)
    again, said = read(tree, SLOW, tmp_path / "cache")
    assert said == []
    assert again.infos == first.infos
    assert np.array_equal(again.waveforms[:], first.waveforms[:])


def test_a_file_that_changed_is_read_again(tree: Path, tmp_path: Path) -> None:
    first, _ = read(tree, SLOW, tmp_path / "cache")
    changed = next(samples for samples in sorted(tree.rglob("*.dat")))
    np.negative(np.fromfile(changed, "<i2")).tofile(changed)
    os.utime(changed, ns=(0, 0))  # the clock of the file system may be too coarse for so short a test
    again, _ = read(tree, SLOW, tmp_path / "cache")
    differing = [not np.array_equal(*pair) for pair in zip(first.waveforms[:], again.waveforms[:], strict=True)]
    assert sum(differing) == 1


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
    assert np.array_equal(found.waveforms[:], expected.waveforms[:])


def _killed(*_: object) -> str:
    raise KeyboardInterrupt


@pytest.mark.parametrize("processor", PLAIN)
def test_a_pack_is_read_in_place_where_preparation_only_cuts_and_pads(
    processor: EcgProcessor, tree: Path, tmp_path: Path
) -> None:
    """The cache of the tree is the slow rewrite; samples beyond the clipping limit are among them."""
    header = sorted(tree.rglob("*.hea"))[0]
    samples = np.fromfile(header.with_suffix(".dat"), "<i2")
    samples[::2] = samples[::2] + 10_000  # 50 mV
    samples.tofile(header.with_suffix(".dat"))
    run_pack(tree, tmp_path / "pack")
    expected, expected_said = read(tree, processor, tmp_path / "cache")
    found, said = read(tmp_path / "pack", processor, tmp_path / "no-cache")
    assert said == expected_said
    assert found.infos == expected.infos
    assert found.waveforms.shape == expected.waveforms.shape == (9, 12, processor.n_samples)
    assert np.array_equal(found.waveforms[:], expected.waveforms[:])
    assert not (tmp_path / "no-cache").exists()


def test_a_pack_is_prepared_once_where_preparation_does_more(tree: Path, tmp_path: Path) -> None:
    run_pack(tree, tmp_path / "pack")
    for processor in (SLOW, FAST):
        expected, _ = read(tree, processor, tmp_path / "cache")
        found, _ = read(tmp_path / "pack", processor, tmp_path / "packed-cache")
        assert found.infos == expected.infos
        assert np.array_equal(found.waveforms[:], expected.waveforms[:])


def test_selected_waveforms_are_those_of_the_array() -> None:
    array = np.random.default_rng(0).integers(-999, 999, (20, 12, 5), np.int16)
    rows = np.array([3, 19, 0, 3, 7])
    chosen = Waveforms.of_array(array).select(rows)
    assert chosen.shape == (5, 12, 5)
    assert np.array_equal(chosen[:], array[rows])
    assert np.array_equal(chosen[1], array[19])
    assert np.array_equal(chosen[np.array([4, 0])], array[[7, 3]])
    assert np.array_equal(np.stack(list(chosen.select(np.array([2, 1])))), array[[0, 19]])


def test_nothing_is_read_before_it_is_asked_for() -> None:
    asked: list[int] = []

    def row(number: int) -> NDArray[np.int16]:
        asked.append(number)
        return np.zeros((12, 5), np.int16)

    waveforms = Waveforms(row, 5, np.arange(1000)).select(np.arange(500, 600))
    assert (len(waveforms), asked) == (100, [])
    waveforms[np.array([7, 2])]
    assert asked == [507, 502]


def test_a_cache_that_cannot_be_written_is_told(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(FgclepError, match="cache, which keeps the prepared waveforms, could not be written"):
        read(tree, SLOW, tmp_path / "cache")


def test_units_hold_everything_that_preparation_lets_through() -> None:
    extremes = np.array([-CLIP_MV, -0.0005, 0, 0.0005, CLIP_MV], np.float32)
    assert np.allclose(to_mv(to_units(extremes)), extremes, atol=1e-6)
