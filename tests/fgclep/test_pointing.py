"""The pointing game with players whose score is known beforehand."""

import json
import math
from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.main import run
from fgclep.datasets.synthetic import SyntheticEcg, generate
from fgclep.evaluation.pointing import play_with_bundle, pointing_game
from fgclep.findings.catalog import LEAD_KINDS, findings
from fgclep.leads import LEADS
from fgclep.pretrained import bundle_fingerprint
from fgclep.record import EcgRecord

NAMES = {names[0]: kind for kind, names in LEAD_KINDS.items()}


@pytest.fixture(scope="module")
def ecgs() -> list[SyntheticEcg]:
    return list(generate(5, 60, fs_hz=100))


def _knowing(ecgs: Sequence[SyntheticEcg]) -> Any:
    """Evidence 1 spread over the windows of the true leads, 0 elsewhere."""
    by_id = {ecg.record.info.record_id: ecg.truth for ecg in ecgs}
    ids = {finding.name: key for key, finding in findings().items()}

    def leads(record: EcgRecord, text: str) -> list[bool]:
        truth = by_id[record.info.record_id]
        if text in NAMES:
            return [f"{NAMES[text]}@{lead}" in truth for lead in LEADS]
        return [lead in truth[ids[text]] for lead in LEADS]

    def maps(record: EcgRecord, texts: Sequence[str]) -> Any:
        shown = np.array([leads(record, text) for text in texts], np.float32)
        return np.repeat(shown[:, :, None], 4, axis=2)

    return maps


def _with_leads(ecg: SyntheticEcg, *names: str) -> SyntheticEcg:
    return replace(ecg, truth={name: (name.partition("@")[2],) for name in names})


def test_who_knows_wins_always_and_who_inverts_never(ecgs: list[SyntheticEcg]) -> None:
    knowing = _knowing(ecgs)
    result = pointing_game({"truth": knowing, "wrong": lambda r, t: -knowing(r, t)}, ecgs, draws=50)
    assert {entry.group for entry in result} == {"lead findings", "territories", "others", "all"}
    assert len({entry.finding for entry in result}) > 10
    for entry in result:
        assert entry.shares["truth"].value == entry.shares["truth"].low == 1
        assert entry.shares["wrong"].value == entry.shares["wrong"].high == 0


def test_uniform_map_scores_the_share_of_true_leads(ecgs: list[SyntheticEcg]) -> None:
    result = pointing_game({}, ecgs, draws=0)
    for entry in result:
        if entry.finding not in LEAD_KINDS:
            continue
        true = [sum(name.startswith(f"{entry.finding}@") for name in ecg.truth) for ecg in ecgs]
        asked = [count / 12 for count in true if 0 < count < 12]
        assert entry.queries == len(asked)
        assert entry.shares["uniform"].value == pytest.approx(sum(asked) / len(asked))
        assert math.isnan(entry.shares["uniform"].low)


def test_a_group_is_the_sum_of_its_findings(ecgs: list[SyntheticEcg]) -> None:
    result = pointing_game({}, ecgs, draws=0)
    for group in ("lead findings", "territories", "others"):
        whole = [entry for entry in result if (entry.group, entry.finding) == (group, "all")]
        parts = [entry for entry in result if entry.group == group and entry.finding != "all"]
        assert [entry.queries for entry in whole] == [sum(part.queries for part in parts)]
        mean = sum(part.queries * part.shares["uniform"].value for part in parts) / whole[0].queries
        assert whole[0].shares["uniform"].value == pytest.approx(mean)


def test_shared_first_place_counts_in_part(ecgs: list[SyntheticEcg]) -> None:
    ecg = _with_leads(ecgs[0], "STE@V1", "STE@V2", "STE@V3")

    def two_leads(record: EcgRecord, texts: Sequence[str]) -> Any:
        maps = np.zeros((len(texts), 12, 3), np.float32)
        maps[:, LEADS.index("V3"), 0] = maps[:, LEADS.index("V4"), 2] = 5
        return maps

    assert pointing_game({"two": two_leads}, [ecg], draws=0)[-1].shares["two"].value == 0.5


def test_a_lead_counts_by_the_sum_of_its_windows(ecgs: list[SyntheticEcg]) -> None:
    ecg = _with_leads(ecgs[0], "Q@II")

    def often(record: EcgRecord, texts: Sequence[str]) -> Any:
        maps = np.zeros((len(texts), 12, 3), np.float32)
        maps[:, LEADS.index("II")] = 2
        maps[:, LEADS.index("V1"), 1] = 5
        return maps

    assert pointing_game({"often": often}, [ecg], draws=0)[-1].shares["often"].value == 1


def test_what_no_lead_or_every_lead_shows_is_not_asked(ecgs: list[SyntheticEcg]) -> None:
    everywhere = _with_leads(ecgs[0], *(f"TINV@{lead}" for lead in LEADS), "AFIB")
    (only,) = pointing_game({"truth": _knowing(ecgs)}, [everywhere, _with_leads(ecgs[1], "NORM")])
    assert (only.finding, only.queries) == ("all", 0)
    assert math.isnan(only.shares["truth"].value)


def test_interval_resamples_subjects(ecgs: list[SyntheticEcg]) -> None:
    """Ten copies of every ECG of the same people tell no more than one copy; of other people they would."""

    def first(record: EcgRecord, texts: Sequence[str]) -> Any:
        maps = np.zeros((len(texts), 12, 1), np.float32)
        maps[:, LEADS.index("V3")] = 1
        return maps

    once = pointing_game({"first": first}, ecgs, draws=400, seed=1)[-1].shares["first"]
    tenfold = pointing_game({"first": first}, ecgs * 10, draws=400, seed=1)[-1].shares["first"]
    assert once.low < once.value < once.high
    assert (tenfold.low, tenfold.high) == pytest.approx((once.low, once.high))
    assert once == pointing_game({"first": first}, ecgs, draws=400, seed=1)[-1].shares["first"]


def test_game_of_a_bundle(tiny_bundle: Path) -> None:
    """The journey: an untrained bundle plays beside another untrained one and beside chance."""
    told: list[tuple[int, int]] = []
    result = play_with_bundle(tiny_bundle, 6, seed=6, draws=20, progress=lambda done, of: told.append((done, of)))
    assert told == [(number, 6) for number in range(1, 7)]
    overall = result[-1]
    assert list(overall.shares) == ["model", "random", "uniform"]
    assert overall.queries == sum(entry.queries for entry in result if entry.finding != "all") > 3
    alone = pointing_game({}, list(generate(6, 6, fs_hz=100)), draws=20)
    for entry, expected in zip(result, alone, strict=True):
        assert astuple(entry.shares["uniform"]) == pytest.approx(astuple(expected.shares["uniform"]))


def test_a_bundle_with_a_tag_head_plays_beside_occlusion(tagged_bundle: Path) -> None:
    first = play_with_bundle(tagged_bundle, 3, seed=6, draws=0)
    assert list(first[-1].shares) == ["model", "random", "occlusion", "uniform"]
    again = play_with_bundle(tagged_bundle, 3, seed=6, draws=0)
    assert [entry.shares["model"].value for entry in first] == [entry.shares["model"].value for entry in again]


def test_the_command_prints_and_writes_the_same_numbers(
    tagged_bundle: Path, tmp_path: Path, fgclep_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "pointing", "--model", str(tagged_bundle), "--records", "3", "--draws", "10", "--seed", "6"]
    assert run([*words, "--json", "--out", str(tmp_path)]) == 0
    printed = json.loads(capsys.readouterr().out)
    (file,) = tmp_path.glob("pointing-*.json")
    assert json.loads(file.read_text(encoding="utf-8")) == printed
    overall = printed["results"][-1]
    assert (overall["group"], printed["fingerprint"]) == ("all", bundle_fingerprint(tagged_bundle))
    assert run(words) == 0
    assert f"{overall['shares']['uniform']['value']:.3f}" in capsys.readouterr().out
