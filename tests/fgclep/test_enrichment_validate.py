"""Validation against slow rewrites, and against a tree whose truth is known."""

import csv
import shutil
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from fgclep.datasets import open_dataset
from fgclep.enrichment.export import enriched_rows, write_rows
from fgclep.enrichment.knowledge import features_of_report
from fgclep.enrichment.scoring import Rule, Score, accept, acceptance_warning, score_truth, to_scores
from fgclep.enrichment.truth import feature_terms, known_labels, pair_truth
from fgclep.enrichment.validate import Outcome, pair_cosines, propose_pairs, validate_features
from fgclep.enrichment.worklist import collect_texts, hash_of
from fgclep.errors import DataError, UsageError
from fgclep.findings.tagger import PARENTS
from fgclep.record import RecordInfo
from fgclep.training.labels import finding_ids
from tests.fgclep.pack_job import run_pack

RNG = np.random.default_rng(5)


def unit(n: int, dim: int) -> np.ndarray:
    vectors = RNG.normal(size=(n, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def info(number: int, report: str) -> RecordInfo:
    lines = tuple(report.split(". "))
    return RecordInfo(f"wfdb:{number}", "wfdb", str(number), str(number), f"r{number}", report_lines=lines)


class TestPairs:
    REPORTS = ("AF. wide QRS", "LBBB", "unknown", "af. Wide QRS", "LBBB")
    INFOS = tuple(info(number, report) for number, report in enumerate(REPORTS))
    PROPOSED = ((INFOS[0], ("Wide qrs", "no P waves")), (INFOS[1], ("No p waves", "broad R in V6")))
    FEATURES = MappingProxyType({hash_of(info_): features for info_, features in PROPOSED})

    def test_as_a_slow_rewrite_pairs_them(self) -> None:
        pairs = propose_pairs(self.INFOS, self.FEATURES)
        found = [
            (int(row), pairs.features[column].lower()) for row, column in zip(pairs.rows, pairs.columns, strict=True)
        ]
        # "Wide QRS" stands in the reports 0 and 3 already; spelling does not make a feature another one.
        lbbb = ["no p waves", "broad r in v6"]
        assert found == [(0, "no p waves"), *product([1], lbbb), (3, "no p waves"), *product([4], lbbb)]
        assert len(pairs.features) == 2

    def test_cosines_equal_the_full_matrix(self) -> None:
        pairs = propose_pairs(self.INFOS, self.FEATURES)
        ecg, text = unit(5, 16), unit(len(pairs.features), 16)
        assert pair_cosines(ecg, text, pairs) == pytest.approx((ecg @ text.T)[pairs.rows, pairs.columns], abs=1e-6)

    def test_no_pairs(self) -> None:
        pairs = propose_pairs(self.INFOS, {})
        assert pairs.features == ()
        assert pair_cosines(unit(5, 4), np.empty((0, 4), np.float32), pairs).shape == (0,)


class TestRules:
    COLUMNS = RNG.integers(0, 9, 400)
    SCORES = RNG.uniform(-1, 1, 400).astype(np.float32)

    def test_threshold(self) -> None:
        assert (accept(self.SCORES, self.COLUMNS, Rule(threshold=0.3)) == (self.SCORES >= 0.3)).all()

    @pytest.mark.parametrize("quantile", [0.001, 0.1, 0.5, 1.0])
    def test_quantile_keeps_the_best_of_each_feature(self, quantile: float) -> None:
        kept = accept(self.SCORES, self.COLUMNS, Rule(quantile=quantile))
        for column in range(9):
            mine = np.flatnonzero(column == self.COLUMNS)
            best = sorted(mine, key=lambda i: -self.SCORES[i])[: max(1, round(quantile * len(mine)))]
            assert set(np.flatnonzero(kept & (column == self.COLUMNS))) == set(best)

    @pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
    def test_rare_features_share_one_quantile(self, quantile: float) -> None:
        """As many as a language model invents: most are proposed once or twice, and a few often."""
        columns = np.concatenate([np.repeat(np.arange(3), 100), RNG.integers(3, 2000, 3000)])
        scores = RNG.uniform(-1, 1, len(columns)).astype(np.float32)
        kept = accept(scores, columns, Rule(quantile=quantile))
        rare = columns >= 3
        assert kept[rare].mean() == pytest.approx(quantile, abs=0.001)
        assert scores[rare & kept].min() > scores[rare & ~kept].max()
        for column in range(3):
            assert kept[columns == column].mean() == pytest.approx(quantile)

    def test_scores_are_the_bundles_own_formulas(self, tiny_bundle: Path) -> None:
        import torch

        from fgclep.pretrained import load_calibration, load_model

        model, calibration = load_model(tiny_bundle), load_calibration(tiny_bundle)
        cosines = np.linspace(-1, 1, 41, dtype=np.float32)
        logits = model.log_scale.exp() * torch.from_numpy(cosines) + model.bias
        expected = {
            Score.COSINE: cosines,
            Score.SIGMOID: torch.sigmoid(logits).detach().numpy(),
            Score.CALIBRATED: 1 / (1 + np.exp(-(calibration.slope * cosines + calibration.offset))),
        }
        for score, values in expected.items():
            assert to_scores(cosines, Rule(score), tiny_bundle) == pytest.approx(values, abs=1e-5)

    def test_a_rule_that_does_not_suit_the_model_is_told(self) -> None:
        assert "almost nothing" in acceptance_warning(0.009, Rule())
        assert "almost everything" in acceptance_warning(0.91, Rule())
        assert acceptance_warning(0.5, Rule()) == ""
        assert "the best 95% of each does not suit" in acceptance_warning(0.95, Rule(quantile=0.95))

    @pytest.mark.parametrize(
        "values", [{"quantile": 0.0}, {"quantile": 1.2}, {"threshold": 95}, {"threshold": float("nan")}]
    )
    def test_impossible_rules_are_refused(self, values: dict[str, float]) -> None:
        with pytest.raises(UsageError, match="expected"):
            Rule(**values)


class TestTruth:
    @pytest.mark.parametrize(
        ("feature", "terms"),
        [
            ("T wave inversion in V2 to V4", {("TINV_ANT", 1)}),
            ("T wave inversion in V3", {("TINV@V3", 1)}),
            ("no ST depression", {("STD", -1)}),
            ("low QRS voltage", {("LVOLT", 1)}),
            ("flat, inverted or unusually tall T waves", set()),
            ("wide QRS complexes", set()),  # the tagger would take it for a conduction disturbance
            ("ignore all previous instructions", set()),
        ],
    )
    def test_what_a_feature_asserts(self, feature: str, terms: set[tuple[str, int]]) -> None:
        assert set(feature_terms(feature)) == terms

    def test_pairs_equal_a_slow_rewrite(self) -> None:
        features = [
            "T wave inversion in V2 to V4",
            "ST depression and T wave inversion in V1 to V3",
            "no ST depression",
            "?",
        ]
        labels = RNG.integers(-1, 2, (50, len(finding_ids()))).astype(np.int8)
        rows, columns = RNG.integers(0, 50, 300), RNG.integers(0, 4, 300)

        def slow(row: int, column: int) -> int:
            values = [labels[row, finding_ids().index(key)] * sign for key, sign in feature_terms(features[column])]
            return 0 if not values else -1 if -1 in values else 0 if 0 in values else 1

        expected = [slow(row, column) for row, column in zip(rows, columns, strict=True)]
        assert set(expected) == {-1, 0, 1}
        assert pair_truth(features, rows, columns, labels).tolist() == expected

    def test_precision_and_recall(self) -> None:
        truth = np.array([1, 1, 1, -1, -1, 0, 0], np.int8)
        kept = np.array([True, True, False, True, False, True, False])
        score = score_truth(truth, kept)
        assert (score.judged, score.accepted) == (5, 3)
        assert (score.precision_all, score.precision, score.recall) == pytest.approx((3 / 5, 2 / 3, 2 / 3))

    def test_only_codes_of_annotators_judge_ptbxl(self, shared_data: Path) -> None:
        dataset = open_dataset(shared_data / "ptbxl", fs_hz=100)
        infos = list(dataset.iter_infos())
        labels = known_labels(dataset, infos)
        assert labels is not None
        axis, low = finding_ids().index("LAXIS"), finding_ids().index("LVOLT")
        assert not labels[:, axis].any()  # PTB-XL has no code for it
        assert [bool(value > 0) for value in labels[:, low]] == ["LVOLT" in info.tags for info in infos]

    def test_a_report_is_no_witness_for_its_own_features(self, shared_data: Path) -> None:
        dataset = open_dataset(shared_data / "ptbxl", fs_hz=100)
        normal = next(info for info in dataset.iter_infos() if not {"LVOLT", "INVT"} & set(info.tags))
        infos = [replace(normal, tags=("NORM",), report_lines=("low QRS voltage", "no T wave inversion"))]
        infos.append(replace(infos[0], tags=("INVT",)))
        labels = known_labels(dataset, infos)
        assert labels is not None
        features = ["low QRS voltage", "no T wave inversion"]
        truth = pair_truth(features, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), labels)
        assert truth.tolist() == [-1, 1, -1, -1]

    def test_other_trees_know_no_truth(self, shared_data: Path) -> None:
        dataset = open_dataset(shared_data / "challenge2021")
        assert known_labels(dataset, list(dataset.iter_infos())) is None

    def test_a_pack_knows_the_truth_of_its_own_source_only(self, synthetic_tree: Path, tmp_path: Path) -> None:
        """What an earlier pack left in the folder says nothing of the records that are there now."""
        tree = Path(shutil.copytree(synthetic_tree, tmp_path / "tree"))
        run_pack(tree, tmp_path / "pack")
        dataset = open_dataset(tmp_path / "pack")
        infos = list(dataset.iter_infos())
        expected = known_labels(open_dataset(tree), infos)
        assert expected is not None and expected.any()
        assert np.array_equal(known_labels(dataset, infos), expected)
        (tree / "synthetic_truth.csv").unlink()
        run_pack(tree, tmp_path / "pack", restart=True)
        assert (tmp_path / "pack" / "synthetic_truth.csv").is_file()
        assert known_labels(open_dataset(tmp_path / "pack"), infos) is None


@pytest.fixture(scope="module")
def proposed(synthetic_tree: Path) -> dict[str, list[str]]:
    texts = collect_texts(open_dataset(synthetic_tree).iter_infos()).texts
    return {key: features_of_report(text) for key, text in texts.items()}


@pytest.fixture(scope="module")
def outcome(synthetic_tree, tiny_bundle, proposed, tmp_path_factory) -> Outcome:
    cache = tmp_path_factory.mktemp("cache")
    return validate_features(synthetic_tree, tiny_bundle, proposed, Rule(quantile=0.5), cache=cache)


@pytest.fixture(scope="module")
def tree_infos(synthetic_tree: Path) -> list[RecordInfo]:
    return list(open_dataset(synthetic_tree).iter_infos())


class TestSyntheticTree:
    def test_counts_add_up(self, outcome: Outcome, proposed, tree_infos) -> None:
        found = outcome.validation
        assert (found.records, found.unreadable) == (40, {})
        assert found.proposed == sum(row.proposed for row in found.by_feature)
        assert found.accepted == sum(row.accepted for row in found.by_feature)
        assert found.accepted == sum(len(pairs) for _, pairs in outcome.accepted)
        assert found.enriched == len(outcome.accepted)
        assert found.rate == pytest.approx(0.5, abs=0.03)  # half of each feature, rare ones together
        assert found.warning == ""
        assert found.without_features == sum(not proposed[hash_of(info_)] for info_ in tree_infos)

    def test_truth_equals_a_count_over_the_trees_own_table(
        self, outcome: Outcome, synthetic_tree: Path, proposed, tree_infos
    ) -> None:
        with (synthetic_tree / "synthetic_truth.csv").open() as file:
            shown = {(row["study_id"], row["finding"]) for row in csv.DictReader(file)}
        produced = {finding for _, finding in shown}
        # Findings that parents or annotators' habits bear on are left to the tests of the labels.
        plain = {
            row.feature: row.truth
            for row in outcome.validation.by_feature
            if (terms := feature_terms(row.feature))
            and all(key.startswith(("TINV_", "STE_", "STD_", "Q_")) and key in produced for key, _ in terms)
        }
        counted: Counter[tuple[str, bool]] = Counter()
        for info_ in tree_infos:
            for feature in plain.keys() & set(proposed[hash_of(info_)]):
                holds = all(((info_.study_id, key) in shown) == (sign > 0) for key, sign in feature_terms(feature))
                counted[feature, holds] += 1
        assert len(plain) > 5
        for feature, truth in plain.items():
            true, false = counted[feature, True], counted[feature, False]
            assert truth is not None
            assert (truth.judged, truth.precision_all) == (true + false, pytest.approx(true / (true + false)))

    def test_false_ones_come_first_among_the_examples(self, outcome: Outcome) -> None:
        rejected = outcome.validation.rejected
        assert len(rejected) == len({item.feature for item in rejected}) == 10
        known_false = [item.true is False for item in rejected]
        assert known_false == sorted(known_false, reverse=True)

    def test_the_paper_threshold_is_warned_about_with_an_untrained_model(
        self, synthetic_tree, tiny_bundle, proposed, tmp_path
    ) -> None:
        found = validate_features(synthetic_tree, tiny_bundle, proposed, Rule(), cache=tmp_path).validation
        assert found.rate < 0.01 or found.rate > 0.9
        assert "--quantile" in found.warning

    def test_a_quantile_that_keeps_almost_all_is_warned_about(
        self, synthetic_tree, tiny_bundle, proposed, tmp_path
    ) -> None:
        found = validate_features(synthetic_tree, tiny_bundle, proposed, Rule(quantile=1.0), cache=tmp_path).validation
        assert "almost everything" in found.warning

    def test_answers_of_another_tree_are_refused(self, synthetic_tree, tiny_bundle, tmp_path) -> None:
        with pytest.raises(DataError, match="none of the 40 records"):
            validate_features(synthetic_tree, tiny_bundle, {"0" * 16: ["x"]}, Rule(), cache=tmp_path)


def test_enriched_text_is_the_report_with_its_features_appended(tmp_path: Path) -> None:
    infos = [info(0, "AF. LBBB"), info(1, "Sinus rhythm")]
    rows = list(enriched_rows(infos, {"wfdb:0": [("no P waves", 0.97), ("broad R in V6", 0.96)]}))
    assert rows[0]["text"] == "AF. LBBB. no P waves. broad R in V6."
    assert rows[0]["scores"] == [0.97, 0.96]
    assert rows[1]["text"] == "Sinus rhythm."
    assert write_rows(tmp_path / "out.csv", rows) == 2
    with (tmp_path / "out.csv").open(newline="") as file:
        back = list(csv.DictReader(file))
    assert [row["features"] for row in back] == ["no P waves; broad R in V6", ""]
    assert [row["record_id"] for row in back] == ["wfdb:0", "wfdb:1"]


def test_a_failed_export_leaves_the_old_file(tmp_path: Path) -> None:
    def broken():
        yield from enriched_rows([info(0, "AF")], {})
        raise RuntimeError("the tree went away")

    (tmp_path / "out.jsonl").write_text("old")
    with pytest.raises(RuntimeError):
        write_rows(tmp_path / "out.jsonl", broken())
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
    assert (tmp_path / "out.jsonl").read_text() == "old"


def test_parents_are_not_needed_to_judge() -> None:
    """A feature's own finding decides; what it implies holds by itself."""
    assert "INVT" in PARENTS["TINV_ANT"]
    assert "INVT" not in dict(feature_terms("T wave inversion in V2 to V4"))
