"""A plate shows its hits in order, to one scale, with what is known of each."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from fgclep.errors import UsageError
from fgclep.evaluation.figures_data import PlateHit
from fgclep.leads import LEADS
from fgclep.record import EcgRecord, RecordInfo
from retrieval.plates import draw_plate

POINTS_PER_MM = 72.0 / 25.4
SVG = "{http://www.w3.org/2000/svg}"


def hit(number: int, peak_mv: float) -> PlateHit:
    time = np.arange(1000) / 100
    pulses = np.where(time % 1.0 < 0.1, peak_mv, 0.0).astype(np.float32)
    tags, report = ("AFIB", "STD_"), ("Atrial fibrillation $1",)
    info = RecordInfo(f"ptb-xl:{number}", "ptb-xl", f"s{number}", str(number), "x", tags=tags, report_lines=report)
    return PlateHit(EcgRecord(info, np.tile(pulses, (12, 1)), 100.0), 1.0 - number / 10)


def test_every_hit_has_all_leads_at_10_mm_per_mv_and_25_mm_per_s(tmp_path: Path) -> None:
    draw_plate("wide QRS", [hit(1, 1.0), hit(2, 2.0), hit(3, 0.5)], tmp_path / "plate.svg")
    root = ET.parse(tmp_path / "plate.svg").getroot()
    for lead in LEADS:
        paths = root.findall(f".//{SVG}g[@id='lead-{lead}']/{SVG}path")
        heights, widths, tops = [], [], []
        for path in paths:
            points = np.array(re.findall(r"-?\d+\.?\d*", path.attrib["d"]), float).reshape(-1, 2) / POINTS_PER_MM
            heights.append(np.ptp(points[:, 1]))
            widths.append(np.ptp(points[:, 0]))
            tops.append(points[:, 1].min())
        assert heights == pytest.approx([10.0, 20.0, 5.0], abs=0.05), "hits are in order and to scale"
        assert widths == pytest.approx([62.5] * 3, abs=0.3)
        assert tops == sorted(tops), "and below each other"
    assert not root.findall(f".//{SVG}g[@id='lead-II-rhythm']")


def test_a_plate_says_what_was_asked_and_what_is_known(tmp_path: Path) -> None:
    draw_plate("T < 0 & $x$", [hit(1, 1.0), hit(2, 1.0)], tmp_path / "plate.svg")
    root = ET.parse(tmp_path / "plate.svg").getroot()
    told = ["".join(node.itertext()).strip() for node in root.iter(f"{SVG}text")]
    assert "“T < 0 & $x$”" in told
    assert "1   ptb-xl:1   similarity 0.90" in told and "2   ptb-xl:2   similarity 0.80" in told
    assert told.count("codes: AFIB, STD · report: atrial fibrillation $1.") == 2
    assert any("not for diagnosis · PTB-XL, CC BY 4.0" in text for text in told)
    draw_plate("query", [hit(1, 1.0)], tmp_path / "plate.png")
    assert (tmp_path / "plate.png").read_bytes().startswith(b"\x89PNG")


def test_a_plate_is_no_other_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"plate\.jpg"):
        draw_plate("query", [hit(1, 1.0)], tmp_path / "plate.jpg")
