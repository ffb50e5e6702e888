"""Draw an ECG on ECG paper, to scale: 25 mm/s, 10 mm/mV, 3x4 leads and a rhythm strip.

The page is laid out in millimetres (one axes whose data unit is 1 mm), so printing at 100 % gives true scale.
The width is A4 landscape; the height is A4 too and grows only where tall complexes or a long report need room,
so that no trace runs into its neighbour. Each lead is shown around its own median, because a constant offset
carries no meaning on an AC-coupled recorder.
"""

import itertools
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import UsageError
from fgclep.leads import LEADS
from fgclep.record import EcgRecord, RecordInfo, Waveform

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MM_PER_S = 25.0
MM_PER_MV = 10.0
SHOWN_S = 10.0
COLUMN_S = 2.5
PICTURE_SUFFIXES = (".png", ".svg", ".pdf")
DISCLAIMER = "for education and research, not for diagnosis"

_DATASET_NOTICES = {
    "ptb-xl": "PTB-XL, CC BY 4.0",
    "mimic-iv-ecg": "MIMIC-IV-ECG, ODbL 1.0",
    "cpsc2018": "CPSC2018, CC BY 4.0",
    "csn": "Chapman-Shaoxing-Ningbo, CC BY 4.0",
    "synthetic": "synthetic ECG made by fgclep",
    "wfdb": "WFDB folder, licence of its owner",
}

_GRID = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
_RHYTHM_LEAD = "II"

PAGE_WIDTH, _PAGE_HEIGHT = 297.0, 210.0
GRID_LEFT, GRID_WIDTH = 13.5, 270.0
_PULSE_OFFSET, _TRACE_OFFSET = 3.0, 15.0
_FOOTER_HEIGHT = 14.0
_TOP_MARGIN = 9.0
_LINE_HEIGHT = 5.0
_ROW_PITCH = 35.0
_TRACE_GAP = 2.0
_LABEL_HEIGHT = 3.5
_CLIP_MM = 45.0
_REPORT_COLUMNS, _REPORT_LINES = 118, 8

_PAPER = "#fffafa"
_FINE, _BOLD = "#f8d3d3", "#eda3a3"
_INK = "#16161d"


@dataclass(frozen=True)
class _Strip:
    """One stretch of one lead, in mm from the left end and the baseline of its row."""

    lead: str
    label: str
    x_mm: NDArray[np.float64]
    y_mm: NDArray[np.float64]

    @property
    def label_y(self) -> float:
        """Return how high above the baseline the label stands clear of the trace under it, in mm."""
        label_width = 2.0 + 2.0 * len(self.label)
        start = self.y_mm[(self.x_mm - self.x_mm[0]) < label_width]
        return max(float(start.max()) + 1.0, 5.0)

    @property
    def top(self) -> float:
        """Return the highest point of trace and label above the baseline, in mm."""
        return max(float(self.y_mm.max()), self.label_y + _LABEL_HEIGHT)

    @property
    def bottom(self) -> float:
        """Return the lowest point below the baseline, in mm (negative or 0)."""
        return min(float(self.y_mm.min()), 0.0)


def draw_ecg(record: EcgRecord, out: Path, *, title: str = "") -> None:
    """Draw one ECG on paper at 25 mm/s and 10 mm/mV and write it.

    Shows the first 10 s. A record shorter than 10 s keeps its scale and leaves paper empty; columns that would
    start after its end show its last 2.5 s instead.

    Args:
        record: any sampling rate and length.
        out: a .png, .svg or .pdf file; its folder must exist.
        title: one line above the record's own header, e.g. the query and the score.

    Raises:
        UsageError: if the suffix of `out` is none of these.
    """
    check_picture_name(out)
    from matplotlib import rc_context

    # Text stays text in SVG and PDF; the fixed salt and missing date make equal inputs equal files.
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "fgclep",
        "pdf.fonttype": 42,
        "font.family": "DejaVu Sans",
    }
    no_date = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}[out.suffix.lower()]
    with rc_context(settings):
        figure = _draw_page(record, title)
        figure.savefig(out, dpi=150, metadata=no_date)


def dataset_notice(dataset: str) -> str:
    """Return the name and licence of a data set, for pictures and copies; one not listed is named without a licence."""
    return _DATASET_NOTICES.get(dataset, dataset)


def check_picture_name(out: Path) -> None:
    """Refuse a file name whose suffix is none of `PICTURE_SUFFIXES`.

    Raises:
        UsageError: naming the suffixes that can be drawn.
    """
    suffix = out.suffix.lower()
    if suffix not in PICTURE_SUFFIXES:
        raise UsageError(
            f"{out}: a picture is written as {', '.join(PICTURE_SUFFIXES)}, not {suffix or 'without a suffix'!r}.",
            f"Name the file {out.with_suffix('.png').name}.",
        )


def _draw_page(record: EcgRecord, title: str) -> "Figure":
    """Lay out and draw the whole page; its single axes has millimetres as data units."""
    from matplotlib.figure import Figure

    strips = cut_strips(record.waveform, record.fs_hz)
    baselines, area_height = place_rows(strips)
    header = _header_lines(record, title)
    header_height = _TOP_MARGIN + _LINE_HEIGHT * len(header) + 2.0
    height = max(_PAGE_HEIGHT, header_height + area_height + _FOOTER_HEIGHT)

    figure = Figure(figsize=(PAGE_WIDTH / 25.4, height / 25.4), facecolor="white")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0.0, PAGE_WIDTH), ylim=(0.0, height))
    axes.axis("off")
    # All rows are given from the top of the paper; the page's own y runs upwards.
    paper_top = height - header_height
    paper_height = 5.0 * int((paper_top - _FOOTER_HEIGHT) // 5.0)
    draw_grid(axes, paper_top, paper_height)
    spare = (paper_height - area_height) / (len(baselines) + 1)
    for row, (row_strips, baseline) in enumerate(zip(strips, baselines, strict=True)):
        draw_row(axes, row_strips, paper_top - baseline - spare * (row + 1))
    _draw_text(axes, header, height, paper_top - paper_height, record)
    return figure


def _shown(waveform: Waveform, fs_hz: float) -> NDArray[np.float64]:
    """Return the part of the leads that is drawn, each around its own median; float64 (12, samples), mV."""
    shown = waveform[:, : round(SHOWN_S * fs_hz)].astype(np.float64)
    centred: NDArray[np.float64] = shown - np.median(shown, axis=1, keepdims=True)
    return centred


def cut_strips(waveform: Waveform, fs_hz: float) -> list[list[_Strip]]:
    """Cut the leads into the rows of the page: three rows of four strips, and the rhythm strip."""
    shown = _shown(waveform, fs_hz)
    rows = [
        [_cut(shown, fs_hz, lead, lead, column * COLUMN_S, COLUMN_S) for column, lead in enumerate(row)]
        for row in _GRID
    ]
    return [*rows, [_cut(shown, fs_hz, _RHYTHM_LEAD, f"{_RHYTHM_LEAD} rhythm", 0.0, SHOWN_S)]]


def _cut(shown: NDArray[np.float64], fs_hz: float, lead: str, label: str, start_s: float, length_s: float) -> _Strip:
    """Cut one strip; it takes its place on the paper at `start_s` even where its samples come from earlier."""
    samples = round(length_s * fs_hz)
    first = min(round(start_s * fs_hz), max(0, shown.shape[1] - samples))
    # One sample more than the interval, so that neighbouring strips of one lead would join.
    cut = shown[LEADS.index(lead), first : first + samples + 1]
    x_mm = start_s * MM_PER_S + np.arange(len(cut)) / fs_hz * MM_PER_S
    return _Strip(lead, label, x_mm, np.clip(cut * MM_PER_MV, -_CLIP_MM, _CLIP_MM))


def place_rows(strips: list[list[_Strip]]) -> tuple[list[float], float]:
    """Return each row's baseline below the top of the paper and the height all rows need, in mm.

    Rows stand 35 mm apart, further where a strip would touch the one below it.
    """
    baselines = [max(20.0, max(strip.top for strip in strips[0]) + _TRACE_GAP)]
    for upper, lower in itertools.pairwise(strips):
        # The rhythm strip runs under all columns; other strips only meet the one in their own column.
        pairs = zip(upper, lower, strict=True) if len(upper) == len(lower) else ((strip, lower[0]) for strip in upper)
        needed = max(below.top - above.bottom for above, below in pairs) + _TRACE_GAP
        baselines.append(baselines[-1] + max(_ROW_PITCH, needed))
    last = min(strip.bottom for strip in strips[-1])
    return baselines, baselines[-1] + max(15.0, -last + _TRACE_GAP)


def draw_grid(axes: "Axes", top: float, height: float) -> None:
    """Draw the pink paper: fine lines every 1 mm, bold ones every 5 mm."""
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Rectangle

    left, right, bottom = GRID_LEFT, GRID_LEFT + GRID_WIDTH, top - height
    axes.add_patch(Rectangle((left, bottom), GRID_WIDTH, height, facecolor=_PAPER, edgecolor="none", zorder=0))
    for step, colour, width, name in ((1, _FINE, 0.35, "grid-1mm"), (5, _BOLD, 0.6, "grid-5mm")):
        columns = [((x, bottom), (x, top)) for x in left + np.arange(0, int(GRID_WIDTH) + 1, step)]
        rows = [((left, y), (right, y)) for y in bottom + np.arange(0, int(height) + 1, step)]
        lines = LineCollection([*columns, *rows], colors=colour, linewidths=width, zorder=step / 10, gid=name)
        axes.add_collection(lines, autolim=False)


def draw_row(axes: "Axes", strips: list[_Strip], baseline: float) -> None:
    """Draw the calibration pulse and the strips of one row around its baseline."""
    pen: dict[str, Any] = {
        "color": _INK,
        "linewidth": 0.8,
        "solid_joinstyle": "round",
        "solid_capstyle": "round",
        "zorder": 3,
    }
    x = GRID_LEFT + _PULSE_OFFSET + np.array([0.0, 2.0, 2.0, 7.0, 7.0, 9.0])
    axes.plot(x, baseline + MM_PER_MV * np.array([0.0, 0.0, 1.0, 1.0, 0.0, 0.0]), gid="calibration", **pen)
    left = GRID_LEFT + _TRACE_OFFSET
    for number, strip in enumerate(strips):
        axes.plot(left + strip.x_mm, baseline + strip.y_mm, gid=f"lead-{strip.label.replace(' ', '-')}", **pen)
        start = left + float(strip.x_mm[0])
        if number:
            axes.plot([start, start], [baseline - 1.5, baseline + 1.5], color=_INK, linewidth=0.6, zorder=3)
        axes.text(
            start + 1.0, baseline + strip.label_y, strip.label, fontsize=8.5, fontweight="bold", color=_INK, zorder=4
        )


def _draw_text(axes: "Axes", header: list[tuple[str, str]], height: float, bottom: float, record: EcgRecord) -> None:
    """Draw header and footer, and mark a synthetic record as such across the paper."""
    y = height - _TOP_MARGIN
    for line, style in header:
        size, weight, colour = {
            "title": (9.0, "normal", "#555555"),
            "id": (12.0, "bold", "black"),
            "plain": (9.0, "normal", "black"),
        }[style]
        axes.text(GRID_LEFT, y, line, fontsize=size, fontweight=weight, color=colour, va="baseline", parse_math=False)
        y -= _LINE_HEIGHT
    notice = dataset_notice(record.info.dataset)
    foot: dict[str, Any] = {"fontsize": 7.5, "color": "#444444", "va": "baseline", "parse_math": False}
    axes.text(GRID_LEFT, bottom - 5.0, _scale_text(record), **foot)
    axes.text(GRID_LEFT + GRID_WIDTH, bottom - 5.0, f"{DISCLAIMER}  ·  {notice}", ha="right", **foot)
    if record.info.dataset == "synthetic":
        middle = (bottom + height) / 2.0 - 15.0
        axes.text(
            PAGE_WIDTH / 2.0, middle, "synthetic", fontsize=96, color="#7a7a7a", alpha=0.13, ha="center", va="center",
            rotation=20.0, zorder=2,
        )  # fmt: skip


def _scale_text(record: EcgRecord) -> str:
    """Describe paper speed, gain, sampling rate and what part of the record is shown; no cut may go unsaid."""
    duration_s = record.waveform.shape[1] / record.fs_hz
    text = f"{MM_PER_S:g} mm/s  ·  {MM_PER_MV:g} mm/mV  ·  {record.fs_hz:g} Hz"
    if np.abs(_shown(record.waveform, record.fs_hz)).max() * MM_PER_MV > _CLIP_MM:
        text += f"  ·  cut off at ±{_CLIP_MM / MM_PER_MV:g} mV"
    if duration_s > SHOWN_S + 0.01:
        return f"{text}  ·  first {SHOWN_S:g} s of {duration_s:.1f} s"
    if duration_s < SHOWN_S - 0.01:
        return f"{text}  ·  {duration_s:.1f} s recorded, columns overlap in time"
    return text


def _header_lines(record: EcgRecord, title: str) -> list[tuple[str, str]]:
    """Return the lines over the paper, each with its style name."""
    info = record.info
    lines = [(textwrap.shorten(title, 140, placeholder=" ..."), "title")] if title else []
    lines.append((info.record_id, "id"))
    lines.append(("   ".join(part for part in (_person_text(info), _measurement_text(info)) if part), "plain"))
    report = " ".join(" ".join(line.split()).rstrip(".") + "." for line in info.report_lines if line.strip())
    wrapped = textwrap.wrap(report, _REPORT_COLUMNS, max_lines=_REPORT_LINES, placeholder=" ...")
    lines.extend((line, "plain") for line in wrapped or ["no report"])
    if record.flags:
        lines.append((textwrap.shorten("Flags: " + ", ".join(record.flags), 130, placeholder=" ..."), "title"))
    return lines


def _person_text(info: RecordInfo) -> str:
    """Describe age, sex and date, as far as known."""
    age = f"{info.age_years:.0f} years" if info.age_years is not None else "age unknown"
    sex = {"F": "female", "M": "male"}.get(info.sex or "", "sex unknown")
    return "   ".join(part for part in (f"{age}, {sex}", (info.ecg_time or "").replace("T", " ")) if part)


def _measurement_text(info: RecordInfo) -> str:
    """Describe the known measurements in the order a printed ECG gives them."""
    m = info.measurements
    values = (
        ("rate", m.heart_rate_bpm, "/min"),
        ("PR", m.pr_interval_ms, " ms"),
        ("QRS", m.qrs_duration_ms, " ms"),
        ("QT", m.qt_interval_ms, " ms"),
        ("QTc", m.qtc_ms, " ms"),
        ("axis", m.qrs_axis_deg, "°"),
    )
    return "   ".join(f"{name} {value:.0f}{unit}" for name, value, unit in values if value is not None)
