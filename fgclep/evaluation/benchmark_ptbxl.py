"""The four PTB-XL benchmarks: superclasses, subclasses, form and rhythm statements (METHOD F2).

A record takes part if it has at least one code of the benchmark, whatever the code's likelihood (0 means unknown, and
counts). Folds 1-8 train, 9 validates, 10 tests. The tables restate scp_statements.csv; codes are in `ptbxl_code` form.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from fgclep.datasets import Dataset
from fgclep.datasets.base import iter_csv, parse_number
from fgclep.datasets.ptbxl import TABLE
from fgclep.evaluation.benchmark_base import Benchmark, Split
from fgclep.findings.catalog import ptbxl_code
from fgclep.record import RecordInfo

_SUBCLASSES = {
    "AMI": "AMI ASMI ALMI INJAS INJAL INJLA",
    "LAFB/LPFB": "LAFB LPFB",
    "LVH": "LVH",
    "STTC": "NDT DIG LNGQT ANEUR EL",
    "IMI": "IMI ILMI IPLMI IPMI INJIN INJIL",
    "SEHYP": "SEHYP",
    "CRBBB": "CRBBB",
    "WPW": "WPW",
    "LAO/LAE": "LAO",
    "NORM": "NORM",
    "ISC": "ISC",
    "AVB": "1AVB 2AVB 3AVB",
    "RAO/RAE": "RAO",
    "LMI": "LMI",
    "ISCI": "ISCIN ISCIL",
    "ISCA": "ISCAL ISCAS ISCLA ISCAN",
    "NST": "NST",
    "CLBBB": "CLBBB",
    "ILBBB": "ILBBB",
    "IRBBB": "IRBBB",
    "PMI": "PMI",
    "RVH": "RVH",
    "IVCD": "IVCD",
}
_SUPERCLASSES = {  # of subclasses
    "HYP": "LVH SEHYP LAO/LAE RAO/RAE RVH",
    "NORM": "NORM",
    "MI": "AMI IMI LMI PMI",
    "CD": "LAFB/LPFB CRBBB WPW AVB CLBBB ILBBB IRBBB IVCD",
    "STTC": "STTC ISC ISCI ISCA NST",
}
_FORM = "PAC DIG HVOLT STD LPR QWAVE VCLVH NDT TAB LOWT ABQRS LNGQT PRC(S) NT STE NST PVC INVT LVOLT"  # published order
_RHYTHM = "SVARR BIGU STACH SARRH SBRAD TRIGU AFIB SR SVTAC PSVT AFLT PACE"

CODES: dict[str, dict[str, frozenset[str]]] = {
    "super": {
        name: frozenset(code for sub in subs.split() for code in _SUBCLASSES[sub].split())
        for name, subs in _SUPERCLASSES.items()
    },
    "sub": {name: frozenset(codes.split()) for name, codes in _SUBCLASSES.items()},
    "form": {name: frozenset([ptbxl_code(name)]) for name in _FORM.split()},
    "rhythm": {name: frozenset([name]) for name in _RHYTHM.split()},
}
"""Task -> class, in the published order -> the codes that make it."""

_FOLDERS = {"super": "super_class", "sub": "sub_class", "form": "form", "rhythm": "rhythm"}


@dataclass(frozen=True)
class PtbXlBenchmark(Benchmark):
    """One of the four; `task` is a key of `CODES`."""

    kind = "ptb-xl"
    data_name = "PTB-XL"
    split_rule = "strat_fold: 1-8 train, 9 val, 10 test"

    task: str

    @cached_property
    def _classes_of_code(self) -> dict[str, str]:
        return {code: name for name, codes in CODES[self.task].items() for code in codes}

    def classes_of(self, info: RecordInfo) -> frozenset[str] | None:
        """Return the classes of a record's codes; None if it has no code of the task."""
        found = frozenset(self._classes_of_code[tag] for tag in info.tags if tag in self._classes_of_code)
        return found or None

    def split_of(self, info: RecordInfo) -> Split | None:
        """Return the split of the record's fold."""
        return _split_of_fold(info.fold)

    def count_listed(self, dataset: Dataset, split: Split) -> int:
        """Count the rows of the table in the split's folds."""
        rows = iter_csv(dataset.root / TABLE, ("strat_fold",))
        folds = (parse_number(row["strat_fold"]) for row in rows)
        return sum(fold is not None and _split_of_fold(int(fold)) == split for fold in folds)

    def split_file(self, split: Split) -> str:
        """Return for example `ptbxl_sub_class_val.csv`."""
        return f"ptbxl_{_FOLDERS[self.task]}_{split}.csv"

    @property
    def split_columns(self) -> tuple[str, ...]:
        """The id and the classes."""
        return ("ecg_id", *self.classes)

    def parse_row(self, row: Mapping[str, str]) -> tuple[str, frozenset[str]]:
        """Return the ecg_id and the flagged classes."""
        return row["ecg_id"], self.flagged(row)


def _split_of_fold(fold: int | None) -> Split | None:
    if fold is None or not 1 <= fold <= 10:
        return None
    return "test" if fold == 10 else "val" if fold == 9 else "train"


PTBXL_BENCHMARKS: tuple[Benchmark, ...] = tuple(
    PtbXlBenchmark(f"ptbxl-{task}", tuple(codes), task) for task, codes in CODES.items()
)
