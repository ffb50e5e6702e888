"""The fast encoder gives the vectors of the plain one, whatever it starts from and however it is run."""

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fgclep.datasets import open_dataset
from fgclep.models.config import ECG_PRESETS, FGCLEPConfig
from fgclep.models.dual_encoder import EcgEncoder
from fgclep.models.inference import FastEcgEncoder, fast_encoder, fold_batch_norms, prepare_stored
from fgclep.preprocessing import EcgProcessor, StoredBatch, StoredStack
from fgclep.pretrained import load_model
from fgclep.record import EcgRecord, RecordInfo
from fgclep.signal import StoredEcg

CPU = torch.device("cpu")
INFO = RecordInfo("x:1", "x", "1", "1", "1")


@pytest.fixture(scope="module", params=["resnet1d-18", "resnet1d-50", "vit1d", "small"])
def encoder(request: pytest.FixtureRequest) -> EcgEncoder:
    """A narrow encoder of each kind, with batch norms that have seen data."""
    torch.manual_seed(0)
    entry = ECG_PRESETS[request.param]
    ecg = dict(entry["ecg"])
    ecg.update({"widths": [16, 24, 32, 48]} if ecg["arch"] == "resnet1d" else {"width": 64, "depth": 2})
    found = EcgEncoder(FGCLEPConfig(ecg=ecg, pool=entry["pool"], n_samples=1000, dim=64, text={"model_type": "bert"}))
    for module in found.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
    return found.eval()


@pytest.fixture(scope="module")
def waveforms() -> torch.Tensor:
    return torch.randn(9, 12, 1000, generator=torch.Generator().manual_seed(1)).cumsum(2) * 0.05


@torch.inference_mode()
def test_folded_and_turned_over_it_gives_the_same_vectors(encoder: EcgEncoder, waveforms: torch.Tensor) -> None:
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    fast = fast_encoder(encoder)
    np.testing.assert_allclose(fast(waveforms), encoder(waveforms), atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert not any(isinstance(module, nn.BatchNorm1d) for module in fast.tower.modules())


@torch.inference_mode()
def test_bfloat16_stays_within_a_thousandth(encoder: EcgEncoder, waveforms: torch.Tensor) -> None:
    cosines = (fast_encoder(encoder, torch.bfloat16)(waveforms) * encoder(waveforms)).sum(1)
    assert 1 - cosines.min() < 1e-3
    assert cosines.min() < 1 - 1e-8, "nothing was computed in bfloat16"


def test_a_batch_norm_without_its_convolution_stays() -> None:
    layers = nn.Sequential(nn.BatchNorm1d(4), nn.Conv1d(4, 4, 3), nn.ReLU(), nn.BatchNorm1d(4)).eval()
    kinds = [type(layer) for layer in fold_batch_norms(layers)]
    assert kinds == [nn.BatchNorm1d, nn.Conv1d, nn.ReLU, nn.BatchNorm1d]


def stack(processor: EcgProcessor, records: Sequence[EcgRecord]) -> StoredBatch:
    stacked = StoredStack(processor, len(records))
    assert all(stacked.add(record) for record in records)
    batch = stacked.batch()
    assert batch is not None
    return batch


def stored_ecg(rng: np.random.Generator, fs_hz: float, seconds: float, units_per_mv: float = 200.0) -> StoredEcg:
    units = rng.integers(-20, 21, (12, round(fs_hz * seconds))).cumsum(axis=1).clip(-9000, 9000).astype(np.int16)
    return StoredEcg(INFO, units, units_per_mv, fs_hz, ())


@pytest.mark.parametrize("fs_hz", [100, 250, 257, 360, 500, 1000])
@pytest.mark.parametrize("seconds", [4, 9.99, 10, 23])
@pytest.mark.parametrize(("lowpass_hz", "center", "target_hz"), [(40.0, "median", 100), (None, "none", 500)])
def test_int16_on_the_device_becomes_what_prepare_makes(
    fs_hz: float, seconds: float, lowpass_hz: float | None, center: str, target_hz: int
) -> None:
    processor = EcgProcessor(target_hz, 10 * target_hz, lowpass_hz, center)
    records = [stored_ecg(np.random.default_rng(number), fs_hz, seconds, 1000.0) for number in range(3)]
    stored = stack(processor, records)
    assert stored.units.dtype == np.int16
    expected = np.stack([processor.prepare(record.waveform, fs_hz) for record in records])
    np.testing.assert_allclose(prepare_stored(stored, slice(0, 2), processor, CPU), expected[:2], atol=2e-5)
    np.testing.assert_allclose(prepare_stored(stored, slice(2, 3), processor, CPU), expected[2:], atol=2e-5)


def test_records_that_differ_are_left_to_prepare() -> None:
    processor = EcgProcessor(100, 1000, 40.0, "median")
    rng = np.random.default_rng(0)
    ecg, alike = stored_ecg(rng, 500, 10), stored_ecg(rng, 500, 10)
    others = (stored_ecg(rng, 250, 20), stored_ecg(rng, 500, 9), stored_ecg(rng, 500, 10, units_per_mv=1000))
    stacked = StoredStack(processor, 2)
    assert stacked.batch() is None
    wide = EcgRecord(INFO, ecg.waveform, 500)
    odd = stored_ecg(rng, 257.38, 10)  # no common measure with 100 Hz: its matrix would be huge
    assert [stacked.add(record) for record in (wide, odd, ecg, *others, wide, alike)] == [0, 0, 1, 0, 0, 0, 0, 1]
    batch = stacked.batch()
    assert batch is not None and np.array_equal(batch.units, [ecg.units, alike.units])
    assert processor.prepare(odd.waveform, 257.38).shape == (12, 1000)


def test_a_stack_that_is_used_again_holds_the_later_records_only() -> None:
    processor = EcgProcessor(100, 1000, 40.0, "median")
    stacked = StoredStack(processor, 3)
    rng = np.random.default_rng(0)
    for fs_hz, seconds in ((100, 10), (500, 10), (250, 4), (500, 23)):
        stacked.clear()
        assert stacked.batch() is None
        records = [stored_ecg(rng, fs_hz, seconds) for _ in range(2)]
        assert all(stacked.add(record) for record in records)
        batch, fresh = stacked.batch(), stack(processor, records)
        assert batch is not None and batch.fs_hz == fresh.fs_hz
        assert np.array_equal(batch.units, fresh.units) and np.array_equal(batch.centres, fresh.centres)


@pytest.fixture(scope="module")
def files(synthetic_tree: Path) -> list[StoredEcg]:
    dataset = open_dataset(synthetic_tree)
    records = [dataset.read(info) for info in dataset.iter_infos()]
    assert all(isinstance(record, StoredEcg) for record in records)
    return records


def test_files_encoded_as_they_are_stored_give_the_model_s_own_vectors(
    files: list[StoredEcg], tiny_bundle: Path
) -> None:
    processor, model = EcgProcessor.from_pretrained(tiny_bundle), load_model(tiny_bundle)
    prepared = np.stack([processor.prepare(record.waveform, record.fs_hz) for record in files])
    expected = model.encode_ecg(prepared)
    exact = FastEcgEncoder(tiny_bundle, exact=True)
    assert exact.load() == model.dim and exact.arithmetic == "cpu float32"
    np.testing.assert_allclose(exact(prepared), expected, atol=1e-5)
    np.testing.assert_allclose(exact(stack(processor, files)), expected, atol=1e-5)
    usual = FastEcgEncoder(tiny_bundle)(stack(processor, files))
    assert 1 - (usual * expected).sum(axis=1).min() < 1e-3


def test_neither_threads_nor_the_trip_to_another_process_change_a_bit(
    files: list[StoredEcg], tiny_bundle: Path
) -> None:
    stored = stack(EcgProcessor.from_pretrained(tiny_bundle), files)
    encode = FastEcgEncoder(tiny_bundle)
    small = len(pickle.dumps(encode))
    before, vectors = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            vectors.append(encode(stored))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert len(pickle.dumps(encode)) < small + 1000, "the weights travel along"
    vectors.append(pickle.loads(pickle.dumps(encode))(stored))
    assert all(np.array_equal(vectors[0], other) for other in vectors[1:])


def test_centring_and_cropping_come_before_the_filter() -> None:
    """A jump right after the last sample that counts must not reach into the model's input."""
    processor = EcgProcessor(100, 1000, 40.0, "median")
    ecg = stored_ecg(np.random.default_rng(0), 500, 12)
    units = ecg.units.copy()
    units[:, processor.native_samples(500) :] = 9000
    both = [stack(processor, [record]) for record in (ecg, StoredEcg(INFO, units, 200.0, 500, ()))]
    assert torch.equal(*(prepare_stored(stored, slice(None), processor, CPU) for stored in both))
