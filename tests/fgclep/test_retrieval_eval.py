"""Retrieval measured against brute force: over all orders of tied records, and by models whose numbers are known."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fgclep.datasets.synthetic import generate
from fgclep.errors import DataError, UsageError
from fgclep.evaluation.compound_queries import TEMPLATES, compound_queries
from fgclep.evaluation.embeddings import Embedded
from fgclep.evaluation.encoders import Encoder
from fgclep.evaluation.label_retrieval import label_retrieval
from fgclep.evaluation.lead_queries import lead_queries
from fgclep.evaluation.paraphrases import HELD_OUT, LEAST_PHRASINGS, SEEN, paraphrases
from fgclep.evaluation.ranking import FirstRelevant, bootstrap_rank_metrics, first_relevant, rank_metrics
from fgclep.evaluation.report_retrieval import report_retrieval
from fgclep.evaluation.retrieval import open_model
from fgclep.evaluation.retrievers import dense_retriever
from fgclep.evaluation.search_set import SearchSet, open_search_set
from fgclep.evaluation.text_search import TASKS
from fgclep.findings.catalog import LEAD_KINDS, findings
from fgclep.record import RecordInfo

TIED = st.lists(st.tuples(st.booleans(), st.integers(0, 2)), min_size=2, max_size=6).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


def arrays(rows: list[tuple[bool, int]]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    labels, scores = zip(*rows, strict=True)
    return np.array(labels, bool), np.array(scores, np.float32)


def over_all_orders(labels: NDArray[np.bool_], scores: NDArray[np.float32], value: Callable[[Any], float]) -> float:
    """Mean of a value of the ranked labels over every order of the records that respects the scores."""
    values = []
    for order in permutations(range(len(labels))):
        ranked = scores[list(order)]
        if (ranked[1:] <= ranked[:-1]).all():
            values.append(value(labels[list(order)]))
    return float(np.mean(values))


@given(TIED)
@settings(max_examples=60, deadline=None)
def test_counts_are_expected_values_over_all_orders_of_tied_records(rows: list[tuple[bool, int]]) -> None:
    labels, scores = arrays(rows)
    found = rank_metrics(labels, scores)
    for k in (1, 5, 10):
        expected = over_all_orders(labels, scores, lambda ranked, k=k: ranked[:k].mean())
        assert found[f"precision_at_{k}"][0] == pytest.approx(expected)
    positives = labels.sum()
    expected = over_all_orders(labels, scores, lambda ranked: ranked[:positives].mean())
    assert found["r_precision"][0] == pytest.approx(expected)


@given(TIED, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_the_rows_changes_nothing(rows: list[tuple[bool, int]], random: Any) -> None:
    labels, scores = arrays(rows)
    order = list(range(len(rows)))
    random.shuffle(order)
    one, other = rank_metrics(labels, scores), rank_metrics(labels[order], scores[order])
    assert {name: value[0] for name, value in one.items()} == pytest.approx({n: v[0] for n, v in other.items()})


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_scikit_learns(seed: int) -> None:
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(seed)
    labels, scores = rng.random(80) < 0.2, rng.integers(0, 12, 80).astype(np.float32)
    found = rank_metrics(labels, scores)["average_precision"][0]
    assert found == pytest.approx(average_precision_score(labels, scores))


def test_weights_count_like_copies_of_records() -> None:
    rng = np.random.default_rng(5)
    labels, scores = rng.random(50) < 0.3, rng.integers(0, 20, 50).astype(np.float32)
    weights = rng.integers(0, 4, (6, 50)).astype(float)
    weights[5] = ~labels  # a draw without positives
    drawn = rank_metrics(labels, scores, weights)
    for d in range(5):
        rows = np.repeat(np.arange(50), weights[d].astype(int))
        for name, value in rank_metrics(labels[rows], scores[rows]).items():
            assert drawn[name][d] == pytest.approx(value[0])
    assert all(np.isnan(values[5]) for values in drawn.values())


def test_intervals_hold_the_value_and_come_from_subjects() -> None:
    rng = np.random.default_rng(1)
    labels = rng.random((120, 2)) < 0.3
    scores = (labels + rng.normal(0, 1, labels.shape)).astype(np.float32)
    subjects = tuple(str(number // 3) for number in range(120))
    macro, rows = bootstrap_rank_metrics(labels, scores, subjects, 100, 0)
    assert (macro, rows) == bootstrap_rank_metrics(labels, scores, subjects, 100, 0)
    plain, _ = bootstrap_rank_metrics(labels, scores, subjects, 0, 0)
    for name, found in macro.items():
        assert found.low < found.value < found.high
        assert np.isnan(plain[name].low)
        assert found.value == pytest.approx(np.mean([row[name].value for row in rows]))
    one_person, _ = bootstrap_rank_metrics(labels, scores, ("same",) * 120, 20, 0)
    found = one_person["average_precision"]
    assert found.low == found.high == pytest.approx(found.value), "resampling one subject draws the same records"


@given(st.integers(0, 2), st.integers(1, 4), st.data())
@settings(max_examples=60, deadline=None)
def test_the_first_relevant_of_tied_items_is_an_expected_value(above: int, tied: int, data: Any) -> None:
    relevant = data.draw(st.integers(1, tied))
    first = FirstRelevant(np.array([above]), np.array([tied]), np.array([relevant]))
    labels = np.array([False] * above + [True] * relevant + [False] * (tied - relevant))
    scores = np.array([1] * above + [0] * tied, np.float32)
    if above:  # items above are in no order either, which is the same for all metrics
        scores[:above] += np.arange(above)
    for k in (1, 2, 5):
        expected = over_all_orders(labels, scores, lambda ranked, k=k: float(ranked[:k].any()))
        assert first.hit_at(k)[0] == pytest.approx(expected)
    expected = over_all_orders(labels, scores, lambda ranked: 1 / (1 + int(np.argmax(ranked))))
    assert first.reciprocal_rank()[0] == pytest.approx(expected)


def test_the_first_relevant_is_found_as_by_a_slow_search() -> None:
    rng = np.random.default_rng(0)
    similarity = rng.integers(0, 6, (300, 40)).astype(np.float32)
    groups, wanted = rng.integers(0, 8, 40), rng.integers(0, 8, 300)
    groups[:8] = np.arange(8)  # no group is empty
    first = first_relevant(lambda rows: similarity[rows], wanted, groups)
    for q in range(300):
        best = max(s for s, g in zip(similarity[q], groups, strict=True) if g == wanted[q])
        assert first.above[q] == sum(s > best for s in similarity[q])
        assert first.tied[q] == sum(s == best for s in similarity[q])
        assert first.relevant[q] == sum(
            s == best and g == wanted[q] for s, g in zip(similarity[q], groups, strict=True)
        )


# Sets of records made by hand, searched by scorers that know or misread every text.


def make_set(
    labels: NDArray[np.bool_], classes: Sequence[str], reports: Sequence[str] = (), known: bool = True
) -> SearchSet:
    """Records of as many subjects; classes are findings of the catalogue."""
    lines = [(report,) if report else () for report in (reports or [""] * len(labels))]
    return SearchSet(
        name="made",
        split="all",
        source="by hand",
        dataset=cast(Any, SimpleNamespace(kind="made")),
        infos=tuple(
            RecordInfo(f"made:{i}", "made", subject_id=str(i), study_id=str(i), path=str(i), report_lines=lines[i])
            for i in range(len(labels))
        ),
        classes=tuple(classes),
        texts=tuple(findings()[key].name for key in classes),
        findings=tuple(key if known else None for key in classes),
        labels=labels,
        listed=len(labels),
        missing=0,
        unlabelled=0,
    )


def deaf(n: int) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    return lambda texts: np.zeros((n, len(texts)), np.float32)


def test_a_perfect_model_is_perfect_and_a_deaf_one_is_chance() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random((60, 4)) < 0.3
    labels[:, 3] = False
    records = make_set(labels, ("AFIB", "SR", "LVH", "CLBBB"))
    truth = dict(zip(records.texts, labels.T, strict=True))
    perfect, scored = label_retrieval(
        records, lambda texts: np.stack([truth[t] for t in texts], 1).astype(np.float32), draws=10, seed=0
    )
    assert perfect.skipped == ("CLBBB",)
    assert scored.classes == ("AFIB", "SR", "LVH")
    for name, found in perfect.macro.items():
        assert found.value == pytest.approx(perfect.best.get(name, 1.0))
    chance, _ = label_retrieval(records, deaf(60), draws=0, seed=0)
    assert chance.chance == pytest.approx(labels[:, :3].mean())
    assert all(found.value == pytest.approx(chance.chance) for found in chance.macro.values())


class TestReports:
    REPORTS = ("sinus rhythm", "Sinus rhythm.", "atrial fibrillation", "sinus  rhythm", "", "LBBB")

    def score(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Know the words, as far as they can be known."""
        same = [[self.same(report, text) for text in texts] for report in self.REPORTS]
        return np.array(same, np.float32)

    @staticmethod
    def same(report: str, text: str) -> bool:
        return report.lower().rstrip(".").split() == text.lower().rstrip(".").split()

    def test_equal_reports_are_found_and_the_own_pair_only_as_often_as_can_be(self) -> None:
        records = make_set(np.zeros((6, 1), bool), ("SR",), self.REPORTS)
        found = report_retrieval(records, self.score, draws=0, seed=0)
        assert found is not None
        assert (found.queries, found.without_report, found.distinct, found.largest) == (5, 1, 3, 3)
        for direction in (found.report_to_ecg, found.ecg_to_report):
            assert all(value.value == pytest.approx(1) for value in direction.equal.values())
            assert {k: v.value for k, v in direction.own.items()} == pytest.approx(direction.own_best)
            assert direction.own_best["recall_at_1"] == pytest.approx((3 * (1 / 3) + 1 + 1) / 5)
            assert direction.own_best["recall_at_5"] == 1
            assert direction.own_best["mrr"] == pytest.approx((3 * (1 + 1 / 2 + 1 / 3) / 3 + 2) / 5)
            assert direction.own_chance["recall_at_1"] == pytest.approx(1 / 5)
            assert direction.equal_chance["recall_at_1"] == pytest.approx((3 * 3 + 1 + 1) / 25)

    def test_a_deaf_model_is_chance(self) -> None:
        records = make_set(np.zeros((6, 1), bool), ("SR",), self.REPORTS)
        found = report_retrieval(records, deaf(6), draws=20, seed=0)
        assert found is not None
        for direction in (found.report_to_ecg, found.ecg_to_report):
            assert {k: v.value for k, v in direction.equal.items()} == pytest.approx(direction.equal_chance)
            assert {k: v.value for k, v in direction.own.items()} == pytest.approx(direction.own_chance)
            assert direction.equal["mrr"].low < direction.equal["mrr"].high

    def test_random_scores_agree_with_a_slow_count(self) -> None:
        rng = np.random.default_rng(3)
        reports = [f"report {number}" for number in rng.integers(0, 12, 40)]
        distinct = list(dict.fromkeys(reports))
        similar = rng.integers(0, 50, (40, 12)).astype(np.float32) + np.arange(40)[:, None] / 100
        records = make_set(np.zeros((40, 1), bool), ("SR",), reports)
        position = {f"{text}.": column for column, text in enumerate(distinct)}
        found = report_retrieval(records, lambda texts: similar[:, [position[t] for t in texts]], draws=0, seed=0)
        assert found is not None
        hits, ranks = [], []
        for report in reports:  # report -> ECG: all scores of a text differ, so there is one order
            ranked = np.argsort(-similar[:, distinct.index(report)])
            relevant = [reports[row] == report for row in ranked]
            hits.append(any(relevant[:5]))
            ranks.append(1 / (1 + relevant.index(True)))
        assert found.report_to_ecg.equal["recall_at_5"].value == pytest.approx(np.mean(hits))
        assert found.report_to_ecg.equal["mrr"].value == pytest.approx(np.mean(ranks))

    def test_one_report_for_all_is_no_search(self) -> None:
        assert report_retrieval(make_set(np.zeros((3, 1), bool), ("SR",), ["a"] * 3), deaf(3), draws=0, seed=0) is None


class TestCompound:
    CLASSES = ("AFIB", "LVH", "CLBBB")

    def records(self) -> SearchSet:
        labels = np.random.default_rng(2).random((400, 3)) < 0.5
        labels[:, 2] = labels[:, 0] & (np.arange(400) % 2 == 0)  # implies the first
        return make_set(labels, self.CLASSES)

    def test_a_model_that_reads_every_word_is_perfect(self) -> None:
        records = self.records()
        truth: dict[str, NDArray[np.bool_]] = dict(zip(records.texts, records.labels.T, strict=True))
        for a, first in zip(records.texts, records.labels.T, strict=True):
            truth[TEMPLATES["no"].format(a=a)] = ~first
            for b, second in zip(records.texts, records.labels.T, strict=True):
                truth[TEMPLATES["and"].format(a=a, b=b)] = first & second
                truth[TEMPLATES["without"].format(a=a, b=b)] = first & ~second
        found = compound_queries(records, lambda texts: np.stack([truth[t] for t in texts], 1).astype(np.float32))
        assert set(found.count) == {"and", "without", "no"}
        for query in found.queries:
            assert (query.ways["text"].average_precision, query.ways["text"].auc_near_misses) == (1, 1)
            assert query.ways["algebra"].auc == 1
            if query.kind != "no":
                assert query.ways["first alone"].auc_near_misses < 1

    def test_a_model_that_counts_mentions_takes_a_negation_for_its_opposite(self) -> None:
        records = self.records()

        def mentions(texts: Sequence[str]) -> NDArray[np.float32]:
            named = np.array([[text in asked for asked in texts] for text in records.texts], np.float32)
            return (records.labels @ named).astype(np.float32)

        found = compound_queries(records, mentions)
        assert found.mean["and"]["text"].auc_near_misses == 1
        assert found.mean["without"]["text"].auc_near_misses == 0
        assert found.mean["no"]["text"].auc == 0
        assert found.mean["without"]["first alone"].auc_near_misses == 0.5
        assert found.mean["without"]["algebra"].auc_near_misses == 1

    def test_relevance_is_counted_from_the_labels(self) -> None:
        records = self.records()
        names = list(self.CLASSES)
        for query in compound_queries(records, deaf(400)).queries:
            first = records.labels[:, names.index(query.first)]
            assert all(way.auc == way.auc_near_misses == 0.5 for way in query.ways.values())
            if query.second is None:
                assert query.positives == (~first).sum()
                continue
            second = records.labels[:, names.index(query.second)]
            relevant = first & second if query.kind == "and" else first & ~second
            assert query.positives == relevant.sum() >= 10
            assert query.ways["text"].average_precision == pytest.approx(query.prevalence) == relevant.mean()
            assert min((first & second).sum(), (first & ~second).sum(), (~first & second).sum()) >= 10
            assert {query.first, query.second} != {"AFIB", "CLBBB"}, "one implies the other"

    def test_nothing_to_join_is_no_query(self) -> None:
        assert compound_queries(make_set(np.ones((5, 1), bool), ("SR",)), deaf(5)).queries == ()


class TestLeads:
    def records(self) -> SearchSet:
        rng = np.random.default_rng(4)
        labels = rng.random((200, 3)) < 0.4
        return make_set(labels, ("TINV@V4", "TINV@II", "AFIB"))

    def test_reading_the_lead_is_told_from_seeing_the_finding(self) -> None:
        records = self.records()
        inverted = records.labels[:, :2].any(axis=1)
        truth = dict(zip(records.texts, records.labels.T, strict=True)) | {LEAD_KINDS["TINV"][0]: inverted}
        found = lead_queries(records, lambda texts: np.stack([truth[t] for t in texts], 1).astype(np.float32))
        assert found is not None
        assert [query.finding for query in found.queries] == ["TINV@V4", "TINV@II"]
        assert found.mean["auc_elsewhere"] == found.mean["average_precision"] == 1
        assert found.mean["auc_elsewhere_without_lead"] == 0.5
        assert found.by_kind == {"TINV": found.mean}
        blind = lead_queries(records, lambda texts: np.repeat(inverted[:, None], len(texts), 1).astype(np.float32))
        assert blind is not None
        assert blind.mean["auc"] > 0.7, "it finds inverted T waves"
        assert blind.mean["auc_elsewhere"] == 0.5, "but in no lead in particular"
        assert blind.mean["average_precision"] == pytest.approx(blind.mean["prevalence"])

    def test_counts_are_those_of_the_truth(self) -> None:
        records = self.records()
        found = lead_queries(records, deaf(200))
        assert found is not None
        here, elsewhere = records.labels[:, 0], records.labels[:, 1] & ~records.labels[:, 0]
        assert (found.queries[0].positives, found.queries[0].elsewhere) == (here.sum(), elsewhere.sum())

    def test_sets_without_leads_have_no_such_queries(self) -> None:
        records = make_set(np.random.default_rng(0).random((60, 1)) < 0.5, ("AFIB",))
        assert lead_queries(records, deaf(60)) is None


class TestParaphrases:
    def records(self) -> SearchSet:
        labels = np.zeros((60, 2), bool)
        labels[:20, 0] = labels[15:40, 1] = True
        return make_set(labels, ("AFIB", "SR"))

    def test_losses_are_means_over_findings_and_kinds(self) -> None:
        records = self.records()
        truth = {}
        for column, key in enumerate(records.classes):
            finding = findings()[key]
            known = records.labels[:, column].astype(np.float32)
            truth |= {wording.text: known for wording in (*finding.wordings, *finding.held_out)}
            if key == "AFIB":  # descriptions never trained on are taken for the opposite
                truth |= {wording.text: -known for wording in finding.held_out if wording.kind == "criteria"}
        found = paraphrases(records, lambda texts: np.stack([truth[text] for text in texts], 1))
        assert found is not None
        assert (found.plain_auc, found.plain_average_precision) == (1, 1)
        assert found.drop[SEEN]["all"].auc == found.drop[SEEN]["all"].worst_auc == 0
        assert found.drop[HELD_OUT]["criteria"].auc == pytest.approx(1 / 2), "one of two findings loses everything"
        assert found.drop[HELD_OUT]["synonym"].auc == 0
        kinds = [wording.kind for wording in findings()["AFIB"].held_out]
        assert found.drop[HELD_OUT]["all"].auc == pytest.approx(kinds.count("criteria") / len(kinds) / 2)
        assert found.drop[HELD_OUT]["all"].worst_auc == pytest.approx(1 / 2)
        assert found.drop[HELD_OUT]["criteria"].average_precision > 0.2

    def test_seen_and_held_out_phrasings_are_the_catalogues(self) -> None:
        found = paraphrases(self.records(), deaf(60))
        assert found is not None
        for result in found.findings:
            finding = findings()[result.finding]
            assert [other.text for other in result.group(True)] == [w.text for w in finding.wordings[1:]]
            assert [other.text for other in result.group(False)] == [w.text for w in finding.held_out]

    def test_every_statement_can_be_asked_in_enough_words(self) -> None:
        for key in TASKS["all"]:
            assert len(findings()[key].wordings) + len(findings()[key].held_out) >= LEAST_PHRASINGS, key

    def test_classes_that_are_no_finding_are_named(self) -> None:
        records = replace(self.records(), findings=("AFIB", None))
        found = paraphrases(records, deaf(60))
        assert found is not None
        assert found.unnamed == ("SR",)
        assert paraphrases(make_set(records.labels, records.classes, known=False), deaf(60)) is None


def test_a_dense_search_gives_the_cosines_in_the_order_asked() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(9, 4)).astype(np.float32)
    known = {text: rng.normal(size=4).astype(np.float32) for text in "abc"}
    asked: list[str] = []

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        asked.extend(texts)
        return np.stack([known[text] for text in texts])

    encoder = SimpleNamespace(name="x", fingerprint="0", encode_text=encode)
    scores = dense_retriever(cast(Any, encoder), vectors).score(["b", "a", "b"])
    assert asked == ["b", "a"], "a text is encoded once"
    np.testing.assert_allclose(scores, np.stack([vectors @ known[text] for text in "bab"], 1), atol=1e-6)
    assert (scores[:, 0] == scores[:, 2]).all()


class TestSearchSets:
    def test_a_synthetic_tree_has_the_generators_truth(self, synthetic_tree: Path) -> None:
        records = open_search_set("synthetic", synthetic_tree, fs_hz=100)
        made = {ecg.record.info.study_id: set(ecg.truth) for ecg in generate(11, 40, fs_hz=100)}
        assert (len(records.infos), records.listed, records.missing, records.split) == (40, 40, 0, "all")
        for key in ("AFIB", "CLBBB", "TINV@V4", "SR"):
            if key in records.classes:
                column = records.labels[:, records.classes.index(key)]
                assert [key in made[info.study_id] for info in records.infos] == column.tolist()
        assert any("@" in name for name in records.classes)
        lead_columns = records.columns(by_lead=True)
        assert {records.classes[c].partition("@")[0] for c in lead_columns} <= set(LEAD_KINDS)
        assert not set(lead_columns) & set(records.columns())

    def test_what_a_model_knew_of_the_generator_is_told(self, synthetic_tree: Path, tiny_bundle: Path) -> None:
        def embed(encoder: Encoder, dataset: object, infos: Sequence[RecordInfo]) -> Embedded:
            return Embedded(np.zeros((len(infos), 4), np.float32), np.arange(len(infos)), {})

        _, random, _ = open_model(f"random:{tiny_bundle}", "synthetic", synthetic_tree, None, embed=embed)
        assert random.in_domain is False
        _, unknown, _ = open_model(str(tiny_bundle), "synthetic", synthetic_tree, None, embed=embed)
        assert unknown.in_domain is None

    def test_findings_by_lead_are_never_skipped_for_want_of_positives(self) -> None:
        labels = np.zeros((20, 3), bool)
        labels[:7, 1] = True
        records = make_set(labels, ("AFIB", "SR", "TINV@V4"))
        assert records.skipped() == ("AFIB",)
        assert records.skipped(7) == ("AFIB",)
        assert records.skipped(8) == ("AFIB", "SR")

    def test_leaving_records_out_keeps_rows_together(self, synthetic_tree: Path) -> None:
        records = open_search_set("synthetic", synthetic_tree, fs_hz=100)
        kept = records.keep(np.array([3, 7]))
        assert [info.record_id for info in kept.infos] == [records.infos[row].record_id for row in (3, 7)]
        assert (kept.labels == records.labels[[3, 7]]).all()

    def test_all_statements_of_real_records(self, shared_data: Path) -> None:
        records = open_search_set("ptbxl-all", shared_data / "ptbxl", fs_hz=100)
        assert records.classes == TASKS["all"] == records.findings
        assert records.listed == 2193
        assert records.listed == records.missing + len(records.infos)
        assert {info.fold for info in records.infos} == {9}
        column = records.classes.index("AFIB")
        assert records.labels[:, column].tolist() == ["AFIB" in info.tags for info in records.infos]

    def test_a_benchmark_serves_and_its_classes_are_findings_where_they_can_be(self, shared_data: Path) -> None:
        records = open_search_set("ptbxl-rhythm", shared_data / "ptbxl", "val", fs_hz=100)
        known = dict(zip(records.classes, records.findings, strict=True))
        assert known["AFIB"] == "AFIB"
        assert set(known.values()) - {None} <= set(findings())

    @pytest.mark.parametrize(
        ("name", "split", "error"),
        [("ptbxl", None, UsageError), ("synthetic", "val", UsageError), ("ptbxl-all", None, DataError)],
    )
    def test_what_does_not_fit_is_refused(
        self, synthetic_tree: Path, name: str, split: Any, error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            open_search_set(name, synthetic_tree, split, fs_hz=100)

    def test_a_tree_without_truth_is_refused(self, shared_data: Path) -> None:
        with pytest.raises(DataError, match=r"synthetic_truth\.csv"):
            open_search_set("synthetic", shared_data / "ptbxl", fs_hz=100)
