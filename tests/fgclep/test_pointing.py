"""The pointing game with players whose score is known beforehand."""

import math
from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgclep.datasets.synthetic import generate
from fgclep.evaluation.pointing import play_with_bundle, pointing_game
from fgclep.findings.catalog import LEAD_KINDS
from fgclep.leads import LEADS
from fgclep.record import EcgRecord

NAMES = {names[0]: kind for kind, names in LEAD_KINDS.items()}


@pytest.fixture(scope="module")
def records() -> list[EcgRecord]:
    return [ecg.record for ecg in generate(5, 60, fs_hz=100)]


def _truth(record: EcgRecord, texts: Sequence[str]) -> Any:
    """Evidence 1 spread over the windows of the true leads, 0 elsewhere."""
    shown = [[f"{NAMES[text]}@{lead}" in record.info.tags for lead in LEADS] for text in texts]
    return np.repeat(np.array(shown, np.float32)[:, :, None], 4, axis=2)


def _with_tags(record: EcgRecord, *tags: str) -> EcgRecord:
    return replace(record, info=replace(record.info, tags=tags))


def test_who_knows_wins_always_and_who_inverts_never(records: list[EcgRecord]) -> None:
    result = pointing_game({"truth": _truth, "wrong": lambda r, t: -_truth(r, t)}, records, draws=50)
    assert [entry.kind for entry in result] == [*(k for k in LEAD_KINDS if any(e.kind == k for e in result)), "all"]
    assert len(result) > 4
    for entry in result:
        assert entry.shares["truth"].value == entry.shares["truth"].low == 1
        assert entry.shares["wrong"].value == entry.shares["wrong"].high == 0


def test_uniform_map_scores_the_share_of_true_leads(records: list[EcgRecord]) -> None:
    for entry in pointing_game({}, records, draws=0):
        kinds = list(LEAD_KINDS) if entry.kind == "all" else [entry.kind]
        true = [sum(tag.startswith(f"{kind}@") for tag in record.info.tags) for record in records for kind in kinds]
        asked = [count / 12 for count in true if 0 < count < 12]
        assert entry.queries == len(asked)
        assert entry.shares["uniform"].value == pytest.approx(sum(asked) / len(asked))
        assert math.isnan(entry.shares["uniform"].low)


def test_shared_first_place_counts_in_part(records: list[EcgRecord]) -> None:
    record = _with_tags(records[0], "STE@V1", "STE@V2", "STE@V3")

    def two_leads(record: EcgRecord, texts: Sequence[str]) -> Any:
        maps = np.zeros((len(texts), 12, 3), np.float32)
        maps[:, LEADS.index("V3"), 0] = maps[:, LEADS.index("V4"), 2] = 5
        return maps

    assert pointing_game({"two": two_leads}, [record], draws=0)[-1].shares["two"].value == 0.5


def test_a_lead_counts_by_the_sum_of_its_windows(records: list[EcgRecord]) -> None:
    record = _with_tags(records[0], "Q@II")

    def often(record: EcgRecord, texts: Sequence[str]) -> Any:
        maps = np.zeros((len(texts), 12, 3), np.float32)
        maps[:, LEADS.index("II")] = 2
        maps[:, LEADS.index("V1"), 1] = 5
        return maps

    assert pointing_game({"often": often}, [record], draws=0)[-1].shares["often"].value == 1


def test_what_no_lead_or_every_lead_shows_is_not_asked(records: list[EcgRecord]) -> None:
    everywhere = _with_tags(records[0], *(f"TINV@{lead}" for lead in LEADS), "AFIB")
    (only,) = pointing_game({"truth": _truth}, [everywhere, _with_tags(records[1], "NORM")])
    assert (only.kind, only.queries) == ("all", 0)
    assert math.isnan(only.shares["truth"].value)


def test_interval_resamples_subjects(records: list[EcgRecord]) -> None:
    """Ten copies of every ECG of the same people tell no more than one copy; of other people they would."""

    def first(record: EcgRecord, texts: Sequence[str]) -> Any:
        maps = np.zeros((len(texts), 12, 1), np.float32)
        maps[:, LEADS.index("V3")] = 1
        return maps

    once = pointing_game({"first": first}, records, draws=400, seed=1)[-1].shares["first"]
    tenfold = pointing_game({"first": first}, records * 10, draws=400, seed=1)[-1].shares["first"]
    assert once.low < once.value < once.high
    assert (tenfold.low, tenfold.high) == pytest.approx((once.low, once.high))
    assert once == pointing_game({"first": first}, records, draws=400, seed=1)[-1].shares["first"]


def test_game_of_a_bundle(tiny_bundle: Path) -> None:
    """The journey: an untrained bundle plays beside another untrained one and beside chance."""
    told: list[tuple[int, int]] = []
    result = play_with_bundle(tiny_bundle, 8, seed=6, draws=20, progress=lambda done, of: told.append((done, of)))
    assert told == [(number, 8) for number in range(1, 9)]
    overall = result[-1]
    assert list(overall.shares) == ["model", "random", "uniform"]
    assert overall.queries == sum(entry.queries for entry in result[:-1]) > 3
    alone = pointing_game({}, [ecg.record for ecg in generate(6, 8, fs_hz=100)], draws=20)
    for entry, expected in zip(result, alone, strict=True):
        assert astuple(entry.shares["uniform"]) == pytest.approx(astuple(expected.shares["uniform"]))
    assert result == play_with_bundle(tiny_bundle, 8, seed=6, draws=20)
