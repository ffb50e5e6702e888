"""What is put on frozen features: a logistic head, nearest neighbours, and the subsets they learn from (METHOD A7)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgclep.evaluation.bootstrap import auc, defined_columns

EPOCHS = 100
BATCH = 16
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-4
"""The published head: Adam with these, binary cross-entropy."""

NEIGHBOURS = (1, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Numbers of neighbours that validation chooses from."""

PUBLISHED_SEED = 42

_WIDEST = 10.0
_QUERIES = 512


@dataclass(frozen=True)
class LabelledFeatures:
    """Features float32 (n, F) and labels bool (n, C) of the same records."""

    features: NDArray[np.float32]
    labels: NDArray[np.bool_]

    def take(self, rows: NDArray[np.intp]) -> "LabelledFeatures":
        """Return some of the records."""
        return LabelledFeatures(self.features[rows], self.labels[rows])


@dataclass(frozen=True)
class Probe:
    """A probe that was fitted in several versions: a head after each epoch, or several numbers of neighbours.

    Attributes:
        versions: the epochs, or the numbers of neighbours.
        val: macro AUC of each version on the records that choose.
        test: on the records that are reported.
        scores: of the chosen version for the reported records, float32 (n, C).
    """

    versions: tuple[int, ...]
    val: tuple[float, ...]
    test: tuple[float, ...]
    scores: NDArray[np.float32]

    @property
    def chosen(self) -> int:
        """Position of the version that is best on the choosing records, the first of equals."""
        return _best(self.val)


def published_subset(n: int, percent: int) -> NDArray[np.intp]:
    """Return the rows of the published training subset, which is random and not stratified.

    It is a draw over the rows of the published training file; the same draw over the same rows gives the same records.
    """
    from sklearn.model_selection import train_test_split

    rows, _ = train_test_split(np.arange(n), train_size=percent / 100, random_state=PUBLISHED_SEED)
    return np.sort(rows)


def stratified_subset(labels: NDArray[np.bool_], size: int, seed: int) -> NDArray[np.intp]:
    """Draw records so that every class keeps its share, and each that occurs at all has a positive.

    The rarest classes are served first: each gets positives at random until it has its share of `size`, rounded, and
    at least one. Records without any class count as a class of their own. What is left of `size` is filled at random.

    Args:
        labels: bool, shape (n, C).
        size: records to draw.
        seed: of the draw.

    Returns:
        Sorted rows; `size` of them, or all if there are fewer.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    labels = np.column_stack([labels, ~labels.any(axis=1)])
    counts = labels.sum(axis=0)
    wanted = np.maximum(1, np.rint(counts * (size / max(len(labels), 1))))
    chosen = np.zeros(len(labels), bool)
    for c in np.argsort(counts, kind="stable"):
        lacking = int(min(wanted[c] - labels[chosen, c].sum(), size - chosen.sum()))
        candidates = order[labels[order, c] & ~chosen[order]]
        chosen[candidates[: max(lacking, 0)]] = True
    chosen[order[~chosen[order]][: size - int(chosen.sum())]] = True
    return np.flatnonzero(chosen)


def fit_head(train: LabelledFeatures, val: LabelledFeatures, test: LabelledFeatures, seed: int) -> Probe:
    """Fit a linear layer to all classes at once and watch it after every epoch.

    Features are standardised by the training records. The layer begins at zero, so that only the order of the batches
    is random.

    Args:
        train: learned from.
        val: chooses the epoch; may be `test` itself.
        test: reported on.
        seed: of the order.
    """
    import torch

    center, scale = _spread(train.features)
    x, val_x, test_x = (torch.from_numpy(_standardise(s.features, center, scale)) for s in (train, val, test))
    y = torch.from_numpy(train.labels.astype(np.float32))
    head = torch.nn.Linear(x.shape[1], y.shape[1])
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.Adam(head.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    loss = torch.nn.BCEWithLogitsLoss()
    shuffle = torch.Generator().manual_seed(seed)
    scores: list[NDArray[np.float32]] = []
    val_auc: list[float] = []
    test_auc: list[float] = []
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x), generator=shuffle).split(BATCH):
            optimizer.zero_grad()
            loss(head(x[rows]), y[rows]).backward()
            optimizer.step()
        with torch.inference_mode():
            scores.append(head(test_x).numpy())
            test_auc.append(macro_auc(test.labels, scores[-1]))
            val_auc.append(test_auc[-1] if val is test else macro_auc(val.labels, head(val_x).numpy()))
    return Probe(tuple(range(1, EPOCHS + 1)), tuple(val_auc), tuple(test_auc), scores[_best(val_auc)])


def fit_neighbours(train: LabelledFeatures, val: LabelledFeatures, test: LabelledFeatures) -> Probe:
    """Score by the labels of the nearest training records, weighted by cosine; validation chooses how many.

    Features are standardised by the training records.
    """
    center, scale = _spread(train.features)
    known = _unit(_standardise(train.features, center, scale))
    counts = [k for k in NEIGHBOURS if k <= len(known)] or [len(known)]
    of_test = _vote(known, train.labels, _unit(_standardise(test.features, center, scale)), counts)
    of_val = (
        of_test if val is test else _vote(known, train.labels, _unit(_standardise(val.features, center, scale)), counts)
    )
    val_auc = tuple(macro_auc(val.labels, scores) for scores in of_val)
    test_auc = tuple(macro_auc(test.labels, scores) for scores in of_test)
    return Probe(tuple(counts), val_auc, test_auc, of_test[_best(val_auc)])


def macro_auc(labels: NDArray[np.bool_], scores: NDArray[np.float32]) -> float:
    """Return the mean AUC over the classes with both outcomes; NaN if there is none."""
    values = [auc(labels[:, c], scores[:, c]) for c in defined_columns(labels)]
    return float(np.mean(values)) if values else float("nan")


def _vote(
    known: NDArray[np.float32], labels: NDArray[np.bool_], queries: NDArray[np.float32], counts: list[int]
) -> list[NDArray[np.float32]]:
    """Return for each number of neighbours the share of positives among them, weighted by cosine; (queries, C)."""
    votes: list[list[NDArray[np.float32]]] = [[] for _ in counts]
    for start in range(0, len(queries), _QUERIES):
        similar = queries[start : start + _QUERIES] @ known.T
        nearest = np.argsort(-similar, axis=1, kind="stable")[:, : counts[-1]]
        weights = np.maximum(np.take_along_axis(similar, nearest, axis=1), np.float32(1e-6))
        positive = labels[nearest] * weights[:, :, None]
        for k, found in zip(counts, votes, strict=True):
            found.append(positive[:, :k].sum(axis=1) / weights[:, :k].sum(axis=1, keepdims=True))
    return [np.concatenate(found) for found in votes]


def _spread(features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    scale = features.std(axis=0)
    return features.mean(axis=0), np.where(scale > 0, scale, np.float32(1))


def _standardise(
    features: NDArray[np.float32], center: NDArray[np.float32], scale: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Standardise; a feature that hardly varies in a small training subset cannot outweigh all others elsewhere."""
    clipped: NDArray[np.float32] = np.clip((features - center) / scale, -_WIDEST, _WIDEST)
    return clipped


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True).astype(np.float32)
    unit: NDArray[np.float32] = vectors / np.maximum(norms, np.float32(1e-12))
    return unit


def _best(values: "tuple[float, ...] | list[float]") -> int:
    """Return the position of the largest value, the first of equals; 0 if none is defined."""
    return int(np.argmax(np.nan_to_num(values, nan=-1.0)))
