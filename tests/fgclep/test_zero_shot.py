"""Zero-shot evaluation of a made-up encoder whose answers can be recomputed by hand."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from fgclep.errors import DataError, FgclepError, NotSetUpError, UsageError
from fgclep.evaluation.benchmark_ptbxl import CODES
from fgclep.evaluation.benchmarks import BENCHMARKS, BenchmarkSplit, benchmark
from fgclep.evaluation.domain import trained_in_domain
from fgclep.evaluation.embeddings import Embedded
from fgclep.evaluation.prompts import PROMPT_KINDS, prompts_for
from fgclep.evaluation.results import Scored, plain
from fgclep.evaluation.text_search import TASKS
from fgclep.evaluation.zero_shot import best_thresholds, evaluate_zero_shot
from fgclep.findings.catalog import findings
from fgclep.record import RecordInfo

CLASSES = ("A", "B", "NEVER", "D")
PROMPTS = {"A": ("one",), "B": ("two", "three", "one"), "NEVER": ("four",), "D": ("five",)}


class FakeEncoder:
    """Gives every text a vector of its own, drawn from the text."""

    name, fingerprint, joint, fs_hz, feature_dim = "fake", "0123456789abcdef", True, 100.0, 8

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        rows = [np.random.default_rng(list(text.encode())).normal(size=8) for text in texts]
        return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)


def make_split(seed: int, n: int = 80) -> tuple[BenchmarkSplit, Embedded]:
    """Records of fewer subjects, in which `NEVER` never happens; two of them cannot be read."""
    rng = np.random.default_rng(seed)
    infos = [RecordInfo(f"x:{i}", "x", f"s{i // 2}", str(i), str(i)) for i in range(n)]
    labels = rng.random((n, 4)) < [0.3, 0.5, 0.0, 0.1]
    labels[:4, 3] = True, False, True, False
    split = BenchmarkSplit("made-up", "val", SimpleNamespace(), CLASSES, infos, labels, n + 5, 3, 2, "nowhere")
    kept = np.delete(np.arange(n), [5, 9])
    vectors = rng.normal(size=(n - 2, 8)) + labels[kept] @ FakeEncoder().encode_text(["one", "two", "four", "five"])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return split, Embedded(vectors.astype(np.float32), kept, {"nan": 1, "flat": 1})


def evaluate(seed: int, **options):
    split, embedded = make_split(seed)
    encoder = FakeEncoder()
    result, scored = evaluate_zero_shot(
        encoder, split, PROMPTS, prompts_name="own", embed=lambda *_: embedded, draws=20, **options
    )
    return split, embedded, encoder, result, scored


def test_a_class_scores_its_best_text() -> None:
    split, embedded, encoder, _, scored = evaluate(0)
    for row in (0, 17, 77):
        for column, name in enumerate(CLASSES):
            cosines = [float(embedded.vectors[row] @ encoder.encode_text([text])[0]) for text in PROMPTS[name]]
            assert scored.scores[row, column] == pytest.approx(max(cosines), abs=1e-6)
    assert np.array_equal(scored.labels, split.labels[embedded.kept])
    assert scored.record_ids[5] == "x:6" and scored.subject_ids[5] == "s3"


def test_numbers_equal_scikit_learn() -> None:
    _, _, _, result, scored = evaluate(1)
    assert [row.name for row in result.classes] == ["A", "B", "D"] and result.skipped == ("NEVER",)
    prevalences = []
    for row in result.classes:
        labels, scores = (array[:, CLASSES.index(row.name)] for array in (scored.labels, scored.scores))
        assert row.positives == labels.sum()
        assert row.auc.value == pytest.approx(roc_auc_score(labels, scores))
        assert row.average_precision.value == pytest.approx(average_precision_score(labels, scores))
        assert row.f1 is not None and row.f1.value == pytest.approx(f1_score(labels, scores >= row.threshold))
        assert row.auc.low <= row.auc.value <= row.auc.high
        prevalences.append(labels.mean())
    for metric in ("auc", "average_precision", "f1"):
        assert result.macro[metric].value == pytest.approx(
            np.mean([getattr(row, metric).value for row in result.classes])
        )
    assert result.chance["average_precision"] == pytest.approx(np.mean(prevalences))
    everything = [f1_score(scored.labels[:, c], np.ones(len(scored.labels))) for c in (0, 1, 3)]
    assert result.chance["f1"] == pytest.approx(np.mean(everything)) and result.chance["auc"] == 0.5


def test_records_add_up() -> None:
    result = evaluate(2)[3]
    assert result.listed == result.missing + result.unlabelled + sum(result.rejected.values()) + result.records
    assert (result.records, result.subjects) == (78, 40)
    assert json.loads(json.dumps(plain(result)))["rejected"] == {"nan": 1, "flat": 1}


def test_thresholds_come_from_the_validation_scores_and_say_so() -> None:
    validation = evaluate(3)[4]
    alone, told = evaluate(4)[3], evaluate(4, thresholds_from=validation)[3]
    assert (alone.thresholds, told.thresholds) == ("in-sample", "val")
    expected = best_thresholds(validation)
    assert {row.name: row.threshold for row in told.classes} == expected
    assert told.macro["f1"].value <= alone.macro["f1"].value, "no other threshold beats the one fitted in-sample"
    assert told.macro["auc"] == alone.macro["auc"]


def test_a_class_without_a_threshold_has_no_f1() -> None:
    validation = evaluate(5)[4]
    labels = validation.labels.copy()
    labels[:, 3] = False
    lacking = Scored(labels, validation.scores, CLASSES, validation.record_ids, validation.subject_ids)
    result = evaluate(6, thresholds_from=lacking)[3]
    by_name = {row.name: row for row in result.classes}
    assert by_name["D"].f1 is None and by_name["D"].threshold is None and by_name["D"].auc.value > 0
    rest = [row.f1.value for row in result.classes if row.f1 is not None]
    assert result.macro["f1"].value == pytest.approx(np.mean(rest)) and len(rest) == 2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=20))
def test_the_best_threshold_beats_every_other(pairs: list[tuple[bool, int]]) -> None:
    labels = np.array([[label] for label, _ in pairs])
    scores = np.array([[score] for _, score in pairs], np.float32)
    names = tuple(map(str, range(len(pairs))))
    found = best_thresholds(Scored(labels, scores, ("x",), names, names))
    if labels.all() or not labels.any():
        assert found == {}
        return
    candidates = {float(s): f1_score(labels[:, 0], scores[:, 0] >= s) for s in scores[:, 0]}
    best = max(candidates.values())
    assert found["x"] == max(score for score, value in candidates.items() if value > best - 1e-12)


class TestPrompts:
    @pytest.mark.parametrize("name", BENCHMARKS)
    def test_kinds_build_on_the_plain_name(self, name: str) -> None:
        plain_texts, ensemble, curated = (prompts_for(name, kind) for kind in PROMPT_KINDS)
        for c in benchmark(name).classes:
            (text,) = plain_texts[c]
            assert ensemble[c][0] == curated[c][0] == text
            assert len(set(ensemble[c])) == 13 and f"{text} in lead aVR" in ensemble[c]
            assert 2 <= len({synonym.casefold() for synonym in curated[c]}) == len(curated[c]) <= 5
        assert tuple(plain_texts) == benchmark(name).classes

    def test_no_text_stands_for_two_classes(self) -> None:
        """A shared synonym would make two classes of one benchmark the same question."""
        for name in BENCHMARKS:
            texts = [text.casefold() for texts in prompts_for(name, "curated").values() for text in texts]
            assert len(set(texts)) == len(texts), name

    @pytest.mark.parametrize("name", [name for name in BENCHMARKS if name.startswith("ptbxl")])
    def test_ptbxl_names_are_those_that_the_card_asks_by(self, name: str) -> None:
        """So that this command and the scores on a bundle's card ask the same questions.

        The one exception is TAB: the card asks for what no other statement covers, papers for the category's own text.
        """
        task = name.removeprefix("ptbxl-")
        own = {codes: prompts_for(name, "plain")[c][0] for c, codes in CODES[task].items()}
        for key in TASKS[task]:
            codes = frozenset(("PRC",) if key == "PRC" else findings()[key].scp)
            if codes != {"TAB"}:
                assert own[codes] == findings()[key].name

    @pytest.mark.parametrize("name", BENCHMARKS)
    def test_the_published_file_is_read_as_its_authors_do(self, name: str, shared_data: Path) -> None:
        file = shared_data / "splits" / "CKEPE_prompt.json"
        texts = json.loads(file.read_text(encoding="utf-8"))
        assert prompts_for(name, str(file)) == {c: (texts[c].lower(),) for c in benchmark(name).classes}

    def test_a_file_may_list_several_texts(self, tmp_path: Path) -> None:
        file = tmp_path / "own.json"
        texts = dict.fromkeys(benchmark("ptbxl-super").classes, "Any") | {"MI": ["STEMI", "old infarct"]}
        file.write_text(json.dumps(texts | {"not-a-class": 3}), encoding="utf-8")
        prompts = prompts_for("ptbxl-super", str(file))
        assert prompts["MI"] == ("STEMI", "old infarct") and prompts["CD"] == ("any",)
        assert "not-a-class" not in prompts

    @pytest.mark.parametrize(
        ("content", "error", "complaint"),
        [
            (None, NotSetUpError, "no prompts .*own.json"),
            ("{", DataError, "not a JSON file of prompts"),
            ("[]", DataError, "holds a JSON list"),
            ('{"NORM": "normal"}', DataError, "has no text for HYP, MI, CD, STTC"),
            (json.dumps(dict.fromkeys(benchmark("ptbxl-super").classes, "")), DataError, "texts of HYP are ''"),
            (json.dumps({key: [] for key in benchmark("ptbxl-super").classes}), DataError, "texts of HYP are"),
        ],
    )
    def test_bad_files_are_told(
        self, tmp_path: Path, content: str | None, error: type[FgclepError], complaint: str
    ) -> None:
        file = tmp_path / "own.json"
        if content is not None:
            file.write_text(content, encoding="utf-8")
        with pytest.raises(error, match=complaint):
            prompts_for("ptbxl-super", str(file))

    def test_an_unknown_benchmark_is_told(self) -> None:
        with pytest.raises(UsageError, match="no benchmark"):
            prompts_for("ptbxl", "plain")


class TestInDomain:
    @pytest.mark.parametrize(
        ("card", "expected"),
        [
            ("- **Trained on**: 9 records of PTB-XL\n  folds 1-8.\n- **Else**: CPSC2018\n", (True, False, False)),
            ("- **Trained on**: Chapman-Shaoxing-Ningbo and\n  CPSC2018.\n", (False, True, True)),
            ("A card about PTB-XL without that line.\n", (None, None, None)),
            (None, (None, None, None)),
        ],
    )
    def test_the_card_decides(self, tmp_path: Path, card: str | None, expected: tuple[bool | None, ...]) -> None:
        (tmp_path / "config.json").write_text("{}")
        if card is not None:
            (tmp_path / "README.md").write_text(card, encoding="utf-8")
        found = tuple(trained_in_domain(str(tmp_path), kind) for kind in ("ptb-xl", "cpsc2018", "csn"))
        assert found == expected

    def test_the_shipped_bundle_knows_ptbxl_and_fresh_weights_know_nothing(self) -> None:
        assert trained_in_domain("small", "ptb-xl") is True
        assert trained_in_domain("small", "synthetic") is True
        assert trained_in_domain("random:small", "ptb-xl") is trained_in_domain("random:small", "synthetic") is False
        assert trained_in_domain("merl:somewhere.pth", "ptb-xl") is None
