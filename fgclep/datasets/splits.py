"""Which records train, validate and test: by the data set's own folds, else by a hash of the subject."""

import hashlib
from typing import Literal

from fgclep.record import RecordInfo

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

_MEASURED_BY_HASH = ("cpsc2018", "csn")
"""Data sets whose benchmarks take their test set by this hash; training must leave out just those records."""

_BY_FOLD = "the data set's folds: 1-8 train, 9 val, 10 test"
_BY_TENTH = "a hash of the subject: 70 % train, 10 % val, 20 % test, as in the benchmarks of this data set"
_BY_PERCENT = "a hash of the subject: 96 % train, 2 % val, 2 % test"

SPLIT_RULE = f"{_BY_FOLD}; without folds {_BY_PERCENT}; CPSC2018 and CSN {_BY_TENTH}"
"""All that `split_of` does, for people."""


def split_of(info: RecordInfo) -> Split:
    """Return the split of a record; all records of one subject are in the same.

    The hash is SHA-256. Who validates or tests by percents does so by tenths too: a data set that became a benchmark
    would not find its test records trained on.
    """
    rule = split_rule(info)
    if rule == _BY_FOLD:
        assert info.fold is not None
        return "train" if info.fold <= 8 else "val" if info.fold == 9 else "test"
    percent = int(hashlib.sha256(info.subject_id.encode()).hexdigest()[:8], 16) % 100
    if rule == _BY_TENTH:
        percent %= 10
    return "val" if percent in (7, 17) else "test" if percent in (8, 9) else "train"


def split_rule(info: RecordInfo) -> str:
    """Return how a record's split is found, for people."""
    if info.fold is not None:
        return _BY_FOLD
    return _BY_TENTH if info.record_id.partition(":")[0] in _MEASURED_BY_HASH else _BY_PERCENT
