"""What a data set holds and what of it cannot be used, found by reading every record and writing nothing."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

from fgclep.datasets.base import Dataset
from fgclep.datasets.pack import Pack
from fgclep.record import RecordReject

MAX_EXAMPLES = 3


@dataclass
class Rejects:
    """The records rejected for one reason: how many, and a few of them with the detail for people."""

    count: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class ScanReport:
    """Counts that add up: listed = missing + beyond_limit + usable + all rejects.

    Attributes:
        offered_rates: rates that the tree stores side by side, empty where each record has its own.
        fs_hz: the rate that was read, None where each record has its own.
        listed: records that the data set names.
        missing: of those, records without files; `missing_examples` are the first few ids.
        beyond_limit: records that exist and were not read because of the limit.
        rates: usable records by sampling rate in Hz.
        seconds: shortest and longest usable record, None if there is none.
        flags: usable records by what was mended or deserves a warning.
        rejects: unusable records by reason.
    """

    kind: str
    name: str
    root: str
    offered_rates: tuple[int, ...]
    fs_hz: int | None
    listed: int
    missing: int
    missing_examples: tuple[str, ...]
    beyond_limit: int = 0
    usable: int = 0
    subjects: int = 0
    with_report: int = 0
    with_tags: int = 0
    rates: Counter[float] = field(default_factory=Counter)
    seconds: tuple[float, float] | None = None
    flags: Counter[str] = field(default_factory=Counter)
    rejects: dict[str, Rejects] = field(default_factory=dict)


def scan(dataset: Dataset, limit: int | None = None, on_record: Callable[[], None] = lambda: None) -> ScanReport:
    """Read a data set's records and count what is there; of a pack, first compare every file with its checksum.

    Args:
        dataset: an open data set.
        limit: read only the first so many records.
        on_record: called after each record, for a progress bar.

    Raises:
        CorruptionError: if a pack is damaged.
    """
    if isinstance(dataset, Pack):
        dataset.verify()
    report = ScanReport(
        kind=dataset.kind,
        name=dataset.name,
        root=str(dataset.root),
        offered_rates=dataset.rates,
        fs_hz=dataset.fs_hz,
        listed=dataset.listed,
        missing=len(dataset.missing),
        missing_examples=dataset.missing[:MAX_EXAMPLES],
    )
    subjects: set[str] = set()
    n_read = 0
    for info in islice(dataset.iter_infos(), limit):
        n_read += 1
        try:
            record = dataset.read(info)
        except RecordReject as reject:
            _count_reject(report, reject)
        else:
            subjects.add(info.subject_id)
            report.usable += 1
            report.with_report += bool(info.report_lines)
            report.with_tags += bool(info.tags)
            report.rates[record.fs_hz] += 1
            report.flags.update(flag.partition(":")[0] for flag in record.flags)
            length = record.waveform.shape[1] / record.fs_hz
            shortest, longest = report.seconds or (length, length)
            report.seconds = min(shortest, length), max(longest, length)
        on_record()
    report.subjects = len(subjects)
    report.beyond_limit = report.listed - report.missing - n_read
    return report


def _count_reject(report: ScanReport, reject: RecordReject) -> None:
    rejects = report.rejects.setdefault(reject.reason, Rejects())
    rejects.count += 1
    if len(rejects.examples) < MAX_EXAMPLES:
        rejects.examples.append((reject.record_id, reject.detail))
