"""Result files: whole, readable by everybody, and honest about damage."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fgclep.errors import CorruptionError, NotSetUpError
from fgclep.evaluation.results import Interval, Scored, plain, provenance, write_json

SCORED = Scored(
    labels=np.array([[True, False], [False, True], [True, True]]),
    scores=np.array([[0.5, -1.0], [0.25, 2.0], [np.pi, 0.0]], np.float32),
    classes=("PRC(S)", "LAO/LAE"),
    record_ids=("ptb-xl:1", "ptb-xl:20", "ptb-xl:300"),
    subject_ids=("7", "7", "12345"),
)


def test_scores_come_back_as_they_were(tmp_path: Path) -> None:
    SCORED.save(tmp_path / "new" / "scores.npz")
    back = Scored.load(tmp_path / "new" / "scores.npz")
    assert np.array_equal(back.labels, SCORED.labels) and back.labels.dtype == bool
    assert np.array_equal(back.scores, SCORED.scores) and back.scores.dtype == np.float32
    assert (back.classes, back.record_ids, back.subject_ids) == (
        SCORED.classes,
        SCORED.record_ids,
        SCORED.subject_ids,
    )
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["scores.npz"]


def test_no_records_are_saved_too(tmp_path: Path) -> None:
    Scored(np.empty((0, 1), bool), np.empty((0, 1), np.float32), ("A",), (), ()).save(tmp_path / "none.npz")
    assert Scored.load(tmp_path / "none.npz").classes == ("A",)


def test_every_damaged_byte_is_found_or_harmless(tmp_path: Path) -> None:
    file = tmp_path / "scores.npz"
    SCORED.save(file)
    whole = file.read_bytes()
    for position in range(0, len(whole), 7):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 0x41]) + whole[position + 1 :])
        try:
            back = Scored.load(file)
        except CorruptionError as error:
            assert str(file) in error.message
        else:
            assert np.array_equal(back.scores, SCORED.scores) and back.record_ids == SCORED.record_ids


@pytest.mark.parametrize("content", [b"", b"no zip", None])
def test_other_files_are_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "scores.npz"
    if content is None:
        np.savez(file.with_suffix(""), labels=np.zeros(3))
    else:
        file.write_bytes(content)
    with pytest.raises(CorruptionError, match=r"is not the \.npz of an evaluation"):
        Scored.load(file)
    with pytest.raises(NotSetUpError, match="does not exist"):
        Scored.load(tmp_path / "none.npz")


def test_shapes_must_fit() -> None:
    with pytest.raises(ValueError, match="expected 3 records and 1 classes"):
        Scored(SCORED.labels, SCORED.scores, ("one",), SCORED.record_ids, SCORED.subject_ids)


@dataclass(frozen=True)
class Nested:
    interval: Interval
    table: dict[str, float]
    names: tuple[str, ...]


def test_json_has_null_for_what_is_no_number(tmp_path: Path) -> None:
    value = {"x": Nested(Interval(0.5), {"a": math.inf}, ("ä",)), "n": np.int64(3), "v": np.array([1.0, np.nan])}
    write_json(tmp_path / "result.json", value | {"path": Path("a") / "b", "yes": True})
    assert json.loads((tmp_path / "result.json").read_text(encoding="utf-8")) == {
        "x": {"interval": {"value": 0.5, "low": None, "high": None}, "table": {"a": None}, "names": ["ä"]},
        "n": 3,
        "v": [1.0, None],
        "path": "a/b",
        "yes": True,
    }


def test_a_value_without_json_form_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    write_json(file, {"old": 1})
    with pytest.raises(TypeError, match="set has no JSON form"):
        write_json(file, {"new": {1, 2}})
    assert json.loads(file.read_text()) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_provenance_names_versions_and_the_command() -> None:
    facts = provenance(["fgclep", "evaluate"], seed=3)
    assert facts["schema"] == 1 and facts["seed"] == 3 and facts["command"] == ["fgclep", "evaluate"]
    assert facts["packages"]["numpy"] == np.__version__
    assert plain(facts) == json.loads(json.dumps(facts))
