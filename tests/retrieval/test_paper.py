"""The drawn ECG is to scale, labelled once per lead, and says what it is."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fgclep.errors import UsageError
from fgclep.leads import LEADS
from fgclep.record import EcgRecord, Measurements, RecordInfo
from retrieval.paper import DISCLAIMER, draw_ecg

POINTS_PER_MM = 72.0 / 25.4
SVG = "{http://www.w3.org/2000/svg}"


def record(waveform: NDArray[np.float32], fs_hz: float = 500.0, dataset: str = "ptb-xl", **fields: object) -> EcgRecord:
    info = RecordInfo(f"{dataset}:7", dataset, "s1", "7", "records/7", **fields)  # type: ignore[arg-type]
    return EcgRecord(info, waveform.astype(np.float32), fs_hz)


def draw_svg(tmp_path: Path, ecg: EcgRecord, title: str = "") -> ET.Element:
    draw_ecg(ecg, tmp_path / "ecg.svg", title=title)
    return ET.parse(tmp_path / "ecg.svg").getroot()


def trace(svg: ET.Element, name: str) -> NDArray[np.float64]:
    """Return the points of one drawn line, shape (n, 2), in mm on the page, y upwards."""
    path = svg.find(f".//{SVG}g[@id='{name}']/{SVG}path")
    assert path is not None, f"no line {name}"
    numbers = [float(number) for number in re.findall(r"-?\d+\.?\d*", path.attrib["d"])]
    return np.array(numbers).reshape(-1, 2) / POINTS_PER_MM * [1.0, -1.0]


def texts(svg: ET.Element) -> list[str]:
    return ["".join(node.itertext()).strip() for node in svg.iter(f"{SVG}text")]


def pulses(fs_hz: float, duration_s: float = 10.0) -> NDArray[np.float32]:
    """Return twelve leads at 0 mV with a step of 1 mV for 0.1 s from 0.5 s of every second on."""
    time = np.arange(round(duration_s * fs_hz)) / fs_hz
    return np.tile(((time % 1.0 >= 0.5) & (time % 1.0 < 0.6)).astype(np.float32), (12, 1))


@pytest.mark.parametrize("fs_hz", [100.0, 360.0, 500.0, 1000.0])
def test_one_millivolt_is_10_mm_and_one_second_is_25_mm(tmp_path: Path, fs_hz: float) -> None:
    svg = draw_svg(tmp_path, record(pulses(fs_hz), fs_hz))
    for name in ["lead-II-rhythm", *(f"lead-{lead}" for lead in LEADS)]:
        points = trace(svg, name)
        assert np.ptp(points[:, 1]) == pytest.approx(10.0, abs=0.02)
        high = points[points[:, 1] > points[:, 1].max() - 0.1, 0]
        rises = high[np.flatnonzero(np.diff(high, prepend=-100.0) > 5.0)]
        assert np.diff(rises) == pytest.approx(25.0, abs=0.1)
    assert np.ptp(trace(svg, "lead-II-rhythm")[:, 0]) == pytest.approx(250.0, abs=25.0 / fs_hz + 0.05)
    calibration = trace(svg, "calibration")
    assert np.ptp(calibration[:, 1]) == pytest.approx(10.0, abs=0.01)
    assert calibration[3, 0] - calibration[1, 0] == pytest.approx(5.0, abs=0.01)
    assert np.diff(_vertical_lines(svg, "grid-1mm")) == pytest.approx(1.0, abs=0.01)
    assert np.diff(_vertical_lines(svg, "grid-5mm")) == pytest.approx(5.0, abs=0.01)


def _vertical_lines(svg: ET.Element, name: str) -> list[float]:
    lines = []
    for path in svg.findall(f".//{SVG}g[@id='{name}']/{SVG}path"):
        x0, y0, x1, y1 = (float(n) / POINTS_PER_MM for n in re.findall(r"-?\d+\.?\d*", path.attrib["d"]))
        if x0 == x1 and y0 != y1:
            lines.append(x0)
    return lines


def test_each_lead_is_drawn_from_its_own_row_of_the_waveform(tmp_path: Path) -> None:
    waveform = np.zeros((12, 5000))
    waveform[:, ::2] = (np.arange(12)[:, None] + 1) * 0.1  # lead n swings by n * 0.1 mV
    svg = draw_svg(tmp_path, record(waveform))
    heights = {lead: np.ptp(trace(svg, f"lead-{lead}")[:, 1]) for lead in LEADS}
    assert list(heights.values()) == pytest.approx([number + 1.0 for number in range(12)], abs=0.02)


def test_columns_follow_each_other_in_time_under_the_same_rhythm_strip(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0.0, 1.0, 5000), (12, 1))
    svg = draw_svg(tmp_path, record(ramp))
    first, last, rhythm = (trace(svg, f"lead-{name}") for name in ("I", "V6", "II-rhythm"))
    assert last[-1, 1] - last[0, 1] == pytest.approx(2.5, abs=0.05)
    assert first[0, 0] == pytest.approx(rhythm[0, 0], abs=0.05)
    assert last[-1, 0] == pytest.approx(rhythm[-1, 0], abs=0.05)


def test_each_lead_is_labelled_once_and_the_page_says_what_it_is(tmp_path: Path) -> None:
    ecg = record(
        pulses(500.0),
        age_years=63.4,
        sex="F",
        report_lines=("Sinus rhythm", "Cost $5 & <b>"),
        measurements=Measurements(heart_rate_bpm=61.6, qrs_duration_ms=94.0, qrs_axis_deg=-30.0),
    )
    words = texts(draw_svg(tmp_path, ecg, title="#1 low voltage"))
    assert {lead: words.count(lead) for lead in LEADS} == dict.fromkeys(LEADS, 1)
    page = "\n".join(words)
    for part in ("#1 low voltage", "ptb-xl:7", "63 years, female", "rate 62/min", "QRS 94 ms", "axis -30°",
                 "Sinus rhythm. Cost $5 & <b>.", "25 mm/s", "10 mm/mV", DISCLAIMER, "PTB-XL, CC BY 4.0"):  # fmt: skip
        assert part in re.sub(r" +", " ", page)
    assert "synthetic" not in page and "PR " not in page


def test_a_synthetic_record_is_marked_across_the_paper(tmp_path: Path) -> None:
    assert "synthetic" in texts(draw_svg(tmp_path, record(pulses(100.0), 100.0, dataset="synthetic")))


def test_tall_complexes_do_not_touch_the_neighbouring_rows(tmp_path: Path) -> None:
    waveform = np.zeros((12, 5000))
    waveform[:, 600::800] = 3.0
    waveform[:, 640::800] = -3.5
    svg = draw_svg(tmp_path, record(waveform))
    for upper, lower in (("I", "II"), ("II", "III"), ("III", "II-rhythm"), ("V4", "V5"), ("V6", "II-rhythm")):
        assert trace(svg, f"lead-{upper}")[:, 1].min() > trace(svg, f"lead-{lower}")[:, 1].max()
    page_height = float(svg.attrib["height"].removesuffix("pt")) / POINTS_PER_MM
    assert page_height > 210.0
    assert -trace(svg, "lead-II-rhythm")[:, 1].min() < page_height


@pytest.mark.parametrize(
    ("duration_s", "says"), [(4.0, "4.0 s recorded"), (30.0, "first 10 s of 30.0 s"), (1.0, "1.0 s")]
)
def test_other_lengths_keep_the_scale(tmp_path: Path, duration_s: float, says: str) -> None:
    svg = draw_svg(tmp_path, record(pulses(250.0, duration_s), 250.0))
    assert any(says in line for line in texts(svg))
    shown = min(duration_s, 10.0) * 25.0
    assert np.ptp(trace(svg, "lead-II-rhythm")[:, 0]) == pytest.approx(shown, abs=0.2)
    assert np.ptp(trace(svg, "lead-V6")[:, 0]) == pytest.approx(min(duration_s, 2.5) * 25.0, abs=0.2)
    assert np.ptp(trace(svg, "lead-V6")[:, 1]) == pytest.approx(10.0, abs=0.02)


def test_equal_records_give_equal_files_in_every_format(tmp_path: Path) -> None:
    ecg = record(pulses(100.0), 100.0)
    for suffix, magic in ((".svg", b"<?xml"), (".png", b"\x89PNG"), (".pdf", b"%PDF")):
        files = [tmp_path / f"{n}{suffix}" for n in "ab"]
        for file in files:
            draw_ecg(ecg, file)
        assert files[0].read_bytes() == files[1].read_bytes()
        assert files[0].read_bytes().startswith(magic)


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.png, \.svg, \.pdf"):
        draw_ecg(record(pulses(100.0), 100.0), tmp_path / "ecg.bmp")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("peak_mv", "cut"), [(4.4, False), (6.0, True)])
def test_a_trace_that_is_cut_off_is_told(tmp_path: Path, peak_mv: float, cut: bool) -> None:
    waveform = np.zeros((12, 5000))
    waveform[7, 1000] = peak_mv
    assert any("cut off at ±4.5 mV" in line for line in texts(draw_svg(tmp_path, record(waveform)))) == cut
