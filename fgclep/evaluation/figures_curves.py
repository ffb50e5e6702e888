"""ROC curves, precision-recall curves and reliability diagrams."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fgclep.evaluation.figures import COLOURS, GREY, INK, drawn_figure, pens, unit_square
from fgclep.evaluation.results import Interval, Scored

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]

_HEIGHT_IN = 3.5
_TALLEST_IN = 4.7
_SPARE_IN = 0.1  # the legend stands off by a share of the square, which grows
_GRID = np.linspace(0.0, 1.0, 501)


@dataclass(frozen=True)
class Reliability:
    """One line of a reliability diagram; the arrays have one entry per bin that holds any score.

    Attributes:
        label: what was scored, for the legend.
        predicted: mean score of the bin.
        observed: share of them whose label is true, weighted as the score is meant.
        counts: pairs of record and text in it.
        ece: expected calibration error.
    """

    label: str
    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    counts: NDArray[np.int64]
    ece: float


def draw_roc(scored: Scored, auc: Mapping[str, Interval], macro: Interval, title: str, out: Path) -> None:
    """Draw one ROC curve per class and their vertical mean.

    Up to six classes are drawn in colour. Of more, the three with the highest and the three with the lowest value are,
    and the others in grey.

    Args:
        scored: labels and scores.
        auc: class to its area, in the order of the legend's ties; classes that are not in it are not drawn.
        macro: mean area.
        title: over the axes.
        out: a .png or .svg file.
    """
    from sklearn.metrics import roc_curve

    curves: dict[str, Curve] = {}
    for name in auc:
        column = scored.classes.index(name)
        fpr, tpr, _ = roc_curve(scored.labels[:, column], scored.scores[:, column])
        curves[name] = fpr, tpr
    with drawn_figure(out, _HEIGHT_IN) as figure:
        axes = figure.add_subplot()
        unit_square(axes, "false positive rate (1 - specificity)", "true positive rate (sensitivity)")
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        _draw_curves(axes, curves, {name: (auc[name], _described(auc[name])) for name in auc})
        label = f"mean of classes  {_described(macro)}"
        axes.plot(*mean_curve(list(curves.values())), color=INK, linewidth=2.0, zorder=4, label=label)
        _finish(axes, title, "AUC [95 % interval]")


def draw_precision_recall(
    scored: Scored, average_precision: Mapping[str, Interval], macro: Interval, title: str, out: Path
) -> None:
    """Draw one precision-recall curve per class; the area under its steps is the average precision.

    Classes are chosen as in `draw_roc`. The legend tells what chance gives: the prevalence. There is no mean curve:
    precision cannot be interpolated between two points.

    Args:
        scored: labels and scores.
        average_precision: class to its average precision; classes that are not in it are not drawn.
        macro: mean average precision, told in the legend.
        title: over the axes.
        out: a .png or .svg file.
    """
    curves: dict[str, Curve] = {}
    told = {}
    for name, interval in average_precision.items():
        column = scored.classes.index(name)
        labels = scored.labels[:, column]
        curves[name] = precision_recall_steps(labels, scored.scores[:, column])
        told[name] = interval, f"{_described(interval)}, chance {labels.mean():.3f}"
    with drawn_figure(out, _HEIGHT_IN) as figure:
        axes = figure.add_subplot()
        unit_square(axes, "recall (sensitivity)", "precision (positive predictive value)")
        _draw_curves(axes, curves, told, steps=True)
        axes.plot([], [], linestyle="none", label=f"mean of classes  {_described(macro)}")
        _finish(axes, title, "average precision [95 % interval]")


def draw_reliability(curves: Sequence[Reliability], title: str, out: Path) -> None:
    """Draw observed frequency against score, with the number of pairs per bin beside it.

    Args:
        curves: at most six, such as before and after fitting.
        title: over the axes.
        out: a .png or .svg file.
    """
    with drawn_figure(out, _HEIGHT_IN + 0.1) as figure:
        main, beside = figure.subplots(1, 2)
        unit_square(main, "score", "observed share of true labels")
        main.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (2, 2)), label="perfect")
        for pen, curve in zip(pens(len(curves)), curves, strict=True):
            looks = {"color": pen.colour, "linestyle": pen.dashes, "marker": pen.marker, "markersize": 4}
            label = f"{curve.label}  ECE {curve.ece:.3f}"
            main.plot(curve.predicted, curve.observed, linewidth=1.3, label=label, **looks)
            beside.plot(curve.predicted, curve.counts, linewidth=1.3, **looks)
        main.set_title(title)
        main.legend(loc="upper left")
        beside.set(xlim=(0, 1), yscale="log", xlabel="score", ylabel="pairs of record and text in the bin")
        beside.set_xticks(main.get_xticks(), [label.get_text() for label in main.get_xticklabels()])
        beside.set_box_aspect(1)
        beside.grid(color="#e6e6e6", linewidth=0.5)


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Return the vertical mean of ROC curves; the area under it is the mean of their areas, up to the grid's step."""
    mean = np.mean([np.interp(_GRID, *curve) for curve in curves], axis=0)
    mean[0] = 0.0  # where a curve rises along the axis, interpolation would start on top of the rise
    return _GRID, mean


def precision_recall_steps(labels: NDArray[np.bool_], scores: NDArray[np.float32]) -> Curve:
    """Return recall, ascending, and the precision up to it; the area under the steps is the average precision."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(labels, scores)
    # Of the points with one recall only the highest counts in the average precision; the others blur the steps.
    steps, first = np.unique(recall[::-1], return_index=True)
    heights = precision[::-1][first]
    heights[0] = heights[1]  # scikit-learn begins at (0, 1), where nothing is retrieved; the first step begins at 0
    return steps, heights


def highlighted(values: Mapping[str, float]) -> list[str]:
    """Return the classes to draw in colour, best first: all if they are few, else the three best and three worst."""
    ranked = sorted(values, key=lambda name: -values[name])
    half = len(COLOURS) // 2
    return ranked if len(ranked) <= len(COLOURS) else ranked[:half] + ranked[-half:]


def _draw_curves(
    axes: "Axes", curves: Mapping[str, Curve], told: Mapping[str, tuple[Interval, str]], *, steps: bool = False
) -> None:
    """Draw the highlighted classes in colour, the others in grey and named by their number."""
    chosen = highlighted({name: interval.value for name, (interval, _) in told.items()})
    style = "steps-pre" if steps else "default"
    for name, pen in zip(chosen, pens(len(chosen)), strict=True):
        label = f"{name}  {told[name][1]}"
        axes.plot(
            *curves[name], color=pen.colour, linestyle=pen.dashes, linewidth=1.3, zorder=3, drawstyle=style, label=label
        )
    others = [name for name in curves if name not in chosen]
    for number, name in enumerate(others):
        counted = f"{len(others)} other {'class' if len(others) == 1 else 'classes'}" if number == 0 else None
        axes.plot(*curves[name], color=GREY, linewidth=0.7, zorder=2, drawstyle=style, label=counted)


def _described(interval: Interval) -> str:
    if np.isnan(interval.low):
        return f"{interval.value:.3f}"
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _finish(axes: "Axes", title: str, legend_title: str) -> None:
    """Put title and legend, and let the square and the legend beside it fill the figure's width."""
    axes.set_title(title)
    axes.set_anchor("W")
    axes.legend(
        loc="upper left", bbox_to_anchor=(1.03, 1.0), title=legend_title, title_fontsize=7.5, alignment="left",
        handlelength=2.6,
    )  # fmt: skip
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    square = axes.get_window_extent().width / figure.dpi
    everything = figure.get_tightbbox()
    beside, above = everything.width - square, everything.height - square
    figure.set_figheight(min(figure.get_figwidth() - _SPARE_IN - beside + above, _TALLEST_IN))
