import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgclep.datasets import open_dataset
from fgclep.datasets.base import Dataset
from fgclep.errors import DataError, UsageError
from fgclep.evaluation.embeddings import embed
from fgclep.evaluation.encoders import open_encoder
from fgclep.record import EcgRecord, RecordInfo, RecordReject


class Counting:
    """A data set that counts what is read of it."""

    def __init__(self, dataset: Dataset) -> None:
        self.root, self.fs_hz = dataset.root, dataset.fs_hz
        self._dataset = dataset
        self.reads = 0
        self.killed_at = -1

    def stamp(self, info: RecordInfo) -> list[tuple[int, int]]:
        return self._dataset.stamp(info)

    def read(self, info: RecordInfo) -> EcgRecord:
        if self.reads == self.killed_at:
            raise KeyboardInterrupt
        self.reads += 1
        if info.record_id.endswith("broken"):
            raise RecordReject(info.record_id, "truncated", "cut off")
        return self._dataset.read(info)


@pytest.fixture
def counted(synthetic_tree: Path) -> tuple[Any, list[RecordInfo]]:
    dataset = open_dataset(synthetic_tree)
    return Counting(dataset), list(dataset.iter_infos())[:6]


def direct(encoder: Any, dataset: Any, infos: list[RecordInfo]) -> np.ndarray:
    records = [dataset.read(info) for info in infos]
    return np.stack([encoder.prepare(record.waveform, record.fs_hz) for record in records])


def test_vectors_are_those_of_the_encoder_and_are_computed_once(
    tiny_bundle: Path, counted: tuple[Any, list[RecordInfo]], tmp_path: Path
) -> None:
    encoder = open_encoder(str(tiny_bundle))
    dataset, infos = counted
    batch = direct(encoder, dataset, infos)
    dataset.reads = 0
    told: list[tuple[int, int]] = []
    embedded = embed(encoder, dataset, infos, "joint", tmp_path, progress=lambda *counts: told.append(counts))
    assert np.allclose(embedded.vectors, encoder.encode(batch), atol=1e-6)
    assert embedded.vectors.dtype == np.float32
    assert embedded.kept.tolist() == list(range(6))
    assert embedded.rejects == {}
    assert told == [(6, 6)]
    again = embed(encoder, dataset, infos, "joint", tmp_path)
    assert dataset.reads == 6
    assert np.array_equal(again.vectors, embedded.vectors)
    assert np.array_equal(again.kept, embedded.kept)
    features = embed(encoder, dataset, infos, "features", tmp_path)
    assert np.allclose(features.vectors, encoder.features(batch), atol=1e-5)


def test_the_cache_tells_models_records_and_rates_apart(
    tiny_bundle: Path, other_bundle: Path, counted: tuple[Any, list[RecordInfo]], tmp_path: Path
) -> None:
    dataset, infos = counted
    one, other = open_encoder(str(tiny_bundle)), open_encoder(str(other_bundle))
    first = embed(one, dataset, infos, "joint", tmp_path)
    assert not np.allclose(embed(other, dataset, infos, "joint", tmp_path).vectors, first.vectors, atol=1e-3)
    turned = embed(one, dataset, infos[::-1], "joint", tmp_path)
    assert np.allclose(turned.vectors, first.vectors[::-1], atol=1e-6)
    before = dataset.reads
    dataset.fs_hz = 123
    embed(one, dataset, infos, "joint", tmp_path)
    assert dataset.reads == before + 6
    assert len(list(tmp_path.iterdir())) == 3


def test_sets_that_overlap_share_their_vectors(
    tiny_bundle: Path, counted: tuple[Any, list[RecordInfo]], tmp_path: Path
) -> None:
    dataset, infos = counted
    encoder = open_encoder(str(tiny_bundle))
    expected = encoder.features(direct(encoder, dataset, infos))
    dataset.reads = 0
    told: list[tuple[int, int]] = []
    for rows, reads, counts in (
        ([4, 1, 2], 3, [(3, 3)]),
        ([1, 2, 5, 1], 4, [(4, 4)]),
        ([5, 4, 2], 4, []),
        ([0, 1, 2, 3, 4, 5], 6, [(6, 6)]),
    ):
        told.clear()
        asked = [infos[row] for row in rows]
        embedded = embed(encoder, dataset, asked, "features", tmp_path, progress=lambda *each: told.append(each))
        assert np.allclose(embedded.vectors, expected[rows], atol=1e-5)
        assert embedded.kept.tolist() == list(range(len(rows)))
        assert (dataset.reads, told) == (reads, counts)


def test_only_records_whose_files_changed_are_encoded_again(
    tiny_bundle: Path, synthetic_tree: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(synthetic_tree, tree)
    dataset = Counting(open_dataset(tree))
    infos = list(open_dataset(tree).iter_infos())[:4]
    encoder = open_encoder(str(tiny_bundle))
    before = embed(encoder, dataset, infos, "joint", tmp_path / "cache")  # type: ignore[arg-type]
    samples = tree / f"{infos[2].path}.dat"
    values = np.fromfile(samples, "<i2")
    os.utime(samples, ns=(0, 0))
    samples.write_bytes(values[::-1].tobytes())  # as long as before
    after = embed(encoder, dataset, infos, "joint", tmp_path / "cache")  # type: ignore[arg-type]
    assert dataset.reads == 5
    assert np.array_equal(after.vectors[[0, 1, 3]], before.vectors[[0, 1, 3]])
    assert np.allclose(after.vectors, encoder.encode(direct(encoder, dataset, infos)), atol=1e-6)
    assert not np.allclose(after.vectors[2], before.vectors[2], atol=1e-3)
    samples.unlink()
    assert embed(encoder, dataset, infos, "joint", tmp_path / "cache").kept.tolist() == [0, 1, 3]  # type: ignore[arg-type]


def test_a_stopped_run_goes_on_where_it_was(
    tiny_bundle: Path, counted: tuple[Any, list[RecordInfo]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fgclep.evaluation.embeddings._CHUNK", 1)
    monkeypatch.setattr("fgclep.evaluation.embeddings._KEPT_TOGETHER", 2)
    dataset, infos = counted
    encoder = open_encoder(str(tiny_bundle))
    dataset.killed_at = 5
    with pytest.raises(KeyboardInterrupt):
        embed(encoder, dataset, infos, "joint", tmp_path)
    dataset.killed_at, dataset.reads = -1, 0
    resumed = embed(encoder, dataset, infos, "joint", tmp_path)
    assert dataset.reads == 2  # the last of the files kept holds the third and fourth record
    assert np.allclose(resumed.vectors, encoder.encode(direct(encoder, dataset, infos)), atol=1e-6)


@pytest.mark.parametrize("damage", ["cut", "flipped", "garbage", "empty"])
def test_a_damaged_cache_is_made_again(
    tiny_bundle: Path, counted: tuple[Any, list[RecordInfo]], tmp_path: Path, damage: str
) -> None:
    dataset, infos = counted
    encoder = open_encoder(str(tiny_bundle))
    first = embed(encoder, dataset, infos, "joint", tmp_path)
    (file,) = tmp_path.rglob("*.npz")
    whole = file.read_bytes()
    middle = whole.index(first.vectors.tobytes()) + 5
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    file.write_bytes({"cut": whole[:-30], "flipped": flipped, "garbage": b"not a zip", "empty": b""}[damage])
    again = embed(encoder, dataset, infos, "joint", tmp_path)
    assert dataset.reads == 12
    assert np.array_equal(again.vectors, first.vectors)
    assert [found.name for found in tmp_path.rglob("*.*")] == [file.name]
    embed(encoder, dataset, infos, "joint", tmp_path)
    assert dataset.reads == 12


def test_records_that_cannot_be_used_are_counted_and_left_out(
    tiny_bundle: Path, counted: tuple[Any, list[RecordInfo]], tmp_path: Path
) -> None:
    dataset, infos = counted
    encoder = open_encoder(str(tiny_bundle))
    infos[2] = replace(infos[2], record_id="synthetic:broken")
    for _ in range(2):  # computed, then from the cache
        embedded = embed(encoder, dataset, infos, "joint", tmp_path)
        assert embedded.kept.tolist() == [0, 1, 3, 4, 5]
        assert embedded.rejects == {"truncated": 1}
    good = [infos[row] for row in embedded.kept]
    assert np.allclose(embedded.vectors, encoder.encode(direct(encoder, dataset, good)), atol=1e-6)
    broken = [replace(info, record_id=f"{number} broken") for number, info in enumerate(infos)]
    with pytest.raises(DataError, match=r"none of 6 records could be used: truncated \(6\)"):
        embed(encoder, dataset, broken, "joint", tmp_path)


def test_worker_processes_give_the_same(tiny_bundle: Path, synthetic_tree: Path, tmp_path: Path) -> None:
    dataset = open_dataset(synthetic_tree)
    infos = [replace(info, record_id=f"{info.record_id}-{n}") for info in dataset.iter_infos() for n in range(4)]
    encoder = open_encoder(str(tiny_bundle))
    alone = embed(encoder, dataset, infos, "features", tmp_path / "alone", workers=1)
    together = embed(encoder, dataset, infos, "features", tmp_path / "together", workers=2)
    assert len(infos) > 2 * 64  # several chunks
    assert np.array_equal(alone.vectors, together.vectors)
    assert np.array_equal(alone.kept, together.kept)


def test_text_space_of_a_signal_model_is_refused(counted: tuple[Any, list[RecordInfo]], tmp_path: Path) -> None:
    class SignalOnly:
        name, fingerprint, joint = "deaf", "0" * 16, False

    with pytest.raises(UsageError, match="deaf has no text tower"):
        embed(SignalOnly(), *counted, "joint", tmp_path)  # type: ignore[arg-type]
