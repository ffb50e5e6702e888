"""Each data set is recognised, read row by row, and wrong tables have one clear error."""

import csv
import errno
import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgclep.datasets import mimic_iv_ecg, open_dataset, open_for_rate
from fgclep.datasets.ptbxl import parse_scp_codes
from fgclep.datasets.scan import scan
from fgclep.datasets.snomed import TAG_OF_CODE, tag_of_code
from fgclep.errors import DataError, NotSetUpError, UsageError
from fgclep.leads import LEADS
from fgclep.record import RecordReject

MIMIC_LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
RECORD_LIST = "subject_id,study_id,file_name,ecg_time,path\n"
KNOWN_RECORD = "10000032,40689238,40689238,2180-07-23 08:44:00,files/p1000/p10000032/s40689238/40689238\n"
MEASUREMENTS = (
    "subject_id,study_id,cart_id,ecg_time,"
    + ",".join(f"report_{i}" for i in range(18))
    + ",bandwidth,filtering,rr_interval,p_onset,p_end,qrs_onset,qrs_end,t_end,p_axis,qrs_axis,t_axis\n"
)
KNOWN_MEASUREMENT = (
    "10000032,40689238,6848296,2180-07-23 08:44:00,Sinus rhythm,Possible right atrial abnormality,,Borderline ECG,"
    ",,,,,,,,,,,,,,0.005-150 Hz,60 Hz notch Baseline filter,659,40,128,170,258,518,81,77,79\n"
)


def write_record(stem: Path, names=LEADS, fs=500, n_samples=2500, seed=0, suffix=".dat", comments=""):
    """A plain record in 5 uV units whose limb leads obey Einthoven's identities; returns it as int16 by lead name."""
    rng = np.random.default_rng(seed)
    chest = rng.integers(-400, 400, (6, n_samples))
    i, ii = 2 * rng.integers(-100, 100, (2, n_samples))
    limb = [i, ii, ii - i, -(i + ii) // 2, i - ii // 2, ii - i // 2]
    signals = dict(zip(LEADS, [*limb, *chest], strict=True))
    stem.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{stem.name} {len(names)} {fs} {n_samples} 08:44:00 23/07/2180"]
    lines += [f"{stem.name}{suffix} 16 200.0(0)/mV 16 0 0 0 0 {name}" for name in names]
    stem.with_suffix(".hea").write_text("\n".join(lines) + f"\n{comments}")
    data = np.stack([signals[name] for name in names], axis=1).astype("<i2").tobytes()
    stem.with_suffix(suffix).write_bytes(data)
    return signals


@pytest.fixture
def mimic(tmp_path):
    """Three studies: the one known real row, one whose files are missing, one without measurements."""
    (tmp_path / "record_list.csv").write_text(
        RECORD_LIST
        + KNOWN_RECORD
        + "10000032,44458630,44458630,2180-07-23 09:54:00,files/p1000/p10000032/s44458630/44458630\n"
        + "10000117,40000017,40000017,2181-03-04 17:14:00,files/p1000/p10000117/s40000017/40000017\n"
    )
    other = KNOWN_MEASUREMENT.replace("40689238", "44458630").replace("Sinus rhythm", '"Sinus, ""slow""\nrhythm"')
    (tmp_path / "machine_measurements.csv").write_text(MEASUREMENTS + other + KNOWN_MEASUREMENT)
    write_record(tmp_path / "files/p1000/p10000032/s40689238/40689238", MIMIC_LEADS, seed=1)
    write_record(tmp_path / "files/p1000/p10000117/s40000017/40000017", MIMIC_LEADS, seed=2)
    return tmp_path


def test_mimic_known_row(mimic):
    info = next(open_dataset(mimic).iter_infos())
    assert (info.record_id, info.dataset) == ("mimic-iv-ecg:40689238", "mimic-iv-ecg")
    assert (info.subject_id, info.study_id) == ("10000032", "40689238")
    assert info.path == "files/p1000/p10000032/s40689238/40689238"
    assert info.ecg_time == "2180-07-23T08:44:00"
    assert info.report_lines == ("Sinus rhythm", "Possible right atrial abnormality", "Borderline ECG")
    assert info.extra == {"cart_id": "6848296", "bandwidth": "0.005-150 Hz", "filtering": "60 Hz notch Baseline filter"}
    m = info.measurements
    assert (m.heart_rate_bpm, m.rr_interval_ms) == (91.0, 659)
    assert (m.pr_interval_ms, m.qrs_duration_ms, m.qt_interval_ms, m.qtc_ms) == (130, 88, 348, 428.7)
    assert (m.p_axis_deg, m.qrs_axis_deg, m.t_axis_deg) == (81, 77, 79)


def test_mimic_counts_what_is_missing_and_reads_the_rest(mimic):
    dataset = open_dataset(mimic)
    assert (dataset.kind, dataset.rates, dataset.fs_hz) == ("mimic-iv-ecg", (500,), 500)
    assert (dataset.listed, dataset.missing) == (3, ("mimic-iv-ecg:44458630",))
    infos = list(dataset.iter_infos())
    assert [info.study_id for info in infos] == ["40689238", "40000017"]
    assert infos[1].report_lines == ()
    assert infos[1].measurements.heart_rate_bpm is None


def test_mimic_signals_come_in_canonical_order(mimic):
    signals = write_record(mimic / "files/p1000/p10000032/s40689238/40689238", MIMIC_LEADS, seed=1)
    dataset = open_dataset(mimic)
    record = dataset.read(next(dataset.iter_infos()))
    np.testing.assert_allclose(record.waveform, np.stack([signals[lead] for lead in LEADS]) / 200, atol=1e-6)
    assert (record.flags, record.fs_hz) == ((), 500)


def test_mimic_rows_are_found_whatever_their_order_and_quoting(mimic):
    write_record(mimic / "files/p1000/p10000032/s44458630/44458630", MIMIC_LEADS)
    reports = {info.study_id: info.report_lines[:1] for info in open_dataset(mimic).iter_infos()}
    assert reports == {"40689238": ("Sinus rhythm",), "44458630": ('Sinus, "slow"\nrhythm',), "40000017": ()}


STUDIES = st.lists(st.integers(1, 12), unique=True)


@given(listed=STUDIES.filter(bool), in_table=st.lists(st.integers(0, 12)))
@settings(deadline=None)
def test_mimic_tables_of_any_order_are_joined_by_study(listed, in_table):
    """Studies without a row have no report, of several rows the first counts, and 0 stands for a blank line."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "record_list.csv").write_text(RECORD_LIST + "".join(f"1,{s},{s},,files/{s}\n" for s in listed))
        (root / "machine_measurements.csv").write_text(
            MEASUREMENTS
            + "".join(
                KNOWN_MEASUREMENT.replace("40689238", str(s)).replace("Sinus", f'"{row}\n"') if s else "\n"
                for row, s in enumerate(in_table)
            )
        )
        for study in listed:
            write_record(root / f"files/{study}", n_samples=1)
        infos = [(info.study_id, info.report_lines[:1]) for info in open_dataset(root).iter_infos()]
    assert infos == [(str(s), (f"{in_table.index(s)}\n rhythm",) if s in in_table else ()) for s in listed]


VALUES = st.sampled_from(["", "29999", "0", "-12", "32767", "nan", "abc", "40", "128", "170.0", "258", "518", "659"])
FIELDS = ("rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end", "p_axis", "qrs_axis", "t_axis")


@given(st.fixed_dictionaries(dict.fromkeys(FIELDS, VALUES)))
def test_sentinels_and_nonsense_never_become_measurements(row):
    known = {name: float(value) for name, value in row.items() if value in ("40", "128", "170.0", "258", "518", "659")}
    m = mimic_iv_ecg.derive_measurements(row)

    def span(end, start):
        return known[end] - known[start] if {end, start} <= known.keys() and known[end] > known[start] else None

    assert m.rr_interval_ms == known.get("rr_interval")
    assert m.heart_rate_bpm == (round(60000 / known["rr_interval"], 1) if "rr_interval" in known else None)
    assert m.pr_interval_ms == span("qrs_onset", "p_onset")
    assert m.qrs_duration_ms == span("qrs_end", "qrs_onset")
    assert m.qt_interval_ms == span("t_end", "qrs_onset")
    if m.qt_interval_ms is None or m.rr_interval_ms is None:
        assert m.qtc_ms is None
    else:
        assert m.qtc_ms == pytest.approx(m.qt_interval_ms / (m.rr_interval_ms / 1000) ** 0.5, abs=0.06)
    for axis in (m.p_axis_deg, m.qrs_axis_deg, m.t_axis_deg):
        assert axis is None or -360 <= axis <= 360


def test_mimic_axis_of_zero_and_below_is_a_measurement():
    m = mimic_iv_ecg.derive_measurements({"p_axis": "0", "qrs_axis": "-61", "t_axis": "29999"})
    assert (m.p_axis_deg, m.qrs_axis_deg, m.t_axis_deg) == (0, -61, None)


def write_ptbxl(root: Path, rows, folders=("records100", "records500")):
    columns = (
        "ecg_id,patient_id,age,sex,height,device,recording_date,report,scp_codes,strat_fold,filename_lr,filename_hr"
    )
    with (root / "ptbxl_database.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns.split(","))
        writer.writeheader()
        for number, row in enumerate(rows, start=1):
            name = f"00000/{number:05}"
            base = {"ecg_id": number, "patient_id": "7.0", "age": "56.0", "sex": "1", "scp_codes": "{}"}
            files = {"filename_lr": f"records100/{name}_lr", "filename_hr": f"records500/{name}_hr"}
            writer.writerow(base | {"recording_date": "1984-11-09 09:17:34", "strat_fold": "3"} | files | row)
            for folder in folders:
                short, fs = {"records100": ("lr", 100), "records500": ("hr", 500)}[folder]
                stem = root / folder / f"{name}_{short}"
                write_record(stem, fs=fs, n_samples=10 * fs)
                header = stem.with_suffix(".hea")
                header.write_text(header.read_text().replace("aV", "AV"))


def test_ptbxl_fields(tmp_path):
    codes = "{'NORM': 100.0, 'NST_': 0.0, 'PRC(S)': 50.0, 'LAO/LAE': 15.0, 'RAO/RAE': 0.0, '1AVB': 100.0}"
    write_ptbxl(
        tmp_path,
        [
            {"report": " sinusrhythmus  ", "scp_codes": codes, "sex": "1", "device": "CS-12   E"},
            {"age": "300", "sex": "0", "patient_id": "15709.0", "strat_fold": "10"},
            {"age": "", "sex": "", "patient_id": "x7"},
        ],
    )
    first, old, unknown = open_dataset(tmp_path).iter_infos()
    assert (first.record_id, first.subject_id, first.study_id, first.fold) == ("ptb-xl:1", "7", "1", 3)
    assert first.tags == ("NORM", "NST", "PRC", "LAO", "RAO", "1AVB")
    assert (first.age_years, first.sex, first.report_lines) == (56.0, "F", ("sinusrhythmus",))
    assert first.ecg_time == "1984-11-09T09:17:34"
    assert first.extra == {"scp_codes": codes, "device": "CS-12   E"}
    assert (old.age_years, old.sex, old.extra["age"], old.subject_id, old.fold) == (90.0, "M", "over 89", "15709", 10)
    assert (unknown.age_years, unknown.sex, unknown.subject_id) == (None, None, "x7")


def test_ptbxl_offers_a_choice_of_rates(tmp_path):
    write_ptbxl(tmp_path, [{}, {}])
    assert open_dataset(tmp_path).rates == (100, 500)
    for fs_hz, expected in [(None, 500), (100, 100), (500, 500)]:
        dataset = open_dataset(tmp_path, fs_hz=fs_hz)
        assert dataset.fs_hz == expected
        assert {dataset.read(info).fs_hz for info in dataset.iter_infos()} == {expected}
    with pytest.raises(UsageError, match="100 Hz and 500 Hz; 250 Hz was asked for"):
        open_dataset(tmp_path, fs_hz=250)


@pytest.mark.parametrize(("wanted", "taken"), [(50, 100), (100, 100), (250, 500), (500, 500), (1000, 500)])
def test_the_rate_that_suits_is_the_lowest_that_loses_nothing(tmp_path, wanted, taken):
    write_ptbxl(tmp_path, [{}])
    assert open_for_rate(tmp_path, wanted).fs_hz == taken


def test_a_tree_whose_records_have_their_own_rates_is_opened_as_it_is(tmp_path):
    write_record(tmp_path / "1")
    assert open_for_rate(tmp_path, 100).fs_hz is None


def test_ptbxl_of_one_rate_and_in_part(tmp_path):
    write_ptbxl(tmp_path, [{}, {}, {}], folders=("records100",))
    (tmp_path / "records100/00000/00002_lr.hea").unlink()
    dataset = open_dataset(tmp_path)
    assert (dataset.rates, dataset.fs_hz, dataset.listed, dataset.missing) == ((100,), 100, 3, ("ptb-xl:2",))
    assert [info.study_id for info in dataset.iter_infos()] == ["1", "3"]


def test_real_ptbxl_sample(shared_data):
    for fs_hz in (100, 500):
        dataset = open_dataset(shared_data / "ptbxl", fs_hz=fs_hz)
        report = scan(dataset)
        assert (report.kind, report.listed, report.usable, report.rejects) == ("ptb-xl", 21837, 60, {})
        assert report.missing == 21777
        assert report.rates == {fs_hz: 60}


def test_real_challenge_records(shared_data):
    root = shared_data / "challenge2021"
    with (root / "labels.csv").open() as file:
        labels = {row["record"]: row for row in csv.DictReader(file)}
    expected_kinds = {"cpsc2018": "cpsc2018", "chapman_shaoxing_ningbo": "csn"}
    seen = 0
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        dataset = open_dataset(folder)
        assert dataset.kind == expected_kinds.get(folder.name, "wfdb")
        for info in dataset.iter_infos():
            row = labels[info.study_id]
            assert info.record_id == f"{dataset.kind}:{info.study_id}"
            if folder.name != "ptb":  # the table is of an earlier release, which labelled these three otherwise
                assert set(row["dx"].split("|")) <= set(info.extra["snomed"].split(","))
                assert {tag_of_code(code) for code in row["dx"].split("|")} <= set(info.tags)
            record = dataset.read(info)
            assert (record.fs_hz, record.waveform.shape[1]) == (float(row["fs_hz"]), int(row["samples"]))
            seen += 1
    assert seen == len(labels) == 38


CHALLENGE = "#Age: 74\n#Sex: Male\n#Dx: 59118001, 164890007,999,AFIB,59118001\n#Rx: Unknown\n"


def test_challenge_header_becomes_age_sex_and_tags(tmp_path):
    write_record(tmp_path / "g1/A0001", suffix=".mat", comments=CHALLENGE)
    write_record(tmp_path / "g1/A0002", suffix=".mat", comments="# Age: NaN\n# Sex: Female\n# Dx: Unknown\n")
    dataset = open_dataset(tmp_path)
    known, unknown = dataset.iter_infos()
    assert (dataset.kind, dataset.rates, dataset.fs_hz) == ("cpsc2018", (), None)
    assert (known.record_id, known.path, known.age_years, known.sex) == ("cpsc2018:A0001", "g1/A0001", 74, "M")
    assert known.tags == ("RBBB", "AFLT", "999", "AFIB")
    assert (unknown.age_years, unknown.sex, unknown.tags, unknown.extra) == (None, "F", (), {})


@pytest.mark.parametrize(
    ("names", "kind", "ids"),
    [
        (["a/JS00001", "b/JS45551"], "csn", ["csn:JS00001", "csn:JS45551"]),
        (["a/A0001", "a/E00001"], "wfdb", ["wfdb:a/A0001", "wfdb:a/E00001"]),
        (["a/A0001", "b/A0001"], "wfdb", ["wfdb:a/A0001", "wfdb:b/A0001"]),
        (["JS0001"], "wfdb", ["wfdb:JS0001"]),
        (["b/2", "a/10", "a/9"], "wfdb", ["wfdb:a/10", "wfdb:a/9", "wfdb:b/2"]),
    ],
)
def test_kind_is_told_by_record_names(tmp_path, names, kind, ids):
    for name in names:
        write_record(tmp_path / name)
    dataset = open_dataset(tmp_path)
    assert dataset.kind == kind
    assert [info.record_id for info in dataset.iter_infos()] == ids
    assert dataset.listed == len(ids)


@pytest.mark.parametrize("name", [b"R\xfcckstrom.hea", b"R\xfcck/1.hea"])
def test_a_name_that_is_not_utf_8_is_told(tmp_path, name):
    write_record(tmp_path / "1")
    try:
        path = tmp_path / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    except OSError as error:
        if error.errno != errno.EILSEQ:
            raise
        pytest.skip("this file system refuses names that are not UTF-8, as those of macOS do")
    with pytest.raises(DataError, match=r"R\\udcfcck.*\.hea' is not UTF-8") as refused:
        open_dataset(tmp_path)
    assert "Rename" in refused.value.hint
    str(refused.value).encode()


def test_segments_are_no_records_of_their_own(tmp_path):
    write_record(tmp_path / "x/seg1")
    write_record(tmp_path / "x/seg2", seed=1)
    write_record(tmp_path / "y/seg1", comments="# <subject_id>: 12177274\n")
    (tmp_path / "x/whole.hea").write_text("whole/2 12 500 5000\nseg1 2500\nseg2 2500\n")
    dataset = open_dataset(tmp_path)
    whole, other = dataset.iter_infos()
    assert (whole.record_id, other.record_id, other.subject_id) == ("wfdb:x/whole", "wfdb:y/seg1", "12177274")
    assert dataset.read(whole).waveform.shape == (12, 5000)


def test_snomed_tags_are_codes_of_digits_and_known_acronyms():
    assert all(code.isdigit() for code in TAG_OF_CODE)
    assert TAG_OF_CODE["164889003"] == "AFIB"
    assert TAG_OF_CODE["164890007"] == "AFLT"
    assert "AF" not in TAG_OF_CODE.values()  # fibrillation here, flutter there
    assert tag_of_code(" 12345 ") == "12345"


@pytest.mark.parametrize("kind", ["mimic", "ptb-xl", "wfdb"])
def test_datasets_travel_to_workers_as_a_few_bytes(request, tmp_path, kind):
    if kind == "mimic":
        root = request.getfixturevalue("mimic")
    elif kind == "ptb-xl":
        root = tmp_path
        write_ptbxl(root, [{}] * 30, folders=("records100",))
    else:
        root = tmp_path
        for number in range(30):
            write_record(root / f"{number}", n_samples=1300)
    dataset = open_dataset(root)
    infos = list(dataset.iter_infos())
    assert dataset.listed >= len(infos)
    packed = pickle.dumps(dataset.read)
    assert len(packed) < 400
    twin = pickle.loads(packed)
    np.testing.assert_array_equal(twin(infos[0]).waveform, dataset.read(infos[0]).waveform)
    assert list(pickle.loads(pickle.dumps(dataset)).iter_infos()) == infos


def test_the_mimic_table_is_streamed(tmp_path):
    """Memory for 5,000 rows of 2 kB stays far below the table itself."""
    import tracemalloc

    first, rows = 40_000_000, 5_000
    measurements = tmp_path / "machine_measurements.csv"
    with (tmp_path / "record_list.csv").open("w") as records, measurements.open("w") as table:
        records.write(RECORD_LIST)
        table.write(MEASUREMENTS)
        for study in range(first, first + rows):
            records.write(f"1,{study},{study},2180-07-23 08:44:00,files/{study}\n")
            table.write(KNOWN_MEASUREMENT.replace("40689238", str(study)).replace("Sinus", "Sinus" * 400))
    write_record(tmp_path / f"files/{first + rows - 1}")
    size = measurements.stat().st_size
    tracemalloc.start()
    (info,) = open_dataset(tmp_path).iter_infos()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert info.report_lines[0].startswith("SinusSinus")
    assert size > 10_000_000
    assert peak < 1_000_000


def test_scan_counts_add_up_and_reasons_have_examples(mimic):
    stem = "files/p1000/p10000117/s40000017/40000017"
    (mimic / f"{stem}.dat").write_bytes(b"\0" * 99)
    report = scan(open_dataset(mimic))
    assert (report.listed, report.missing, report.usable, report.subjects) == (3, 1, 1, 1)
    assert list(report.rejects) == ["truncated"]
    assert report.rejects["truncated"].count == 1
    assert report.rejects["truncated"].examples[0][0] == "mimic-iv-ecg:40000017"
    limited = scan(open_dataset(mimic), limit=1)
    assert (limited.beyond_limit, limited.usable, limited.rejects) == (1, 1, {})


def test_header_without_its_samples_is_rejected(mimic):
    (mimic / "files/p1000/p10000032/s40689238/40689238.dat").unlink()
    dataset = open_dataset(mimic)
    with pytest.raises(RecordReject, match=r"40689238\.dat does not exist") as caught:
        dataset.read(next(dataset.iter_infos()))
    assert caught.value.reason == "missing-file"


def test_synthetic_tree_is_read_by_the_mimic_reader(synthetic_tree):
    report = scan(open_dataset(synthetic_tree))
    assert (report.kind, report.usable, report.rejects) == ("mimic-iv-ecg", 40, {})
    assert report.with_report == 40


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def use(root: Path) -> None:
    dataset = open_dataset(root)
    assert dataset.listed
    list(dataset.iter_infos())


@pytest.mark.parametrize(
    ("table", "old", "new", "sentence"),
    [
        ("record_list.csv", "study_id,", "study,", r"record_list\.csv lacks the column study_id; it has subject_id"),
        ("record_list.csv", RECORD_LIST, "", "lacks the column subject_id, study_id"),
        ("record_list.csv", "10000117,", "10000117,9,9,", r"record_list\.csv, line 4: 7 fields; expected 5"),
        ("machine_measurements.csv", "rr_interval", "rr", r"machine_measurements\.csv lacks the column rr_interval"),
        ("machine_measurements.csv", "\n10000032,40689238", "\n10000032", r"row 2: expected 33 fields.*b'10000032,68"),
        (
            "machine_measurements.csv",
            "10000032,40689238",
            "10000032,x",
            r"row 2: .*with a study_id, not b'10000032,x",
        ),
        (
            "machine_measurements.csv",
            "81,77,79\n10000032,40689238",
            "81\n10000032,40689238",
            "study 44458630: 31 fields",
        ),
    ],
)
def test_damaged_mimic_tables(mimic, table, old, new, sentence):
    write_record(mimic / "files/p1000/p10000032/s44458630/44458630", MIMIC_LEADS)
    edit(mimic / table, old, new)
    with pytest.raises(DataError, match=sentence):
        use(mimic)


def test_blank_lines_in_a_table_are_no_rows(mimic):
    edit(mimic / "record_list.csv", RECORD_LIST, RECORD_LIST + "\n")
    with (mimic / "record_list.csv").open("a") as file:
        file.write("\n\n")
    assert open_dataset(mimic).listed == 3
    assert [info.study_id for info in open_dataset(mimic).iter_infos()] == ["40689238", "40000017"]


def test_empty_and_binary_tables(mimic):
    (mimic / "record_list.csv").write_bytes(b"")
    with pytest.raises(DataError, match="it is empty"):
        use(mimic)
    (mimic / "record_list.csv").write_bytes(RECORD_LIST.encode() + b"\xff\xfe\x00,\n")
    with pytest.raises(DataError, match="not a UTF-8 csv file"):
        use(mimic)


def test_mimic_without_measurements_names_both_ways_out(mimic):
    (mimic / "machine_measurements.csv").unlink()
    with pytest.raises(DataError, match=r"no machine_measurements\.csv") as caught:
        open_dataset(mimic)
    assert "files" in caught.value.hint
    assert open_dataset(mimic / "files").kind == "wfdb"


def test_damaged_ptbxl_tables(tmp_path):
    write_ptbxl(tmp_path, [{"scp_codes": "NORM"}])
    with pytest.raises(DataError, match=r"ptb-xl:1: scp_codes is 'NORM'; expected"):
        use(tmp_path)
    edit(tmp_path / "ptbxl_database.csv", "strat_fold", "fold")
    with pytest.raises(DataError, match="lacks the column strat_fold"):
        use(tmp_path)


def test_ptbxl_without_records(tmp_path):
    write_ptbxl(tmp_path, [{}], folders=())
    with pytest.raises(DataError, match="neither records100 nor records500"):
        open_dataset(tmp_path)


def test_places_that_are_no_data_set(tmp_path):
    with pytest.raises(NotSetUpError, match="absent does not exist"):
        open_dataset(tmp_path / "absent")
    with pytest.raises(DataError, match=r"is empty.*no data set"):
        open_dataset(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"holds notes\.txt; that is no data set") as caught:
        open_dataset(tmp_path)
    assert "PTB-XL" in caught.value.hint
    with pytest.raises(DataError, match="is a file; expected the folder"):
        open_dataset(tmp_path / "notes.txt")
    (tmp_path / "inner").mkdir()
    write_ptbxl(tmp_path / "inner", [{}])
    with pytest.raises(DataError, match=r"is not a data set itself, but .*inner is"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("text", ["", "NORM", "['NORM']", "{'NORM': 'x'}", "{1", "__import__('os')"])
def test_scp_codes_that_are_none(text):
    with pytest.raises(DataError, match="scp_codes is"):
        parse_scp_codes(text, "ptb-xl:1")
