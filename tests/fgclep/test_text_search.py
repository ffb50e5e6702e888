"""Retrieval by text on records whose vectors are known: the numbers that a perfect and a deaf model must get."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fgclep.evaluation.text_search import evaluate_task, evaluate_wordings, wording_drop
from fgclep.findings.catalog import findings
from fgclep.record import RecordInfo

FIBRILLATION, SINUS = np.eye(2, dtype=np.float32)
N_FIBRILLATION, N_SINUS = 12, 28


def _info(number: int, *codes: str) -> RecordInfo:
    return RecordInfo(f"ptb-xl:{number}", "ptb-xl", str(number), str(number), "x", tags=codes)


INFOS = [
    *(_info(number, "AFIB") for number in range(N_FIBRILLATION)),
    *(_info(number, "SR") for number in range(100, 100 + N_SINUS)),
    _info(200, "NORM"),  # no rhythm statement
]
ECG = np.stack([FIBRILLATION] * N_FIBRILLATION + [SINUS] * (N_SINUS + 1))


def encode(texts: list[str]) -> NDArray[np.float32]:
    """Know every wording of the two rhythms, but take descriptions of fibrillation for their opposite."""
    known = {findings()["AFIB"].name: FIBRILLATION, findings()["SR"].name: SINUS}
    for wording in findings()["AFIB"].held_out:
        known[wording.text] = -FIBRILLATION if wording.kind == "criteria" else FIBRILLATION
    known |= {wording.text: SINUS for wording in findings()["SR"].held_out}
    return np.stack([known.get(text, np.zeros(2, np.float32)) for text in texts])


def test_a_task_counts_its_own_records_and_defined_classes() -> None:
    result = evaluate_task(INFOS, ECG, encode, "rhythm")
    assert result.records == N_FIBRILLATION + N_SINUS
    assert result.auc.by_class == {"SR": 1.0, "AFIB": 1.0}
    assert result.mean_average_precision.mean == pytest.approx(1)
    assert result.precision_at_10.mean == result.best_precision_at_10 == 1
    assert result.prevalence == pytest.approx((N_FIBRILLATION + N_SINUS) / (2 * (N_FIBRILLATION + N_SINUS)))


def test_rare_classes_limit_the_precision_of_a_perfect_ranking() -> None:
    rare = [*INFOS[:3], *INFOS[N_FIBRILLATION:]]
    result = evaluate_task(rare, np.concatenate([ECG[:3], ECG[N_FIBRILLATION:]]), encode, "rhythm")
    assert result.precision_at_10.mean == result.best_precision_at_10 == pytest.approx((0.3 + 1) / 2)


def test_wordings_are_scored_one_by_one() -> None:
    results = {result.finding: result for result in evaluate_wordings(INFOS, ECG, encode)}
    assert results.keys() == {"AFIB", "SR"}  # one NORM record is too few
    fibrillation = results["AFIB"]
    assert fibrillation.plain == 1
    assert [(other.text, other.kind) for other in fibrillation.others] == [
        (wording.text, wording.kind) for wording in findings()["AFIB"].held_out
    ]
    assert all(other.auc == (0 if other.kind == "criteria" else 1) for other in fibrillation.others)
    assert fibrillation.worst().kind == "criteria"


def test_the_loss_in_other_words_is_a_mean_over_findings() -> None:
    drop = wording_drop(evaluate_wordings(INFOS, ECG, encode))
    kinds = [wording.kind for wording in findings()["AFIB"].held_out]
    # Fibrillation loses its whole AUC of 1 in descriptions, sinus rhythm nothing anywhere.
    assert drop["criteria"] == pytest.approx(1 / 2)
    assert (drop["synonym"], drop["shorthand"]) == (pytest.approx(0), pytest.approx(0))
    assert drop["mean"] == pytest.approx(kinds.count("criteria") / len(kinds) / 2)
    assert drop["worse_of_two"] == drop["worst"] == pytest.approx(1 / 2)
    assert drop["findings"] == 2


def test_no_finding_with_enough_positives_gives_no_number() -> None:
    drop = wording_drop(evaluate_wordings(INFOS[:5], ECG[:5], encode))
    assert drop["findings"] == 0
    assert np.isnan(drop["mean"])
