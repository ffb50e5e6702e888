"""Splits: nobody is in two of them, and what benchmarks test on is not trained on."""

from collections import Counter, defaultdict
from pathlib import Path

from fgclep.datasets import open_dataset
from fgclep.datasets.splits import split_of, split_rule
from fgclep.evaluation.benchmark_challenge import CHALLENGE_BENCHMARKS
from fgclep.evaluation.benchmark_ptbxl import PTBXL_BENCHMARKS
from fgclep.record import RecordInfo


def info(kind: str, subject: str, fold: int | None = None, number: str = "1") -> RecordInfo:
    return RecordInfo(f"{kind}:{number}", kind, subject, subject, "", fold=fold)


def test_folds_are_kept() -> None:
    splits = [split_of(info("ptb-xl", "7", fold)) for fold in range(1, 11)]
    assert splits == ["train"] * 8 + ["val", "test"]


def test_the_subject_decides_and_the_shares_are_as_stated() -> None:
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for kind in ("mimic-iv-ecg", "csn", "wfdb"):
        for subject in map(str, range(10_000)):
            splits = {split_of(info(kind, subject, number=number)) for number in ("1", "2", "3")}
            assert len(splits) == 1
            counts[kind].update(splits)
    assert counts["mimic-iv-ecg"] == counts["wfdb"]
    for split, share in {"train": 0.96, "val": 0.02, "test": 0.02}.items():
        assert abs(counts["wfdb"][split] / 10_000 - share) < 0.005
    for split, share in {"train": 0.7, "val": 0.1, "test": 0.2}.items():
        assert abs(counts["csn"][split] / 10_000 - share) < 0.015


def test_who_is_held_out_by_percents_is_held_out_by_tenths() -> None:
    for subject in map(str, range(3000)):
        coarse, fine = split_of(info("csn", subject)), split_of(info("mimic-iv-ecg", subject))
        assert fine in ("train", coarse)


def test_benchmarks_split_alike(shared_data: Path) -> None:
    for name in ("ptbxl", "challenge2021/cpsc2018", "challenge2021/chapman_shaoxing_ningbo"):
        infos = list(open_dataset(shared_data / name).iter_infos())
        for benchmark in (*PTBXL_BENCHMARKS, *CHALLENGE_BENCHMARKS):
            if benchmark.kind == infos[0].dataset:
                assert [split_of(each) for each in infos] == [benchmark.split_of(each) for each in infos]
        assert len({split_rule(each) for each in infos}) == 1
