"""The benchmarks on Challenge headers: CPSC2018 and Chapman-Shaoxing-Ningbo (METHOD F3, F4).

Both are labelled by SNOMED codes. Their published splits were drawn at random over listings that the releases do not
hold; without split files a record's split follows from a hash of its name: 70 % train, 10 % val, 20 % test.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from fgclep.datasets import Dataset
from fgclep.evaluation.benchmark_base import Benchmark, Split
from fgclep.record import RecordInfo

_CPSC_CLASS_OF_CODE = {  # in the published order of the classes
    "164889003": "AFIB",
    "164884008": "VPC",
    "426783006": "NORM",
    "270492004": "1AVB",
    "59118001": "CRBBB",
    "164931005": "STE",
    "284470004": "PAC",
    "164909002": "CLBBB",
    "429622005": "STD",
}

# The data set's own acronyms (ConditionNames_SNOMED-CT.csv); where it gives one code to several, the first, which is
# what the published labels use.
_CSN_ACRONYM_OF_CODE = {
    "270492004": "1AVB",
    "195042002": "2AVB",
    "54016002": "2AVB1",
    "28189009": "2AVB2",
    "27885002": "3AVB",
    "251173003": "ABI",
    "39732003": "ALS",
    "284470004": "APB",
    "164917005": "AQW",
    "47665007": "ARS",
    "233917008": "AVB",
    "251199005": "CCR",
    "251198002": "CR",
    "428417006": "ERV",
    "164942001": "FQRS",
    "698252002": "IDC",
    "426995002": "JEB",
    "251164006": "JPT",
    "164909002": "LBBB",
    "164873001": "LVH",
    "251146004": "LVQRSAL",
    "251148003": "LVQRSCL",
    "251147008": "LVQRSLL",
    "164865005": "MI",
    "164947007": "PRIE",
    "164912004": "PWC",
    "111975006": "QTIE",
    "446358003": "RAH",
    "59118001": "RBBB",
    "89792004": "RVH",
    "429622005": "STDD",
    "164930006": "STE",
    "428750005": "STTC",
    "164931005": "STTU",
    "164934002": "TWC",
    "59931005": "TWO",
    "164937009": "UW",
    "11157007": "VB",
    "75532003": "VEB",
    "13640000": "VFW",
    "17338001": "VPB",
    "195060002": "VPE",
    "251180001": "VET",
    "195101003": "WAVN",
    "74390002": "WPW",
    "426177001": "SB",
    "426783006": "SR",
    "164889003": "AFIB",
    "427084000": "ST",
    "164890007": "AF",
    "427393009": "SA",
    "426761007": "SVT",
    "713422000": "AT",
    "233896004": "AVNRT",
    "233897008": "AVRT",
}
_CSN_CLASSES = tuple(
    (
        "AQW UW SR WPW 2AVB AT VB ARS STTC SA STE VPB TWO STTU ALS APB 2AVB1 PRIE CCR CR AF AVB QTIE LBBB VEB SVT "
        "RBBB 1AVB STDD MI AFIB TWC PWC ERV RVH LVH ST JEB"
    ).split()
)


class _ByHeader(Benchmark):
    """A benchmark whose records are known by headers, one subject each."""

    split_rule = "a hash of the record's name (70 % train, 10 % val, 20 % test), not the published split"

    def classes_of(self, info: RecordInfo) -> frozenset[str] | None:
        """Return the classes of the header's SNOMED codes."""
        return self.classes_of_codes([code for code in info.extra.get("snomed", "").split(",") if code])

    @abstractmethod
    def classes_of_codes(self, codes: Sequence[str]) -> frozenset[str] | None:
        """Return the classes of SNOMED codes; None if a record with them takes no part."""

    def split_of(self, info: RecordInfo) -> Split | None:
        """Return the split by a hash that is the same everywhere."""
        tenth = int(hashlib.sha256(info.study_id.encode()).hexdigest()[:8], 16) % 10
        return "train" if tenth < 7 else "val" if tenth == 7 else "test"

    def count_listed(self, dataset: Dataset, split: Split) -> int:
        """Count the headers of the split; they are all the listing there is."""
        return sum(self.split_of(info) == split for info in dataset.iter_infos())


@dataclass(frozen=True)
class Cpsc2018(_ByHeader):
    """Nine classes; all labels of a record count."""

    kind = "cpsc2018"
    data_name = "CPSC2018"

    def classes_of_codes(self, codes: Sequence[str]) -> frozenset[str] | None:
        """Return the classes of the codes; None if there are none."""
        return frozenset(_CPSC_CLASS_OF_CODE[code] for code in codes if code in _CPSC_CLASS_OF_CODE) or None

    def split_file(self, split: Split) -> str:
        """Return for example `icbeb_val.csv`."""
        return f"icbeb_{split}.csv"

    @property
    def split_columns(self) -> tuple[str, ...]:
        """The record's name (ecg_id numbers another listing) and the classes."""
        return ("filename", *self.classes)

    def parse_row(self, row: Mapping[str, str]) -> tuple[str, frozenset[str]]:
        """Return the record's name and the flagged classes."""
        return row["filename"], self.flagged(row)


@dataclass(frozen=True)
class Csn(_ByHeader):
    """Thirty-eight classes, on the records that the published files use.

    Those have no code outside the data set's table of acronyms and at least one class in the published sense.

    Attributes:
        exact: a record has the classes of its own acronyms. Otherwise, as in the published files, it has every class
            whose acronym occurs *within* one of its acronyms: flutter (AF) within fibrillation (AFIB), sinus
            tachycardia (ST) within ST depression (STDD), AV block (AVB) within its degrees.
    """

    kind = "csn"
    data_name = "Chapman-Shaoxing-Ningbo (CSN)"

    exact: bool

    def classes_of_codes(self, codes: Sequence[str]) -> frozenset[str] | None:
        """Return the classes of the codes; None if one is unknown or there is no class in the published sense."""
        if not codes or any(code not in _CSN_ACRONYM_OF_CODE for code in codes):
            return None
        acronyms = [_CSN_ACRONYM_OF_CODE[code] for code in codes]
        return self.classes_of_acronyms(acronyms) if _within(acronyms) else None

    def classes_of_acronyms(self, acronyms: Sequence[str]) -> frozenset[str]:
        """Return the classes of a record with these acronyms."""
        return frozenset(acronyms).intersection(self.classes) if self.exact else _within(acronyms)

    def split_file(self, split: Split) -> str:
        """Return for example `chapman_val.csv`."""
        return f"chapman_{split}.csv"

    @property
    def split_columns(self) -> tuple[str, ...]:
        """The record's path, and its acronyms (exact) or the classes."""
        return ("ecg_path", "diagnose") if self.exact else ("ecg_path", *self.classes)

    def parse_row(self, row: Mapping[str, str]) -> tuple[str, frozenset[str]]:
        """Return the record's name and its classes: from `diagnose` if exact, else the flagged ones."""
        found = self.classes_of_acronyms(row["diagnose"].split(",")) if self.exact else self.flagged(row)
        return PurePosixPath(row["ecg_path"]).stem, found


def _within(acronyms: Sequence[str]) -> frozenset[str]:
    return frozenset(name for name in _CSN_CLASSES if any(name in acronym for acronym in acronyms))


CHALLENGE_BENCHMARKS: tuple[Benchmark, ...] = (
    Cpsc2018("cpsc2018", tuple(_CPSC_CLASS_OF_CODE.values())),
    Csn("csn-strict", _CSN_CLASSES, exact=True),
    Csn("csn-merl", _CSN_CLASSES, exact=False),
)
