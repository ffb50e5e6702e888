"""A pack says of every record what the tree says, whatever is wrong with the record."""

import csv
import pickle
import random
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgclep.datasets import Dataset, open_dataset, open_for_rate
from fgclep.datasets.pack import Pack
from fgclep.datasets.pack_format import quantise, to_mv
from fgclep.datasets.scan import scan
from fgclep.errors import CompatibilityError, CorruptionError, DataError, NotSetUpError
from fgclep.record import EcgRecord, RecordInfo, RecordReject
from fgclep.reports import clean_report, report_hash
from fgclep.signal import resample
from tests.fgclep.pack_job import SHARD, run_pack


@pytest.fixture(scope="module")
def tree(synthetic_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty records: one without files, four rejected for different reasons, one with a gap, one beyond 32 mV."""
    root = tmp_path_factory.mktemp("tree") / "tree"
    shutil.copytree(synthetic_tree, root)
    headers = sorted(root.rglob("*.hea"))
    headers[0].unlink()
    headers[1].with_suffix(".dat").write_bytes(b"")
    headers[2].write_text(headers[2].read_text().replace(" aVL", " aVX"))
    headers[3].with_suffix(".dat").unlink()
    samples = np.fromfile(headers[5].with_suffix(".dat"), "<i2").reshape(-1, 12)
    samples[100:130, 3] = -32768
    samples.tofile(headers[5].with_suffix(".dat"))
    far = np.fromfile(headers[6].with_suffix(".dat"), "<i2").reshape(-1, 12)
    far[:, 7] += 12_000  # 60 mV
    far.tofile(headers[6].with_suffix(".dat"))
    return root


@pytest.fixture(scope="module")
def packed(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pack") / "pack"
    run_pack(tree, out)
    return out


def check_same(source: Dataset, pack: Dataset) -> None:
    """Compare all that two data sets tell, record by record."""
    assert (pack.kind, pack.rates, pack.fs_hz) == (source.kind, source.rates, source.fs_hz)
    assert (pack.listed, pack.missing) == (source.listed, source.missing)
    assert sorted(pack.iter_listed()) == sorted(source.iter_listed())
    infos = list(source.iter_infos())
    assert list(pack.iter_infos()) == infos
    for info in infos:
        try:
            expected = source.read(info)
        except RecordReject as reject:
            with pytest.raises(RecordReject) as found:
                pack.read(info)
            assert (found.value.reason, found.value.detail) == (reject.reason, reject.detail)
            continue
        record = pack.read(info)
        assert (record.info, record.fs_hz, record.flags) == (expected.info, expected.fs_hz, expected.flags)
        if "nan-filled" in expected.flags:
            assert np.abs(record.waveform - expected.waveform).max() <= 0.000501
        else:
            assert np.array_equal(record.waveform, expected.waveform)
            assert record.waveform.dtype == expected.waveform.dtype


def test_every_record_is_as_in_the_tree(tree: Path, packed: Path) -> None:
    pack = open_dataset(packed)
    assert isinstance(pack, Pack)
    check_same(open_dataset(tree), pack)


def test_a_pack_that_was_made_again_of_other_samples_counts_as_changed(
    tree: Path, packed: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(tree, tmp_path / "tree")
    changed = sorted(other.rglob("*.dat"))[-1]
    np.negative(np.fromfile(changed, "<i2")).tofile(changed)
    run_pack(other, tmp_path / "pack")
    info = next(open_dataset(packed).iter_infos())
    stamps = [open_dataset(root).stamp(info) for root in (packed, packed, tmp_path / "pack")]
    assert stamps[0] == stamps[1] != stamps[2]


def test_real_trees_are_packed_without_a_loss(shared_data: Path, tmp_path: Path) -> None:
    for name in ("ptbxl", "challenge2021"):
        run_pack(shared_data / name, tmp_path / name)
        check_same(open_dataset(shared_data / name), replace_rates(open_dataset(tmp_path / name), shared_data / name))


def replace_rates(pack: Dataset, tree: Path) -> Dataset:
    """A pack offers the one rate it was made at; everything else is as in the tree."""
    if pack.rates:
        assert pack.rates == (pack.fs_hz,)
        pack.rates = open_dataset(tree).rates
    return pack


def test_scan_counts_what_it_counts_in_the_tree(tree: Path, packed: Path) -> None:
    assert asdict(scan(open_dataset(packed))) | {"root": ""} == asdict(scan(open_dataset(tree))) | {"root": ""}


def test_the_manifest_counts_what_is_there(tree: Path, packed: Path) -> None:
    pack = open_dataset(packed)
    assert isinstance(pack, Pack)
    counts = pack.manifest["counts"]
    infos = [info for info, row in pack.iter_rows() if row is not None]
    assert counts["listed"] == counts["missing"] + counts["packed"] + counts["rejected"] == 40
    assert counts["packed"] == len(infos) == 36
    assert counts["rejected_by_reason"] == {"missing-file": 1, "missing-lead": 1, "truncated": 1}
    assert counts["bit_for_bit"] == 35
    assert counts["subjects"] == len({info.subject_id for info in infos})
    usable = [info for info in infos if len(clean_report(info.report_lines).split()) >= 4]
    assert counts["reports"]["usable"] == len(usable)
    assert counts["reports"]["unique_texts"] == len({report_hash("\n".join(info.report_lines)) for info in usable})
    assert sum(counts["reports"]["left_out"].values()) == len(infos) - len(usable)
    with (packed / "rejects.csv").open(newline="") as file:
        rejects = {row["reason"]: row["record_id"] for row in csv.DictReader(file)}
    assert set(rejects) == set(counts["rejected_by_reason"])
    assert [shard["records"] for shard in pack.manifest["shards"]] == [
        sum(row is not None for _, row in list(pack.iter_rows())[start : start + SHARD])
        for start in range(0, 39, SHARD)
    ]


def test_a_worker_reads_any_record_in_any_order(tree: Path, packed: Path) -> None:
    source, pack = open_dataset(tree), pickle.loads(pickle.dumps(open_dataset(packed)))
    assert len(pickle.dumps(pack)) < 1000
    infos = [info for info, row in pack.iter_rows() if row is not None]
    random.Random(1).shuffle(infos)
    assert all(np.allclose(pack.read(info).waveform, source.read(info).waveform, atol=0.000501) for info in infos)
    with pytest.raises(RecordReject, match="no such record"):
        pack.read(replace(infos[0], record_id="mimic-iv-ecg:1"))


def test_another_rate_is_the_resampled_tree_to_a_microvolt(tree: Path, tmp_path: Path) -> None:
    run_pack(tree, tmp_path / "pack", fs_hz=250)
    source, pack = open_dataset(tree), open_for_rate(tmp_path / "pack", 100)
    assert pack.fs_hz == 250
    for info, row in list(pack.iter_rows())[:12] if isinstance(pack, Pack) else []:
        if row is not None:
            step_mv = 1 / row.units_per_mv
            record, native = pack.read(info), source.read(info)
            assert record.fs_hz == 250
            error = np.abs(record.waveform - resample(native.waveform, native.fs_hz, 250)).max()
            assert error <= step_mv / 2 + 1e-5
            assert step_mv == 0.001 or np.abs(native.waveform).max() > 32


def test_a_pack_can_be_packed_again(packed: Path, tmp_path: Path) -> None:
    run_pack(packed, tmp_path / "again")
    check_same(open_dataset(packed), open_dataset(tmp_path / "again"))


@given(st.integers(0, 2**32 - 1), st.floats(1e-4, 300))
def test_no_sample_is_off_by_more_than_half_a_unit(seed: int, peak: float) -> None:
    waveform = np.random.default_rng(seed).uniform(-peak, peak, (12, 50)).astype(np.float32)
    record = EcgRecord(RecordInfo("x:1", "x", "1", "1", "1"), waveform, 500.0)
    units, gain, exact = quantise(record)
    error = np.abs(to_mv(units, gain) - waveform).max()
    assert gain == 1000 or np.abs(waveform).max() > 32.7
    assert error <= 0.5 / gain + peak * 3e-7
    assert exact == (error == 0)


class TestDamage:
    @pytest.fixture
    def mine(self, packed: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(packed, tmp_path / "pack"))

    @pytest.mark.parametrize("name", ["00001.i16", "00002.jsonl", "lookup.npy", "rejects.csv", "synthetic_truth.csv"])
    def test_a_scan_finds_a_changed_byte(self, mine: Path, name: str) -> None:
        content = bytearray((mine / name).read_bytes())
        content[len(content) // 2] ^= 1
        (mine / name).write_bytes(content)
        with pytest.raises(CorruptionError, match=f"{name}.*checksum differs"):
            scan(open_dataset(mine))

    def test_a_cut_shard_is_refused_when_read(self, mine: Path) -> None:
        pack = open_dataset(mine)
        infos = list(pack.iter_infos())
        with (mine / "00003.i16").open("r+b") as file:
            file.truncate(1000)
        with pytest.raises(CorruptionError, match=r"00003\.i16 has 1,000 bytes; the manifest says"):
            pack.read(infos[3 * SHARD])
        (mine / "00004.jsonl").unlink()
        with pytest.raises(CorruptionError, match=r"00004\.jsonl of this pack cannot be read"):
            list(pack.iter_infos())

    def test_a_foreign_manifest_is_refused(self, mine: Path) -> None:
        text = (mine / "pack.json").read_text()
        (mine / "pack.json").write_text(text.replace('"schema": 1', '"schema": 9', 1))
        with pytest.raises(CompatibilityError, match="schema 9"):
            open_dataset(mine)
        (mine / "pack.json").write_text(text[:100])
        with pytest.raises(CorruptionError, match="not a readable manifest"):
            open_dataset(mine)

    def test_nothing_usable_makes_no_pack(self, synthetic_tree: Path, tmp_path: Path) -> None:
        root = Path(shutil.copytree(synthetic_tree, tmp_path / "tree"))
        for samples in root.rglob("*.dat"):
            samples.unlink()
        with pytest.raises(DataError, match=r"No record of .* can be used: 40 missing-file"):
            run_pack(root, tmp_path / "pack")
        with pytest.raises(DataError, match="was not finished"):
            open_dataset(tmp_path / "pack")
        with pytest.raises(NotSetUpError):
            open_dataset(tmp_path / "absent")
