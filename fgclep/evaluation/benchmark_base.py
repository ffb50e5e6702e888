"""What defines a benchmark: which records of a data set take part, with which classes, in which split."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from fgclep.datasets import Dataset
from fgclep.record import RecordInfo

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Benchmark(ABC):
    """One benchmark, by rules on the original release and as the published split files give it.

    Attributes:
        name: as users name it.
        classes: in the published order. They are always found by name: the published train file of one of the sets
            has its columns in another order than the validation and test files.
    """

    kind: ClassVar[str]
    """The data set it is made of (`Dataset.kind`)."""
    data_name: ClassVar[str]
    """The data set's name for people."""
    split_rule: ClassVar[str]
    """How `split_of` splits, for people."""

    name: str
    classes: tuple[str, ...]

    @abstractmethod
    def classes_of(self, info: RecordInfo) -> frozenset[str] | None:
        """Return the classes of a record by its codes; None if the record takes no part."""

    @abstractmethod
    def split_of(self, info: RecordInfo) -> Split | None:
        """Return the split of a record; None if it is in none."""

    @abstractmethod
    def count_listed(self, dataset: Dataset, split: Split) -> int:
        """Count the records that the data set lists for a split, with or without files."""

    @abstractmethod
    def split_file(self, split: Split) -> str:
        """Return the name of the published split file."""

    @property
    @abstractmethod
    def split_columns(self) -> tuple[str, ...]:
        """Columns that the published split file must have."""

    @abstractmethod
    def parse_row(self, row: Mapping[str, str]) -> tuple[str, frozenset[str]]:
        """Return the `RecordInfo.study_id` and the classes of a row of a published split file.

        Raises:
            ValueError: if a field is not what it should be.
        """

    def flagged(self, row: Mapping[str, str]) -> frozenset[str]:
        """Return the classes whose columns hold 1.

        Raises:
            ValueError: if one holds neither 0 nor 1.
        """
        for name in self.classes:
            if row[name] not in ("0", "1"):
                raise ValueError(f"column {name} is {row[name]!r}; expected 0 or 1")
        return frozenset(name for name in self.classes if row[name] == "1")
