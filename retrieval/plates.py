"""The first hits of a query on one sheet of ECG paper (Figure 5 of arXiv 2505.11939)."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fgclep.evaluation.figures import drawn_figure
from fgclep.evaluation.figures_data import PlateHit, codes_of
from fgclep.record import RecordInfo
from fgclep.reports import clean_report
from retrieval.paper import (
    DISCLAIMER,
    GRID_LEFT,
    GRID_WIDTH,
    MM_PER_MV,
    MM_PER_S,
    PAGE_WIDTH,
    cut_strips,
    dataset_notice,
    draw_grid,
    draw_row,
    place_rows,
)

_HEAD, _PANEL_HEAD, _GAP, _FOOT = 14.0, 14.0, 5.0, 9.0  # mm
_SHOWN_ROWS = 3  # without the rhythm strip
_LABEL_PT, _TEXT_PT = 10.5, 11.0  # 6.4 and 6.7 points where the sheet is printed 180 mm wide
_LINE_LENGTH = 128


def draw_plate(query: str, hits: Sequence[PlateHit], out: Path) -> None:
    """Draw the first hits below each other, twelve leads each, all at one scale.

    Args:
        query: what was asked.
        hits: best first, at least one.
        out: a .png or .svg file; its folder is made if need be.

    Raises:
        UsageError: if the suffix of `out` is neither.
    """
    panels = [cut_strips(hit.record.waveform, hit.record.fs_hz)[:_SHOWN_ROWS] for hit in hits]
    placed = [place_rows(strips) for strips in panels]
    papers = [5.0 * -(-area // 5.0) for _, area in placed]
    height = _HEAD + sum(_PANEL_HEAD + paper + _GAP for paper in papers) + _FOOT
    with drawn_figure(out, height / 25.4, PAGE_WIDTH / 25.4) as figure:
        figure.set_layout_engine("none")
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0.0, PAGE_WIDTH), ylim=(0.0, height))
        axes.axis("off")
        top = height - _HEAD
        heads = []
        for strips, (baselines, _), paper in zip(panels, placed, papers, strict=True):
            heads.append(top)
            top -= _PANEL_HEAD
            draw_grid(axes, top, paper)
            for row, baseline in zip(strips, baselines, strict=True):
                draw_row(axes, row, top - baseline)
            top -= paper + _GAP
        for label in axes.texts:  # the leads' names
            label.set_fontsize(_LABEL_PT)
        axes.text(GRID_LEFT, height - 8.0, f"“{query}”", fontsize=15, fontweight="bold", parse_math=False)
        for rank, (hit, y) in enumerate(zip(hits, heads, strict=True), 1):
            title = f"{rank}   {hit.record.info.record_id}   similarity {hit.similarity:.2f}"
            axes.text(GRID_LEFT, y - 4.5, title, fontsize=_TEXT_PT, fontweight="bold", parse_math=False)
            axes.text(GRID_LEFT, y - 10.5, _described(hit.record.info), fontsize=_TEXT_PT, parse_math=False)
        notices = " · ".join(dict.fromkeys(dataset_notice(hit.record.info.dataset) for hit in hits))
        foot: dict[str, Any] = {"fontsize": 9.5, "color": "#444444", "parse_math": False}
        axes.text(GRID_LEFT, 4.0, f"{MM_PER_S:g} mm/s · {MM_PER_MV:g} mm/mV", **foot)
        axes.text(GRID_LEFT + GRID_WIDTH, 4.0, f"{DISCLAIMER} · {notices}", ha="right", **foot)


def _described(info: RecordInfo) -> str:
    """Return what the data set says of a record: its codes and its report."""
    codes = ", ".join(sorted(codes_of(info))) or "none"
    report = clean_report(info.report_lines, lower=True) or "none"
    return textwrap.shorten(f"codes: {codes} · report: {report}", _LINE_LENGTH, placeholder=" ...")
