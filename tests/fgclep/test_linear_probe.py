import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from fgclep.datasets import Dataset
from fgclep.errors import DataError, UsageError
from fgclep.evaluation import linear_probe as module
from fgclep.evaluation.benchmarks import BenchmarkSplit
from fgclep.evaluation.embeddings import Embedded
from fgclep.evaluation.linear_probe import linear_probe
from fgclep.evaluation.probe_heads import (
    EPOCHS,
    NEIGHBOURS,
    LabelledFeatures,
    fit_head,
    fit_neighbours,
    macro_auc,
    published_subset,
    stratified_subset,
)
from fgclep.record import RecordInfo


def problem(n: int, seed: int, signal: float = 2.0) -> LabelledFeatures:
    """Three classes that follow, not perfectly, from twelve of twenty features of very different sizes."""
    truth = np.random.default_rng(99).normal(size=(20, 3)) * (np.arange(20) < 12)[:, None]
    random = np.random.default_rng(seed)
    hidden = random.normal(size=(n, 20))
    logits = signal * hidden @ truth / np.sqrt(12) - 1
    labels = random.random((n, 3)) < 1 / (1 + np.exp(-logits))
    sizes = np.geomspace(1e-3, 1e3, 20)
    return LabelledFeatures((hidden * sizes + 5 * sizes).astype(np.float32), labels)


def scaled(train: LabelledFeatures, other: LabelledFeatures) -> np.ndarray:
    return np.asarray((other.features - train.features.mean(0)) / train.features.std(0))


def test_the_head_does_as_well_as_logistic_regression() -> None:
    train, val, test = problem(400, 0), problem(300, 1), problem(2000, 2)
    probe = fit_head(train, val, test, seed=0)
    expected = []
    for c in range(3):
        model = LogisticRegression(C=1.0, max_iter=1000).fit(scaled(train, train), train.labels[:, c])
        expected.append(roc_auc_score(test.labels[:, c], model.decision_function(scaled(train, test))))
    assert np.mean(expected) > 0.75
    assert probe.test[probe.chosen] == pytest.approx(np.mean(expected), abs=0.01)


def test_the_head_reports_what_its_epochs_gave() -> None:
    train, val, test = problem(60, 0), problem(100, 1), problem(100, 2)
    probe = fit_head(train, val, test, seed=0)
    assert probe.versions == tuple(range(1, EPOCHS + 1))
    assert len(probe.val) == len(probe.test) == EPOCHS
    assert probe.val[probe.chosen] == max(probe.val)
    expected = np.mean([roc_auc_score(test.labels[:, c], probe.scores[:, c]) for c in range(3)])
    assert probe.test[probe.chosen] == pytest.approx(expected)
    assert max(probe.test) >= probe.test[probe.chosen]
    assert len(set(probe.test)) > 10  # epochs differ
    again = fit_head(train, val, test, seed=0)
    assert np.array_equal(again.scores, probe.scores)
    same = fit_head(train, test, test, seed=0)
    assert same.val == same.test == probe.test


def test_the_head_sees_no_labels_but_those_it_learns_from() -> None:
    """Validation labels choose the epoch, nothing more: with others, the course of the epochs stays the same."""
    train, val, test = problem(60, 0), problem(100, 1), problem(100, 2)
    turned = LabelledFeatures(val.features, ~val.labels)
    one, other = fit_head(train, val, test, seed=0), fit_head(train, turned, test, seed=0)
    assert one.test == other.test
    assert one.chosen != other.chosen


def test_a_feature_that_is_constant_in_training_cannot_spoil_the_score() -> None:
    train, val, test = problem(200, 0), problem(200, 1), problem(200, 2)
    for part in (train, val, test):
        part.features[:, 15] = 0
    val.features[::2, 15] = test.features[::2, 15] = 1e6
    train.features[0, 16] += 1e-30
    probe = fit_head(train, val, test, seed=0)
    assert np.isfinite(probe.scores).all()
    assert probe.test[probe.chosen] > 0.7


def test_neighbours_vote_as_in_scikit_learn() -> None:
    train, val, test = problem(120, 0), problem(90, 1), problem(700, 2)
    probe = fit_neighbours(train, val, test)
    assert probe.versions == tuple(k for k in NEIGHBOURS if k <= 120)
    expected: dict[int, dict[str, np.ndarray]] = {}
    for k in probe.versions:
        voter = KNeighborsClassifier(k, metric="cosine", weights=lambda d: np.maximum(1 - d, 1e-6), algorithm="brute")
        voter.fit(scaled(train, train), train.labels)
        for name, part in (("val", val), ("test", test)):
            shares = [share[:, 1] for share in voter.predict_proba(scaled(train, part))]
            expected.setdefault(k, {})[name] = np.stack(shares, axis=1)
    for number, k in enumerate(probe.versions):
        assert probe.val[number] == pytest.approx(roc_auc_score(val.labels, expected[k]["val"]), abs=1e-3)
        assert probe.test[number] == pytest.approx(roc_auc_score(test.labels, expected[k]["test"]), abs=1e-3)
    assert np.allclose(probe.scores, expected[probe.versions[probe.chosen]]["test"], atol=1e-4)
    few = fit_neighbours(train.take(np.arange(7)), val, test)
    assert few.versions == (1, 5)


def test_macro_auc_leaves_undefined_classes_out() -> None:
    labels = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 0]], bool)
    scores = np.array([[3, 0, 1], [1, 0, 2], [2, 0, 2]], np.float32)
    assert macro_auc(labels, scores) == pytest.approx(np.mean([1.0, 0.25]))
    assert np.isnan(macro_auc(labels[:1], scores[:1]))


@pytest.mark.parametrize(("name", "sizes"), [("form", (71, 719)), ("super_class", (170, 1708))])
def test_published_subsets_are_those_of_the_published_protocol(
    shared_data: Path, name: str, sizes: tuple[int, int]
) -> None:
    """Sizes as documented, and the number of classes that the 1 % subset of form has no positive of."""
    with (shared_data / "splits" / "ptbxl" / name / f"ptbxl_{name}_train.csv").open() as file:
        table = list(csv.DictReader(file))
    for percent, size in zip((1, 10), sizes, strict=True):
        expected, _ = train_test_split(table, train_size=percent / 100, random_state=42)
        rows = published_subset(len(table), percent)
        assert len(rows) == size
        assert {table[row]["ecg_id"] for row in rows} == {row["ecg_id"] for row in expected}
    if name == "form":
        one = [table[row] for row in published_subset(len(table), 1)]
        classes = list(table[0])[6:]
        assert sum(all(row[c] == "0" for row in one) for c in classes) == 4


def test_stratified_subsets_keep_shares_and_rare_classes() -> None:
    random = np.random.default_rng(4)
    labels = random.random((5000, 12)) < np.array([0.5, 0.3, 0.2, 0.1, 0.1, 0.05, 0.02, 0.01, 0.01, 0.002, 0.001, 0])
    labels[:3, 10] = True
    for size in (50, 500):
        rows = stratified_subset(labels, size, seed=1)
        assert len(set(rows)) == size
        assert (np.diff(rows) > 0).all()
        counts = labels[rows].sum(axis=0)
        assert (counts[:11] > 0).all()
        share = labels.mean(axis=0)
        assert np.allclose(counts[:6] / size, share[:6], atol=4 * np.sqrt(0.25 / size))
    assert (
        labels[stratified_subset(labels, 500, seed=1)].sum(axis=0)[6:9] >= np.rint(500 * labels.mean(axis=0))[6:9]
    ).all()
    assert np.array_equal(stratified_subset(labels, 50, seed=1), stratified_subset(labels, 50, seed=1))
    assert not np.array_equal(stratified_subset(labels, 50, seed=1), stratified_subset(labels, 50, seed=2))
    assert np.array_equal(stratified_subset(labels[:20], 40, seed=1), np.arange(20))


class Probed:
    """Stands in for the benchmark and the encoder: splits of `problem`, with features that need no ECG."""

    kind, fs_hz, root = "ptb-xl", 100, Path("somewhere")
    name, fingerprint, joint, feature_dim = "made-up", "0123456789abcdef", False, 20

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.parts = {"train": problem(300, 0), "val": problem(150, 1), "test": problem(200, 2)}
        monkeypatch.setattr(module, "open_encoder", lambda spec: self)
        monkeypatch.setattr(module, "open_benchmark", self.open_benchmark)

    def open_benchmark(self, name: str, data: Path, split: Any, **_: object) -> BenchmarkSplit:
        labels = self.parts[split].labels
        infos = [
            RecordInfo(f"ptb-xl:{split}{row}", "ptb-xl", f"{split}{row // 2}", f"{split}{row}", "")
            for row in range(len(labels))
        ]
        n, dataset = len(labels), self
        return BenchmarkSplit(name, split, dataset, ("a", "b", "c"), infos, labels, n, 0, 0, "made up")  # type: ignore[arg-type]

    def embed(self, encoder: object, dataset: Dataset, infos: Any) -> Embedded:
        """Refuse every seventh record."""
        split = infos[0].study_id.rstrip("0123456789")
        kept = np.flatnonzero(np.arange(len(infos)) % 7 != 3)
        return Embedded(self.parts[split].features[kept], kept, {"flat": len(infos) - len(kept)})

    def probe(self, split: Any, **more: Any) -> Any:
        arguments: dict[str, Any] = {"embed": self.embed, "draws": 50, **more}
        return linear_probe("random:small", "ptbxl-super", Path(), split, **arguments)


def test_results_follow_from_features_and_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    probed = Probed(monkeypatch)
    result, scores = probed.probe("test")
    assert [(row.fraction, row.subset) for row in result.rows] == [
        (1, "published"), (1, "stratified"), (10, "published"), (10, "stratified"), (100, "all"),
    ]  # fmt: skip
    usable = np.flatnonzero(np.arange(200) % 7 != 3)
    assert (result.records, result.listed, result.rejected) == (len(usable), 200, {"flat": 200 - len(usable)})
    assert result.selected_on == "val" != result.split
    for row in result.rows:
        scored = scores[f"{row.fraction}-{row.subset}"]
        assert np.array_equal(scored.labels, probed.parts["test"].labels[usable])
        assert scored.record_ids[5] == f"ptb-xl:test{usable[5]}"
        expected = roc_auc_score(scored.labels, scored.scores)
        assert row.test_at_best_val.value == pytest.approx(expected)
        assert row.test_at_best_val.low < expected < row.test_at_best_val.high
        assert row.max_test >= row.test_at_best_val.value
    drawn = set(published_subset(300, 10))
    assert result.rows[2].train_records == sum(row % 7 != 3 for row in drawn)  # drawn over all, then what is usable
    whole = result.rows[-1]
    assert whole.train_records == result.train_records == sum(row % 7 != 3 for row in range(300))
    assert whole.test_at_best_val.value > result.rows[0].test_at_best_val.value
    assert not result.published_subset_exact
    assert result.in_domain is False


def test_split_files_give_the_published_subset_of_a_partial_tree(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The draw goes over the rows of the file, in its order; what is not at hand is left out afterwards."""
    probed = Probed(monkeypatch)
    listed = [f"train{row}" for row in np.random.default_rng(0).permutation(400)]  # a hundred have no files
    lines = ["ecg_id,HYP,NORM,MI,CD,STTC", *(f"{record},0,1,0,0,0" for record in listed)]
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "ptbxl_super_class_train.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    result, _ = probed.probe("val", fractions=(10,), splits=tmp_path)
    drawn, _ = train_test_split(listed, train_size=0.1, random_state=42)
    rows = [int(record.removeprefix("train")) for record in drawn]
    assert result.published_subset_exact
    assert result.rows[0].train_records == sum(row < 300 and row % 7 != 3 for row in rows) < 40


def test_a_score_on_the_choosing_split_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = Probed(monkeypatch).probe("val", fractions=(100,))
    assert result.selected_on == result.split == "val"
    (row,) = result.rows
    assert row.val == pytest.approx(row.test_at_best_val.value) == row.max_test


def test_classes_without_a_positive_to_learn_from_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    probed = Probed(monkeypatch)
    probed.parts["train"].labels[:, 1] = False
    probed.parts["val"].labels[:, 2] = True
    result, _ = probed.probe("val", fractions=(100,))
    assert result.rows[0].absent == ("b",)
    assert (result.classes, result.skipped) == (("a", "b"), ("c",))


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_split_that_can_choose_or_measure_nothing_is_told(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    probed = Probed(monkeypatch)
    probed.parts[part].labels[:] = False
    with pytest.raises(DataError, match=f"no class of ptbxl-super has both outcomes in the split {part}"):
        probed.probe("test", fractions=(100,))


@pytest.mark.parametrize(
    ("split", "fractions", "words"),
    [("train", (100,), "learns from the split train"), ("val", (0,), "1 to 100"), ("val", (), "none")],
)
def test_what_cannot_be_probed_is_refused(
    monkeypatch: pytest.MonkeyPatch, split: str, fractions: tuple[int, ...], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        Probed(monkeypatch).probe(split, fractions=fractions)
    probed = Probed(monkeypatch)
    probed.parts["train"] = problem(60, 0)
    with pytest.raises(UsageError, match="less than one"):
        probed.probe("val", fractions=(1,))
