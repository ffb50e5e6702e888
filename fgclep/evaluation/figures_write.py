"""Draw the figures of a model on a data set and write each as PNG and SVG."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgclep.errors import DataError, UsageError
from fgclep.evaluation.benchmark_base import Split
from fgclep.evaluation.bootstrap import auc, average_precision, bootstrap_macro
from fgclep.evaluation.encoders import Encoder, open_encoder, refuse_text
from fgclep.evaluation.figures import SUFFIXES
from fgclep.evaluation.figures_curves import Reliability, draw_precision_recall, draw_reliability, draw_roc
from fgclep.evaluation.figures_data import (
    DrawPlate,
    PlateHit,
    finding_names,
    map_groups,
    similarity_batches,
    top_rows,
)
from fgclep.evaluation.figures_maps import (
    EmbeddingPanel,
    draw_embedding_map,
    draw_similarity_heat_map,
    project,
    silhouette,
)
from fgclep.evaluation.results import Scored
from fgclep.evaluation.retrievers import dense_retriever
from fgclep.evaluation.search_set import SearchSet, open_search_set
from fgclep.evaluation.zero_shot import Embed
from fgclep.reports import normalise

MOST_PANELS = 3


@dataclass(frozen=True)
class Shown:
    """A model and the records of a set that it could use, with their vectors, float32 (n, D)."""

    encoder: Encoder
    records: SearchSet
    vectors: NDArray[np.float32]

    def score(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the cosine of every record with every text, float32 (n, len(texts))."""
        return dense_retriever(self.encoder, self.vectors).score(texts)

    def scored(self) -> Scored:
        """Return the scores of all classes with both outcomes, each asked for by its plain name."""
        columns = self.records.columns()
        return Scored(
            labels=self.records.labels[:, columns],
            scores=self.score([self.records.texts[c] for c in columns]),
            classes=tuple(self.records.classes[c] for c in columns),
            record_ids=tuple(info.record_id for info in self.records.infos),
            subject_ids=self.records.subject_ids,
        )


def open_shown(
    spec: str, name: str, data: Path, split: Split | None, *, splits: Path | None = None, embed: Embed
) -> Shown:
    """Open a model and encode the records of a set.

    Args:
        spec: see `open_encoder`.
        name: one of `SEARCH_SETS`.
        data: the data set's tree.
        split: which part, see `open_search_set`.
        splits: folder of published split files.
        embed: encodes records into the space of texts.

    Raises:
        FgclepError: as `open_encoder` and `open_search_set` do, and if the model knows no text.
    """
    encoder = open_encoder(spec)
    if not encoder.joint:
        refuse_text(encoder.name)
    records = open_search_set(name, data, split, splits=splits, fs_hz=encoder.fs_hz)
    embedded = embed(encoder, records.dataset, records.infos)
    return Shown(encoder, records.keep(embedded.kept), embedded.vectors)


def write_curves(scored: Scored, title: str, draws: int, seed: int, stem: Path) -> list[Path]:
    """Write ROC and precision-recall curves, `<stem>-roc` and `<stem>-pr`, with intervals by bootstrap.

    Raises:
        DataError: if no class has both outcomes.
    """
    macro_auc, aucs = bootstrap_macro(scored, auc, draws, seed)
    if not aucs:
        raise DataError(f"{title}: no class has both outcomes; there is no curve to draw.", "Use a larger tree.")
    macro_ap, precisions = bootstrap_macro(scored, average_precision, draws, seed)
    roc = _both(lambda out: draw_roc(scored, aucs, macro_auc, title, out), stem.with_name(f"{stem.name}-roc"))
    return roc + _both(
        lambda out: draw_precision_recall(scored, precisions, macro_ap, title, out), stem.with_name(f"{stem.name}-pr")
    )


def write_reliability(before: Mapping[str, Any], after: Mapping[str, Any], title: str, stem: Path) -> list[Path]:
    """Write the reliability diagram of two assessments (`calibration.Assessment`) in their JSON form."""
    curves = [_reliability(label, found) for label, found in (("before", before), ("after", after))]
    return _both(lambda out: draw_reliability(curves, title, out), stem)


def write_heat_map(shown: Shown, seed: int, stem: Path) -> list[Path]:
    """Write the heat map of the similarity of reports (Figure 3 of the paper)."""
    encode: Callable[[list[str]], NDArray[np.float32]] = shown.encoder.encode_text
    mixed, grouped = similarity_batches(shown.records.infos, encode, seed)
    return _both(lambda out: draw_similarity_heat_map(mixed, grouped, len(grouped) // 2, out), stem)


def write_map(models: Sequence[Shown], keys: Sequence[str], seed: int, stem: Path) -> list[Path]:
    """Write the map of embeddings by finding, a panel for each model (Figure 4 of the paper).

    Raises:
        UsageError: if there are more than three models.
        DataError: if no record has exactly one of the findings.
    """
    if len(models) > MOST_PANELS:
        raise UsageError(f"{len(models)} models were given; a map shows at most {MOST_PANELS}.", "Name fewer models.")
    names = finding_names(keys)
    panels = []
    for shown in models:
        rows, groups = map_groups(shown.records.infos, keys, seed)
        vectors = shown.vectors[rows]
        panels.append(EmbeddingPanel(shown.encoder.name, project(vectors, seed), groups, silhouette(vectors, groups)))
    return _both(lambda out: draw_embedding_map(panels, names, out), stem)


def write_plates(shown: Shown, queries: Sequence[str], draw: DrawPlate, stem: Path) -> list[Path]:
    """Write a plate of the first three hits, one per subject, of each query (Figure 5 of the paper)."""
    written = []
    for query, similar in zip(queries, shown.score(queries).T, strict=True):
        hits = [
            PlateHit(shown.records.dataset.read(shown.records.infos[row]), float(similar[row]))
            for row in top_rows(similar, shown.records.subject_ids)
        ]
        name = "-".join("".join(c if c.isalnum() else " " for c in normalise(query)).split())
        written += _both(partial(draw, query, hits), stem.with_name(f"{stem.name}-{name}"))
    return written


def _both(draw: Callable[[Path], None], stem: Path) -> list[Path]:
    """Write one figure in both forms; a dot in the stem is no suffix."""
    written = [stem.with_name(stem.name + suffix) for suffix in SUFFIXES]
    for out in written:
        draw(out)
    return written


def _reliability(label: str, found: Mapping[str, Any]) -> Reliability:
    columns = {key: np.array([one[key] for one in found["bins"]], np.float64) for key in ("score", "observed", "pairs")}
    return Reliability(label, columns["score"], columns["observed"], columns["pairs"].astype(np.int64), found["ece"])
