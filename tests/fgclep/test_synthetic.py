"""The synthetic generator: identities, determinism, truth against an independent reading of the samples, files."""

import csv
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import wfdb
from numpy.typing import NDArray
from scipy.signal import find_peaks

from fgclep.datasets import open_dataset
from fgclep.datasets.synthetic import MIMIC_LEADS, UNITS_PER_MV, SyntheticEcg, generate, generate_one, write_tree
from fgclep.errors import UsageError
from fgclep.leads import LEADS
from fgclep.synth.cases import Case
from fgclep.synth.reports import lead_list
from fgclep.synth.rhythm import draw_timeline
from fgclep.synth.truth import GROUPS
from fgclep.synth.waves import TO_TWELVE, dipole_waves

_IDS = """
SR SBRAD STACH SARRH AFIB AFLT SVTAC PSVT SVARR PACE BIGU TRIGU JUNC IDIO VTACH EAR APACE VPACE AFIB_RVR AFIB_SVR
PVC PAC PRC 1AVB 2AVB 2AVB1 2AVB2 3AVB LPR SPR AVB CRBBB IRBBB CLBBB ILBBB LAFB LPFB LAFB_LPFB IVCD WPW
LAXIS RAXIS XAXIS NAXIS LVOLT HVOLT VCLVH LVH RVH SEHYP LAO RAO
IMI AMI ASMI ALMI ILMI LMI PMI IPMI IPLMI IMI_ANY AMI_ANY QWAVE Q_INF Q_ANT Q_LAT PRWP
ISC ISCAL ISCIN ISCIL ISCAS ISCLA ISCAN ISCA_ANY ISCI_ANY INJAS INJAL INJIN INJLA INJIL ANEUR
STD STE NST NDT NT TAB INVT LOWT TTALL DIG EL LNGQT SHQT UWAVE BRUG ERP STTC_SUB
STE_ANT STE_INF STE_LAT STD_ANT STD_INF STD_LAT TINV_ANT TINV_INF TINV_LAT
ABQRS NORM NOISE WANDER LIMBREV MI STTC CD HYP
"""
FINDINGS = _IDS.split()

N = 1500


@pytest.fixture(scope="module")
def corpus() -> list[SyntheticEcg]:
    return list(generate(20, N, fs_hz=100))


@pytest.fixture(scope="module")
def shares(corpus: list[SyntheticEcg]) -> dict[str, float]:
    counts = Counter(name for ecg in corpus for name in ecg.truth)
    return {name: count / len(corpus) for name, count in counts.items()}


@pytest.mark.parametrize("fs_hz", [100, 500])
def test_the_limb_leads_obey_einthoven_and_goldberger(fs_hz: int) -> None:
    for ecg in generate(3, 40, fs_hz=fs_hz):
        i, ii, iii, avr, avl, avf = ecg.record.waveform[:6].astype(float)
        half_step = 0.5 / UNITS_PER_MV + 1e-6
        np.testing.assert_allclose(iii, ii - i, atol=1e-5)
        np.testing.assert_allclose(avr, -(i + ii) / 2, atol=half_step)
        np.testing.assert_allclose(avl, i - ii / 2, atol=half_step)
        np.testing.assert_allclose(avf, ii - i / 2, atol=half_step)


def test_every_sample_is_a_whole_step_and_the_shape_is_ten_seconds() -> None:
    for fs_hz in (100, 250, 500):
        waveform = generate_one(4, 9, fs_hz).record.waveform
        assert waveform.shape == (12, 10 * fs_hz)
        assert waveform.dtype == np.float32
        np.testing.assert_allclose(waveform * UNITS_PER_MV, np.rint(waveform * UNITS_PER_MV), atol=2e-3)


def test_a_record_depends_on_seed_and_number_only() -> None:
    whole = list(generate(7, 12, fs_hz=100))
    part = list(generate(7, 4, fs_hz=100, start=8))
    for one, other in zip(whole[8:], part, strict=True):
        assert one.record.info == other.record.info
        assert one.truth == other.truth
        assert one.record.waveform.tobytes() == other.record.waveform.tobytes()
    assert whole[0].record.waveform.tobytes() != next(generate(8, 1, fs_hz=100)).record.waveform.tobytes()


def test_another_process_makes_the_same_bits() -> None:
    code = (
        "import hashlib; from fgclep.datasets.synthetic import generate\n"
        "print(hashlib.sha256(b''.join(e.record.waveform.tobytes() + repr(e.record.info).encode()"
        " for e in generate(5, 6, fs_hz=100))).hexdigest())"
    )
    root = Path(__file__).parents[2]
    runs = {
        subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(runs) == 1


def test_the_rate_changes_the_samples_only() -> None:
    for number in range(15):
        slow, fast = generate_one(6, number, 100), generate_one(6, number, 500)
        assert slow.record.info == fast.record.info
        assert slow.truth == fast.truth


def test_the_same_beats_are_drawn_at_every_rate() -> None:
    quiet = [n for n in range(60) if "NORM" in generate_one(6, n, 100).truth and not _noisy(generate_one(6, n, 100))]
    for number in quiet[:8]:
        slow, fast = (generate_one(6, number, fs).record.waveform for fs in (100, 500))
        both = np.corrcoef(slow[7], fast[7, ::5])[0, 1]
        assert both > 0.97


def _noisy(ecg: SyntheticEcg) -> bool:
    return "NOISE" in ecg.truth or "WANDER" in ecg.truth


def test_every_finding_occurs_and_a_third_is_normal(shares: dict[str, float]) -> None:
    assert [name for name in FINDINGS if name not in shares] == []
    assert {name for name in shares if "@" not in name} == set(FINDINGS)
    assert 0.29 <= shares["NORM"] <= 0.40
    assert [name for name in FINDINGS if shares[name] < 0.006] == []


def test_every_lead_can_show_every_lead_finding(shares: dict[str, float]) -> None:
    for kind in ("STE", "STD", "TINV", "Q"):
        missing = [lead for lead in LEADS if lead != "aVR" and f"{kind}@{lead}" not in shares]
        assert missing == [], kind
    assert not [name for name in shares if name.endswith("@aVR")]


def test_truth_agrees_with_itself(corpus: list[SyntheticEcg]) -> None:
    for ecg in corpus:
        truth, info = ecg.truth, ecg.record.info
        assert info.tags == tuple(truth)
        for group, members in GROUPS.items():
            assert (group in truth) == any(member in truth for member in members)
        assert sum(axis in truth for axis in ("NAXIS", "LAXIS", "RAXIS", "XAXIS")) == 1
        if "NORM" in truth:
            assert not {"MI", "STTC", "CD", "HYP", "STE", "STD", "INVT", "QWAVE", "PRC", "LVOLT"} & set(truth)
        for territory in (name for name in truth if name[:4] in ("STE_", "STD_", "TINV", "Q_AN", "Q_IN", "Q_LA")):
            if "_" in territory:
                kind = territory.split("_")[0]
                assert len(truth[territory]) >= 2
                assert all(f"{kind}@{lead}" in truth for lead in truth[territory])


def test_measurements_bear_out_the_findings(corpus: list[SyntheticEcg]) -> None:
    for ecg in corpus:
        truth, m = ecg.truth, ecg.record.info.measurements
        assert ("1AVB" in truth) == (m.pr_interval_ms is not None and m.pr_interval_ms > 200 and "2AVB1" not in truth)
        assert m.qrs_duration_ms is not None and m.qrs_axis_deg is not None and m.qtc_ms is not None
        if {"CRBBB", "CLBBB"} & set(truth):
            assert m.qrs_duration_ms >= 120
        if "IRBBB" in truth or "NORM" in truth:
            assert m.qrs_duration_ms < 120
        if "LAFB" in truth and "CRBBB" not in truth and "LIMBREV" not in truth and "MI" not in truth:
            assert -90 <= m.qrs_axis_deg < -30
        if "LNGQT" in truth:
            assert m.qtc_ms > 460
        if "AFIB" in truth:
            assert m.pr_interval_ms is None and "SR" not in truth


def _r_peaks(waveform: NDArray[np.float32], fs_hz: int) -> NDArray[np.intp]:
    """Find complexes by the energy of the slope over all leads: a reading that knows nothing of the generator."""
    step = fs_hz // 50
    slope = (waveform[:, step:] - waveform[:, :-step]) ** 2
    energy = np.convolve(slope.sum(axis=0), np.ones(fs_hz // 12), "same")
    height = 0.3 * np.percentile(energy, 98.5)
    return np.asarray(find_peaks(energy, height=height, distance=int(0.28 * fs_hz))[0])


def _median_beat(ecg: SyntheticEcg, fs_hz: int) -> NDArray[np.float64] | None:
    """Return the median beat of a steady record from 0.3 s before to 0.6 s after the complex, PR level zero."""
    waveform = ecg.record.waveform.astype(float)
    places = _r_peaks(ecg.record.waveform, fs_hz)
    before, after = int(0.3 * fs_hz), int(0.6 * fs_hz)
    beats = [waveform[:, p - before : p + after] for p in places if before <= p < waveform.shape[1] - after]
    if len(beats) < 4:
        return None
    level = int(0.075 * fs_hz)
    return np.median([beat - beat[:, before - level : before - level + 8].mean(1, keepdims=True) for beat in beats], 0)


@pytest.fixture(scope="module")
def steady() -> list[tuple[SyntheticEcg, NDArray[np.float64]]]:
    """Records with one kind of complex, usual PR, little noise; and their median beats at 500 Hz."""
    found = []
    for number in range(360):
        small = generate_one(31, number, 100)
        info = small.record.info.measurements
        usual = "SR" in small.truth and info.pr_interval_ms is not None and 130 < info.pr_interval_ms < 260
        if usual and not _noisy(small) and not {"PRC", "2AVB", "LIMBREV", "VPACE", "WPW"} & set(small.truth):
            ecg = generate_one(31, number, 500)
            beat = _median_beat(ecg, 500)
            if beat is not None:
                found.append((ecg, beat))
    assert len(found) > 100
    return found


def test_rate_is_what_the_samples_show(steady: list[tuple[SyntheticEcg, NDArray[np.float64]]]) -> None:
    errors = []
    for ecg, _ in steady:
        places = _r_peaks(ecg.record.waveform, 500)
        rate = ecg.record.info.measurements.heart_rate_bpm
        assert rate is not None
        errors.append(abs(60 * 500 / np.median(np.diff(places)) - rate) / rate)
    assert np.quantile(errors, 0.95) < 0.03


def test_t_wave_truth_is_what_the_samples_show(steady: list[tuple[SyntheticEcg, NDArray[np.float64]]]) -> None:
    """The T peak read off the median beat has the sign the truth says, with 0.05 mV of leeway."""
    wrong = total = inverted = 0
    for ecg, beat in steady:
        qt = ecg.record.info.measurements.qt_interval_ms
        assert qt is not None
        end = int((0.3 + min(0.59, qt / 1000 - 0.06)) * 500)
        window = beat[:, end - 70 : end]
        for row, lead in enumerate(LEADS):
            if lead == "aVR":
                continue
            total += 1
            low = window[row].min()
            told = f"TINV@{lead}" in ecg.truth
            inverted += told
            wrong += (told and low > -0.05) or (not told and low < -0.17 and window[row].max() < -low)
    assert inverted > 50
    assert wrong / total < 0.01


def test_voltage_truth_is_what_the_samples_show(steady: list[tuple[SyntheticEcg, NDArray[np.float64]]]) -> None:
    limb = [LEADS.index(lead) for lead in ("I", "II", "III", "aVL", "aVF")]
    low = 0
    for ecg, beat in steady:
        size = np.ptp(beat[:, 110:200], axis=1)
        told = "I" in ecg.truth.get("LVOLT", ())
        low += told
        assert size[limb].max() < 0.6 if told else size[limb].max() > 0.44 or "CLBBB" in ecg.truth
    assert low >= 3


def test_qrs_duration_is_what_the_samples_show(steady: list[tuple[SyntheticEcg, NDArray[np.float64]]]) -> None:
    """From the first to the last instant at which all leads together move fast, narrow and wide complexes alike."""
    errors: dict[bool, list[float]] = {True: [], False: []}
    for ecg, beat in steady:
        told = ecg.record.info.measurements.qrs_duration_ms
        assert told is not None
        smooth = np.apply_along_axis(lambda lead: np.convolve(lead, np.ones(3) / 3, "same"), 1, beat)[:, 100:230]
        speed = np.sqrt((np.gradient(smooth, axis=1) ** 2).sum(axis=0))
        fast = np.flatnonzero(speed > 0.07 * speed.max())
        errors[told >= 120].append(float(fast[-1] - fast[0]) * 2 - told)
    for wide, values in errors.items():
        assert len(values) >= 5
        assert abs(np.median(values)) < 14, wide
        assert np.median(np.abs(values)) < 16, wide


def test_r_grows_from_v1_to_v4_in_normal_hearts(corpus: list[SyntheticEcg]) -> None:
    v1, v4 = LEADS.index("V1"), LEADS.index("V4")
    heights = [ecg.record.waveform.max(axis=1) for ecg in corpus if "NORM" in ecg.truth]
    assert np.mean([height[v1] < height[v4] for height in heights]) > 0.97


def test_normal_amplitudes_lie_where_real_ones_do(corpus: list[SyntheticEcg]) -> None:
    """Median peak-to-peak per second of PTB-XL's NORM records (folds 1-9), measured the same way."""
    real = [0.83, 0.98, 0.59, 0.88, 0.53, 0.68, 1.06, 1.68, 1.70, 1.84, 1.57, 1.22]
    normal = np.array([ecg.record.waveform for ecg in corpus if "NORM" in ecg.truth])
    per_second = np.ptp(normal.reshape(len(normal), 12, 5, 200), axis=3)
    np.testing.assert_allclose(np.median(np.median(per_second, axis=2), axis=0), real, rtol=0.25)


def test_wenckebach_lengthens_pr_until_a_beat_drops() -> None:
    for seed in range(20):
        timeline = draw_timeline(np.random.default_rng(seed), Case("M", 60, av="2AVB1", rate_bpm=75), 0.18)
        assert timeline.main.size < timeline.p.size
        followed = [timeline.main[(timeline.main > p) & (timeline.main < p + 0.6)][:1] - p for p in timeline.p]
        runs: list[list[float]] = [[]]
        for pr in followed:
            runs.append([]) if pr.size == 0 else runs[-1].append(float(pr[0]))
        assert any(len(run) >= 2 for run in runs)
        for run in runs:
            assert all(later > earlier for earlier, later in pairwise(run))


def test_complete_block_parts_atria_from_ventricles() -> None:
    timeline = draw_timeline(np.random.default_rng(1), Case("F", 80, av="3AVB", rate_bpm=38), 0.16)
    distances = [float(np.min(np.abs(timeline.p - beat))) for beat in timeline.main]
    assert np.ptp(distances) > 0.1
    assert np.median(np.diff(timeline.main)) > 1.4 * np.median(np.diff(timeline.p))


def test_fibrillation_is_irregular_and_sinus_rhythm_is_not(corpus: list[SyntheticEcg]) -> None:
    spread: dict[str, list[float]] = {"AFIB": [], "NORM": []}
    for ecg in corpus[:500]:
        for name, values in spread.items():
            if name in ecg.truth and not _noisy(ecg) and "SARRH" not in ecg.truth and "PVC" not in ecg.truth:
                rr = np.diff(_r_peaks(ecg.record.waveform, 100))
                values.append(float(rr.std() / rr.mean()))
    assert np.median(spread["AFIB"]) > 0.12
    assert np.median(spread["NORM"]) < 0.05


@pytest.mark.parametrize("target", [-170, -120, -60, -30, 0, 45, 90, 130, 180])
def test_the_axis_can_be_set_and_read_off_the_limb_leads(target: float) -> None:
    waves = dipole_waves([(-10, 9, 9, (0.3, 0.1, -0.2)), (0, 9, 12, (1.0, 0.6, 0.3)), (20, 9, 9, (-0.2, 0.1, 0.3))])
    turned = waves.with_axis(target)
    times = np.arange(-0.1, 0.12, 0.0005)
    area = (TO_TWELVE @ turned.sample(times)).sum(axis=1)
    angle = np.degrees(np.arctan2(2 * area[5] / np.sqrt(3), area[0]))
    assert abs((angle - target + 180) % 360 - 180) < 0.5


def test_some_people_have_several_records_and_stay_themselves(corpus: list[SyntheticEcg]) -> None:
    people: dict[str, set[tuple[str | None, float | None]]] = {}
    for ecg in corpus:
        people.setdefault(ecg.record.info.subject_id, set()).add((ecg.record.info.sex, ecg.record.info.age_years))
    counts = Counter(Counter(ecg.record.info.subject_id for ecg in corpus).values())
    assert set(counts) == {1, 2, 3}
    assert all(len(traits) == 1 for traits in people.values())


def test_reports_say_what_is_there(corpus: list[SyntheticEcg]) -> None:
    phrases = {
        "LVOLT": "low qrs voltages",
        "AFIB": "atrial fibrillation",
        "AFLT": "atrial flutter",
        "VPACE": "pac",  # pacing, paced
        "LNGQT": "prolonged qt",
        "SBRAD": "sinus bradycardia",
        "LAXIS": "left axis deviation",
        "LIMBREV": "lead reversal",
    }
    for ecg in corpus:
        text = " ".join(ecg.record.info.report_lines).lower()
        assert 1 < len(ecg.record.info.report_lines) <= 18
        for name, phrase in phrases.items():
            if name in ecg.truth and not (name == "SBRAD" and {"SARRH", "2AVB", "3AVB"} & set(ecg.truth)):
                assert phrase in text, (name, text)
        assert ("low qrs voltages" in text) == ("LVOLT" in ecg.truth)
    inverted = [ecg for ecg in corpus if "INVT" in ecg.truth]
    with_features = sum("T wave inversion in" in " ".join(e.record.info.report_lines) for e in inverted) / len(inverted)
    assert 0.35 < with_features < 0.65


@pytest.mark.parametrize(
    ("leads", "text"),
    [
        (("V2", "V3", "V4"), "V2-V4"),
        (("II", "III", "aVF"), "II, III, aVF"),
        (("I", "aVL", "V5", "V6"), "I, aVL, V5-V6"),
        (("V1", "V3"), "V1, V3"),
        ((), ""),
    ],
)
def test_lead_lists_read_as_people_write_them(leads: tuple[str, ...], text: str) -> None:
    assert lead_list(leads) == text


def test_a_written_tree_reads_back_to_the_same_samples(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", 6, seed=2)
    with (tmp_path / "tree" / "record_list.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row, ecg in zip(rows, generate(2, 6), strict=True):
        stored = wfdb.rdrecord(str(tmp_path / "tree" / row["path"]))
        assert stored.sig_name == list(MIMIC_LEADS)
        assert stored.fs == 500 and stored.sig_len == 5000
        order = [stored.sig_name.index(lead) for lead in LEADS]
        np.testing.assert_allclose(stored.p_signal.T[order], ecg.record.waveform, atol=1e-6)
        units = wfdb.rdrecord(str(tmp_path / "tree" / row["path"]), physical=False)
        assert [value % 65536 for value in units.checksum] == [value % 65536 for value in units.calc_checksum()]
        assert row["subject_id"] == ecg.record.info.subject_id


def test_the_mimic_reader_reads_a_written_tree(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", 5, seed=2)
    dataset = open_dataset(tmp_path / "tree")
    infos = list(dataset.iter_infos())
    for info, ecg in zip(infos, generate(2, 5), strict=True):
        record = dataset.read(info)
        np.testing.assert_allclose(record.waveform, ecg.record.waveform, atol=1e-6)
        assert info.report_lines == ecg.record.info.report_lines
        for name in ("heart_rate_bpm", "qrs_duration_ms", "pr_interval_ms"):
            ours, theirs = getattr(ecg.record.info.measurements, name), getattr(info.measurements, name)
            assert (ours is None) == (theirs is None)
            assert ours is None or theirs == pytest.approx(ours, abs=1.1)


def test_the_truth_table_stands_beside_the_tree(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", 4, seed=2)
    with (tmp_path / "tree" / "synthetic_truth.csv").open(encoding="utf-8") as file:
        rows = [(row["study_id"], row["finding"], tuple(row["leads"].split())) for row in csv.DictReader(file)]
    expected = [(e.record.info.study_id, name, leads) for e in generate(2, 4) for name, leads in e.truth.items()]
    assert rows == expected


def test_a_tree_is_not_written_over_something(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(UsageError, match="not an empty directory"):
        write_tree(tmp_path, 1, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(("seed", "n", "fs_hz"), [(-1, 1, 500), (1, -1, 500), (1, 1, 50)])
def test_impossible_requests_are_refused(seed: int, n: int, fs_hz: int) -> None:
    with pytest.raises(UsageError, match="must not be negative"):
        list(generate(seed, n, fs_hz=fs_hz))
