"""How figures of an evaluation look, and how they are written.

One width (180 mm, two columns of a journal), text of 8 points at that width, colours that people with a colour vision
deficiency tell apart (Okabe and Ito), and never colour alone: line styles and markers differ too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgclep.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN = 180 / 25.4
SUFFIXES = (".png", ".svg")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette without black, which marks means, and yellow, which is lost on white."""
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)), (0, (2, 1)), (0, (8, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P")
GREY = "#b8b8b8"
INK = "#1a1a1a"

_STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.linewidth": 0.7,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    # Text stays text in SVG; the fixed salt and the missing date make equal inputs equal files.
    "svg.fonttype": "none",
    "svg.hashsalt": "fgclep",
}


@dataclass(frozen=True)
class Pen:
    """How one class of a figure is drawn."""

    colour: str
    dashes: Any
    marker: str


def pens(count: int) -> list[Pen]:
    """Return pens for `count` classes, all different; at most as many as there are `COLOURS`."""
    return [Pen(*each) for each in zip(COLOURS, DASHES, MARKERS, strict=True)][:count]


@contextmanager
def drawn_figure(out: Path, height_in: float, width_in: float = WIDTH_IN) -> Iterator["Figure"]:
    """Give an empty figure to draw on and write it when that is done.

    Args:
        out: a .png or .svg file; its folder is made if need be. A PNG has 300 dpi when printed `WIDTH_IN` wide.
        height_in: height in inches.
        width_in: width in inches.

    Raises:
        UsageError: if the suffix of `out` is another one.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{out}: a figure is written as {' or '.join(SUFFIXES)}, not {out.suffix or 'without a suffix'!r}.",
            f"Name the file {out.with_suffix('.svg').name}.",
        )
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    dpi = 300 * WIDTH_IN / width_in
    with rc_context(_STYLE):
        figure = Figure(figsize=(width_in, height_in), dpi=dpi, facecolor="white", layout="constrained")
        yield figure
        out.parent.mkdir(parents=True, exist_ok=True)
        no_date = {"Date": None} if out.suffix.lower() == ".svg" else {}
        figure.savefig(out, dpi=dpi, metadata=no_date)


def unit_square(axes: "Axes", xlabel: str, ylabel: str) -> None:
    """Make axes a square from 0 to 1 with a light grid."""
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=xlabel, ylabel=ylabel, aspect="equal")
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.grid(color="#e6e6e6", linewidth=0.5)
    axes.set_axisbelow(True)
