"""Comparisons find real differences, and call no chance one real more often than they say."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fgclep.errors import CompatibilityError, CorruptionError, NotSetUpError, UsageError
from fgclep.evaluation.compare import compare, holm, pair_up
from fgclep.evaluation.results import Scored, write_json


def scored(signal: float, seed: int = 0, n: int = 300, classes: tuple[str, ...] = ("A", "B")) -> Scored:
    """Return scores with so much signal; labels are the same for every seed."""
    labels = np.random.default_rng(99).random((n, len(classes))) < 0.3
    scores = np.random.default_rng(seed).normal(size=labels.shape) + signal * labels
    ids = tuple(map(str, range(n)))
    return Scored(labels, scores.astype(np.float32), classes, ids, tuple(str(row // 2) for row in range(n)))


def macro(of: Scored) -> float:
    return float(np.mean([roc_auc_score(of.labels[:, c], of.scores[:, c]) for c in range(len(of.classes))]))


def test_a_large_difference_is_real_and_none_is_not() -> None:
    good, bad = scored(2.0, seed=1), scored(0.3, seed=2)
    better, worse, same = compare([("x", good, bad), ("y", bad, good), ("z", good, good)], "auc", 500, seed=0)
    assert better.difference.value == pytest.approx(macro(good) - macro(bad))
    assert better.real and better.difference.low > 0
    assert worse.real and worse.difference.value == pytest.approx(-better.difference.value)
    assert not same.real and (same.difference.value, same.p_value) == (0, 1)
    assert [each.name for each in (better, worse, same)] == ["x", "y", "z"] and better.records == 300


def test_two_draws_of_one_model_rarely_differ() -> None:
    found = [compare([("x", scored(1, 2 * k), scored(1, 2 * k + 1))], "auc", 200, seed=k)[0] for k in range(40)]
    assert sum(each.real for each in found) <= 6, "a test at 5 % finds two of forty on average"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_as_defined(p_values: list[float]) -> None:
    ranked, m = sorted(p_values), len(p_values)
    expected = [max(min(1.0, (m - j) * ranked[j]) for j in range(ranked.index(p) + 1)) for p in p_values]
    corrected = holm(p_values)
    for p, found, least in zip(p_values, corrected, expected, strict=True):
        assert found >= least - 1e-12 and found >= p
        # Of equal p values the later ones have smaller factors and can only stay level.
        assert found == pytest.approx(least)


def test_too_few_draws_and_unknown_metrics_are_refused() -> None:
    pair = ("x", scored(1), scored(1))
    with pytest.raises(UsageError, match="39 draws are too few to tell 1 differences"):
        compare([pair], "auc", 39, seed=0)
    compare([pair], "auc", 40, seed=0)
    with pytest.raises(UsageError, match="no metric 'f2'"):
        compare([pair], "f2", 100, seed=0)


def test_other_classes_are_refused() -> None:
    with pytest.raises(CompatibilityError):
        compare([("x", scored(1), scored(1, classes=("A", "C")))], "auc", 100, seed=0)


def write(folder: Path, model: str, benchmark: str = "ptbxl-super", signal: float = 1.0) -> Path:
    stem = folder / f"zero-shot-{benchmark}-val-plain-{model}"
    scored(signal).save(stem.with_suffix(".npz"))
    result = {"benchmark": benchmark, "split": "val", "prompts": "plain", "encoder": model}
    write_json(stem.with_suffix(".json"), {"results": [result]})
    return stem.with_suffix(".npz")


def test_folders_are_paired_by_what_was_measured(tmp_path: Path) -> None:
    for benchmark in ("ptbxl-super", "ptbxl-sub"):
        write(tmp_path / "a", "one", benchmark)
    write(tmp_path / "b" / "parts", "two", "ptbxl-sub", signal=2.0)
    [(name, a, b)] = pair_up(tmp_path / "a", tmp_path / "b")
    assert name == "ptbxl-sub (val), plain prompts"
    assert (a.scores == scored(1.0).scores).all() and (b.scores == scored(2.0).scores).all()
    [(name, _, _)] = pair_up(*(next((tmp_path / side).rglob("*sub*.npz")) for side in "ab"))
    assert "one" in name and "two" in name


def test_what_cannot_be_paired_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a", "one")
    write(tmp_path / "b", "two", "ptbxl-sub")
    with pytest.raises(UsageError, match="have nothing in common"):
        pair_up(tmp_path / "a", tmp_path / "b")
    with pytest.raises(UsageError, match="is a folder"):
        pair_up(tmp_path / "a", file)
    with pytest.raises(NotSetUpError, match="no-such-folder does not exist"):
        pair_up(tmp_path / "no-such-folder", file)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotSetUpError, match="holds no scores"):
        pair_up(tmp_path / "empty", tmp_path / "a")
    write(tmp_path / "a", "three")
    with pytest.raises(UsageError, match="several models on ptbxl-super"):
        pair_up(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("content", ["", "[]", '{"results": []}', json.dumps({"results": [{"benchmark": "x"}]})])
def test_a_damaged_description_is_told(tmp_path: Path, content: str) -> None:
    file = write(tmp_path / "a", "one")
    file.with_suffix(".json").write_text(content, encoding="utf-8")
    with pytest.raises(CorruptionError, match=r"one\.json does not tell"):
        pair_up(tmp_path / "a", tmp_path / "a")
