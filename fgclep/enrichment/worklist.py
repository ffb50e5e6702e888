"""Which texts are to be asked about: each unique report once, however many records say it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from fgclep.record import RecordInfo
from fgclep.reports import normalise, report_hash


@dataclass(frozen=True)
class Worklist:
    """The unique reports of a data set.

    Attributes:
        texts: hash -> normalised text, the most frequent first: a run that is stopped has covered most records.
        records: records looked at.
        without_report: how many of them have no report.
    """

    texts: dict[str, str]
    records: int
    without_report: int


def hash_of(info: RecordInfo) -> str | None:
    """Return the hash under which a record's report is asked about; None for a record without a report."""
    key, text = _hashed("\n".join(info.report_lines))
    return key if text else None


def collect_texts(infos: Iterable[RecordInfo]) -> Worklist:
    """Collect the unique normalised reports of records."""
    counts: Counter[str] = Counter()
    texts: dict[str, str] = {}
    records = 0
    for info in infos:
        records += 1
        key, text = _hashed("\n".join(info.report_lines))
        if text:
            texts[key] = text
            counts[key] += 1
    order = sorted(texts, key=lambda key: (-counts[key], key))
    return Worklist({key: texts[key] for key in order}, records, records - counts.total())


@lru_cache(maxsize=262_144)  # most reports repeat others letter by letter
def _hashed(written: str) -> tuple[str, str]:
    return report_hash(written), normalise(written)
