"""Figures show the numbers they are given, overlap nothing, and are of the records they say."""

import itertools
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from fgclep.errors import DataError, UsageError
from fgclep.evaluation.figures import WIDTH_IN, drawn_figure, pens
from fgclep.evaluation.figures_curves import (
    Reliability,
    draw_precision_recall,
    draw_reliability,
    draw_roc,
    highlighted,
    mean_curve,
    precision_recall_steps,
)
from fgclep.evaluation.figures_data import finding_names, map_groups, similarity_batches, top_rows
from fgclep.evaluation.figures_maps import (
    OTHER,
    EmbeddingPanel,
    draw_embedding_map,
    draw_similarity_heat_map,
    project,
    silhouette,
)
from fgclep.evaluation.results import Interval, Scored
from fgclep.record import RecordInfo

SVG = "{http://www.w3.org/2000/svg}"
LONG = [
    "prolonged PR interval", "abnormal Q waves of the inferior wall", "premature ventricular complexes",
    "non-specific ST depression", "low QRS voltage in the limb leads", "inverted or flat T waves",
]  # fmt: skip


def scored(classes: int, n: int = 300) -> Scored:
    rng = np.random.default_rng(classes)
    labels = rng.random((n, classes)) < rng.uniform(0.1, 0.4, classes)
    scores = (rng.normal(size=(n, classes)) + labels * np.linspace(0.2, 3, classes)).astype(np.float32)
    names = tuple(f"CLASS{number}" for number in range(classes))
    return Scored(labels, np.round(scores, 1), names, tuple(map(str, range(n))), tuple(map(str, range(n))))


def values(of: Scored, metric: Callable[..., float]) -> dict[str, Interval]:
    found = {}
    for column, name in enumerate(of.classes):
        value = float(metric(of.labels[:, column], of.scores[:, column]))
        found[name] = Interval(value, value - 0.02, min(1.0, value + 0.02))
    return found


def curves(draw: Callable[..., None], metric: Callable[..., float], classes: int) -> Callable[[Path], None]:
    of = scored(classes)
    return lambda out: draw(of, values(of, metric), Interval(0.77, 0.75, 0.79), "ptbxl-sub, val split: small", out)


def reliability(out: Path) -> None:
    grid, counts = np.linspace(0.05, 0.95, 10), np.array([9000, 3000, 900, 200, 100, 50, 20, 8, 3, 1])
    lines = [Reliability("before", grid, grid * 0.5, counts, 0.234), Reliability("after", grid, grid, counts, 0.012)]
    draw_reliability(lines, "Scores of small on ptbxl-all, val split", out)


def embedding_map(panels: int) -> Callable[[Path], None]:
    rng = np.random.default_rng(0)
    groups = rng.integers(OTHER, len(LONG), 200)
    one = EmbeddingPanel("fg-clep-run-7-bundle", rng.normal(size=(200, 2)).astype(np.float32), groups, 0.123)
    return lambda out: draw_embedding_map([one] * panels, LONG, out)


def heat_map(out: Path) -> None:
    unit = np.random.default_rng(0).normal(size=(32, 4))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    matrix = (unit @ unit.T).astype(np.float32)
    draw_similarity_heat_map(matrix, matrix, 16, out)


FIGURES: dict[str, Callable[[Path], None]] = {
    "roc of 5": curves(draw_roc, roc_auc_score, 5),
    "roc of 23": curves(draw_roc, roc_auc_score, 23),
    "pr of 5": curves(draw_precision_recall, average_precision_score, 5),
    "pr of 23": curves(draw_precision_recall, average_precision_score, 23),
    "reliability": reliability,
    "map of 1": embedding_map(1),
    "map of 2": embedding_map(2),
    "map of 3": embedding_map(3),
    "heat map": heat_map,
}


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_touches_another_or_leaves_the_page(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, Bbox]] = []
    pages: list[Bbox] = []
    draw_text = Text.draw

    def record(text: Text, renderer: Any, *args: Any, **kwargs: Any) -> None:
        draw_text(text, renderer, *args, **kwargs)
        if text.get_visible() and text.get_text().strip():
            drawn.append((text.get_text(), text.get_window_extent(renderer)))

    def draw_only(figure: Figure, *_: Any, **__: Any) -> None:
        drawn.clear()  # of drawing to measure
        FigureCanvasAgg(figure).draw()
        pages.append(figure.bbox)

    monkeypatch.setattr(Text, "draw", record)
    monkeypatch.setattr(Figure, "savefig", draw_only)
    FIGURES[name](tmp_path / "figure.png")
    [page] = pages
    assert len(drawn) > 4
    if "map" not in name:  # a map is wider than its text
        assert max(box.x1 for _, box in drawn) > 0.94 * page.x1, "an empty strip at the right"
    for text, box in drawn:
        assert box.x0 >= -0.5 and box.y0 >= -0.5 and box.x1 <= page.x1 + 0.5 and box.y1 <= page.y1 + 0.5, text
    for (one, a), (other, b) in itertools.combinations(drawn, 2):
        across, along = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert across < 1 or along < 1, (one, other)


@pytest.mark.parametrize("name", ["roc of 23", "reliability", "map of 2", "heat map"])
def test_png_is_sharp_and_svg_is_the_same_every_time(name: str, tmp_path: Path) -> None:
    for file in ("a.png", "a.svg", "b.svg"):
        FIGURES[name](tmp_path / "new folder" / file)
    width = int.from_bytes((tmp_path / "new folder" / "a.png").read_bytes()[16:20], "big")
    assert width == pytest.approx(WIDTH_IN * 300, abs=1)
    first, second = ((tmp_path / "new folder" / file).read_bytes() for file in ("a.svg", "b.svg"))
    assert first == second


def texts(path: Path) -> str:
    return "\n".join("".join(node.itertext()).strip() for node in ET.parse(path).getroot().iter(f"{SVG}text"))


def test_curves_name_classes_with_their_values(tmp_path: Path) -> None:
    of = scored(5)
    auc = values(of, roc_auc_score)
    draw_roc(of, auc, Interval(0.77, 0.75, 0.79), "title", tmp_path / "roc.svg")
    told = texts(tmp_path / "roc.svg")
    for name, interval in auc.items():
        assert f"{name}  {interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]" in told
    assert "mean of classes  0.770 [0.750, 0.790]" in told and "title" in told
    draw_precision_recall(of, {"CLASS2": Interval(0.5)}, Interval(0.5), "t", tmp_path / "pr.svg")
    told = texts(tmp_path / "pr.svg")
    assert f"CLASS2  0.500, chance {of.labels[:, 2].mean():.3f}" in told and "CLASS1" not in told


def test_of_many_classes_the_extremes_are_named(tmp_path: Path) -> None:
    by_value = {f"c{number}": number / 10 for number in (3, 9, 1, 7, 5, 2, 8, 0)}
    assert highlighted(by_value) == ["c9", "c8", "c7", "c2", "c1", "c0"]
    assert highlighted({"a": 0.1, "b": 0.9}) == ["b", "a"]
    curves(draw_roc, roc_auc_score, 9)(tmp_path / "roc.svg")
    assert "3 other classes" in texts(tmp_path / "roc.svg")
    looks = [(pen.colour, pen.marker, str(pen.dashes)) for pen in pens(6)]
    assert all(len(set(each)) == 6 for each in zip(*looks, strict=True)), "colour is never the only difference"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=40))
def test_the_area_under_the_steps_is_the_average_precision(pairs: list[tuple[bool, int]]) -> None:
    labels, scores = np.array([label for label, _ in pairs]), np.array([score for _, score in pairs], np.float32)
    if not labels.any():
        return
    recall, precision = precision_recall_steps(labels, scores)
    area = float(np.sum(np.diff(recall) * precision[1:]))
    assert area == pytest.approx(average_precision_score(labels, scores))
    assert precision[0] == precision[1], "no step starts where nothing is retrieved"


def test_the_area_under_the_mean_curve_is_the_mean_area() -> None:
    of = scored(7, n=3000)
    lines = [roc_curve(of.labels[:, column], of.scores[:, column])[:2] for column in range(7)]
    x, y = mean_curve(lines)
    area = float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))
    assert area == pytest.approx(np.mean([v.value for v in values(of, roc_auc_score).values()]), abs=2e-3)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"figure.pdf: a figure is written as .png or .svg, not '.pdf'"),
        drawn_figure(tmp_path / "figure.pdf", 1),
    ):
        pass


def info(number: int, tags: tuple[str, ...], report: str = "") -> RecordInfo:
    lines = (report,) if report else ()
    return RecordInfo(f"ptb-xl:{number}", "ptb-xl", f"s{number % 3}", str(number), "x", report_lines=lines, tags=tags)


def test_a_map_holds_records_with_exactly_one_of_the_findings() -> None:
    tags = [("LPR",), ("LPR", "STD_"), ("STD_", "NORM"), ("NORM",), (), ("LPR", "SR"), ("INVT",)]
    rows, groups = map_groups([info(number, each) for number, each in enumerate(tags)], ["LPR", "STD"], seed=0)
    assert dict(zip(rows.tolist(), groups.tolist(), strict=True)) == {0: 0, 2: 1, 3: OTHER, 4: OTHER, 5: 0, 6: OTHER}
    with pytest.raises(DataError, match="none of 2 records has exactly one of the findings LPR, STD"):
        map_groups([info(0, ("LPR", "STD_")), info(1, ())], ["LPR", "STD"], seed=0)


def test_the_records_behind_the_findings_are_limited_and_drawn_by_seed() -> None:
    infos = [info(number, ("LPR",) if number < 5 else ()) for number in range(1000)]
    first, again, other = (map_groups(infos, ["LPR"], seed)[0] for seed in (1, 1, 2))
    assert len(first) == 405 and set(range(5)) <= set(first.tolist())
    assert (first == again).all() and (first != other).any() and (np.diff(first) > 0).all()


@pytest.mark.parametrize(
    ("keys", "told"),
    [(["LPR", "LPQ"], "there is no finding 'LPQ'"), ([], "0 findings were asked for"), (["LPR"] * 7, "7 findings")],
)
def test_findings_that_cannot_be_marked_are_refused(keys: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        finding_names(keys)


def test_findings_of_one_name_are_counted_apart(tmp_path: Path) -> None:
    groups = np.array([0, 0, 0, 1])
    panel = EmbeddingPanel("small", np.zeros((4, 2), np.float32), groups, 0.1)
    draw_embedding_map([panel], ["inferior myocardial infarction"] * 2, tmp_path / "map.svg")
    told = texts(tmp_path / "map.svg")
    assert "infarction (3)" in told and "infarction (1)" in told


def test_the_silhouette_is_of_the_findings_in_the_models_space() -> None:
    rng = np.random.default_rng(0)
    groups = np.array([0] * 20 + [1] * 20 + [OTHER] * 20)
    apart = (np.eye(3)[groups] + 0.01 * rng.normal(size=(60, 3))).astype(np.float32)
    assert silhouette(apart, groups) > 0.9
    mixed = rng.normal(size=(60, 3)).astype(np.float32)
    assert abs(silhouette(mixed, groups)) < 0.2
    assert np.isnan(silhouette(apart, np.zeros(60, np.intp)))
    apart[groups == OTHER] = apart[0]  # records with none of the findings take no part
    assert silhouette(apart, groups) > 0.9


def test_the_plane_keeps_neighbours_and_repeats_by_seed() -> None:
    rng = np.random.default_rng(1)
    groups = np.arange(40) % 2
    vectors = (np.eye(8)[groups] + 0.05 * rng.normal(size=(40, 8))).astype(np.float32)
    plane = project(vectors, seed=3)
    assert plane.shape == (40, 2) and (plane == project(vectors, seed=3)).all()
    distance = np.linalg.norm(plane[:, None] - plane[None], axis=2) + np.eye(40) * 1e9
    assert (groups[distance.argmin(axis=1)] == groups).all()


def one_hot(texts: list[str]) -> np.ndarray:
    """Encode `report <n>` as the n-th of 60 axes: only equal reports are alike."""
    return np.eye(60, dtype=np.float32)[[int(text.split()[1].rstrip(".")) for text in texts]]


def test_the_heat_map_compares_reports_normal_ones_first() -> None:
    infos = [info(number, ("NORM",) if number < 20 else ("IMI",), f"Report {number}") for number in range(60)]
    infos += [info(99, ("NORM",))]  # without a report
    seen: list[list[str]] = []

    def encode(texts: list[str]) -> np.ndarray:
        seen.append(texts)
        return one_hot(texts)

    mixed, grouped = similarity_batches(infos, encode, seed=0)
    assert (mixed == np.eye(32)).all() and (grouped == np.eye(32)).all(), "no report is drawn twice"
    numbers = [int(text.split()[1].rstrip(".")) for text in seen[0]]
    assert all(number < 20 for number in numbers[32:48]) and all(number >= 20 for number in numbers[48:])
    with pytest.raises(DataError, match="20 reports of normal and 15 of other ECGs; the heat map needs 16 of each"):
        similarity_batches(infos[:35], encode, seed=0)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("abc")), min_size=1, max_size=12))
def test_top_hits_are_one_per_subject_in_order(pairs: list[tuple[int, str]]) -> None:
    similar, subjects = np.array([value for value, _ in pairs], np.float32), [subject for _, subject in pairs]
    best = {s: max((v, -row) for row, (v, other) in enumerate(pairs) if other == s) for s in set(subjects)}
    expected = [-row for _, row in sorted(best.values(), reverse=True)][:2]
    assert top_rows(similar, subjects, 2) == expected
