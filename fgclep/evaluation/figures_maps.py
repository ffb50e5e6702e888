"""The heat map of semantic similarity (Figure 3 of arXiv 2505.11939) and the map of embeddings (its Figure 4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgclep.evaluation.figures import GREY, drawn_figure, pens

OTHER = -1
"""Number of the group of records that have none of the findings of a map."""

_PERPLEXITY = 30.0
_LAYERS = 8


@dataclass(frozen=True)
class EmbeddingPanel:
    """One model's embeddings on the plane.

    Attributes:
        title: over the panel.
        points: float32, shape (n, 2).
        groups: shape (n,), the number of each record's finding, or `OTHER`.
        silhouette: how well the findings stand apart in the model's own space, -1 to 1, see `silhouette`.
    """

    title: str
    points: NDArray[np.float32]
    groups: NDArray[np.intp]
    silhouette: float


def project(vectors: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Lay vectors out on a plane by t-SNE with cosine distance, from a PCA start.

    Args:
        vectors: float32, shape (n, dim), at least 4.

    Returns:
        float32, shape (n, 2).
    """
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
    plane = TSNE(2, perplexity=perplexity, metric="cosine", init="pca", random_state=seed).fit_transform(vectors)
    return np.asarray(plane, np.float32)


def silhouette(vectors: NDArray[np.float32], groups: NDArray[np.intp]) -> float:
    """Return the mean silhouette (cosine) of the records of a finding, measured in the model's space.

    t-SNE tears and groups as it likes; this number tells how much of a picture is the model's doing. NaN where there
    are fewer than two findings.
    """
    from sklearn.metrics import silhouette_score

    mine = groups != OTHER
    if len(set(groups[mine].tolist())) < 2 or len(set(groups[mine].tolist())) >= mine.sum():
        return float("nan")
    return float(silhouette_score(vectors[mine], groups[mine], metric="cosine"))


def draw_embedding_map(panels: Sequence[EmbeddingPanel], findings: Sequence[str], out: Path) -> None:
    """Draw embeddings by finding, one panel per model, as Figure 4 of the paper.

    Args:
        panels: at most three.
        findings: names of the groups 0, 1, ...; at most six.
        out: a .png or .svg file.
    """
    rows = -(-(len(findings) + 1) // 3)
    with drawn_figure(out, {1: 4.4, 2: 4.0}.get(len(panels), 2.9) + 0.2 * rows) as figure:
        for letter, panel, axes in zip("abc", panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=False):
            others = panel.groups == OTHER
            axes.scatter(*panel.points[others].T, s=5, color=GREY, alpha=0.5, linewidths=0, zorder=1)
            # In slices: one whole finding after the other would paint the last one over the rest.
            mine = np.random.default_rng(0).permutation(np.flatnonzero(~others))
            for layer, rows_of_layer in enumerate(np.array_split(mine, _LAYERS)):
                for group, pen in enumerate(pens(len(findings))):
                    points = panel.points[rows_of_layer[panel.groups[rows_of_layer] == group]]
                    axes.scatter(
                        *points.T, s=15, color=pen.colour, marker=pen.marker, linewidths=0.3, edgecolors="white",
                        zorder=2 + layer / _LAYERS,
                    )  # fmt: skip
            axes.set_title(f"({letter}) {panel.title}")
            apart = "" if np.isnan(panel.silhouette) else f"\nsilhouette in the model's space {panel.silhouette:.2f}"
            axes.set_xlabel(f"t-SNE{apart}")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color=GREY)
            axes.set_box_aspect(1)
        handles = []
        for group, (pen, name) in enumerate(zip(pens(len(findings)), findings, strict=True)):
            count = int((panels[0].groups == group).sum())
            label = f"{name} ({count})"
            handles.append(axes.scatter([], [], s=22, color=pen.colour, marker=pen.marker, label=label))
        if (panels[0].groups == OTHER).any():
            handles.append(axes.scatter([], [], s=10, color=GREY, label="none of these"))
        figure.legend(handles=handles, loc="outside lower center", ncols=3)


def draw_similarity_heat_map(
    random_batch: NDArray[np.float32], grouped_batch: NDArray[np.float32], first: int, out: Path
) -> None:
    """Draw the cosine between reports, as Figure 3 of the paper.

    Args:
        random_batch: shape (n, n), reports of a random batch.
        grouped_batch: shape (m, m), reports of `first` normal ECGs, then of abnormal ones.
        first: number of normal ones.
        out: a .png or .svg file.
    """
    low = min(0.0, float(random_batch.min()), float(grouped_batch.min()))
    with drawn_figure(out, 3.4) as figure:
        left, right = figure.subplots(1, 2)
        for axes, batch in ((left, random_batch), (right, grouped_batch)):
            image = axes.imshow(batch, cmap="cividis", vmin=low, vmax=1.0, interpolation="nearest")
            axes.spines[:].set_visible(False)
        left.set_title("(a) random batch")
        ticks = [0, *range(7, len(random_batch), 8)]
        left.set_xticks(ticks, [str(tick + 1) for tick in ticks])
        left.set_yticks(ticks, [str(tick + 1) for tick in ticks])
        left.set(xlabel="report", ylabel="report")
        right.set_title("(b) normal ECGs first")
        middles = [(first - 1) / 2, first + (len(grouped_batch) - first - 1) / 2]
        right.set_xticks(middles, ["normal", "abnormal"])
        right.set_yticks(middles, ["normal", "abnormal"], rotation=90, va="center")
        right.tick_params(length=0)
        for line in (right.axhline, right.axvline):
            line(first - 0.5, color="white", linewidth=1.2)
        figure.colorbar(image, ax=(left, right), label="cosine of the reports' embeddings", shrink=0.85, pad=0.02)
