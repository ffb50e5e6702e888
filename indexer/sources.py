"""The data sets that an index was read from, each for its own stretch of keys."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fgclep.datasets import Dataset, open_dataset
from fgclep.errors import DataError, NotSetUpError, UsageError
from fgclep.record import EcgRecord, RecordInfo
from indexer.manifest import DatasetRef, IndexManifest


@dataclass(frozen=True)
class Sources:
    """Reads a record by its key; pickles to a few hundred bytes for each data set.

    Attributes:
        first_keys: ascending; `datasets[i]` has the keys from `first_keys[i]` up to the next.
    """

    datasets: tuple[Dataset, ...]
    first_keys: tuple[int, ...] = (0,)

    def read(self, key: int, info: RecordInfo) -> EcgRecord:
        """Read and clean one record.

        Raises:
            RecordReject: naming why the record cannot be used.
        """
        return self.datasets[bisect_right(self.first_keys, key) - 1].read(info)


def open_sources(manifest: IndexManifest) -> Sources:
    """Open all data that an index was read from, at the rates it was read at.

    Raises:
        NotSetUpError: if a folder is no longer there.
        DataError: if a folder holds another data set now, or no longer the rate that was read.
    """
    first_keys, references = zip(*manifest.sources, strict=True)
    return Sources(tuple(open_source(reference, manifest.name) for reference in references), first_keys)


def open_source(reference: DatasetRef, index: str, root: Path | None = None) -> Dataset:
    """Open one data set of an index, where it was or at another `root`; errors as of `open_sources`."""
    where = root or Path(reference.root)
    if not where.is_dir():
        raise NotSetUpError(
            f"The records of index {index} were read from {where}, which is not there.",
            f"If the data moved: fgclep index relocate NEW-PATH --name {index}",
        )
    try:
        dataset = open_dataset(where, fs_hz=reference.fs_hz)
    except UsageError as error:  # nobody asked for a rate: the tree lost the one that the index was read at
        raise DataError(
            f"{error.message} Index {index} was read from it at {reference.fs_hz} Hz.",
            f"See what it has: fgclep data scan {where}. If the data moved: "
            f"fgclep index relocate NEW-PATH --name {index}",
        ) from error
    if dataset.kind != reference.kind:
        raise DataError(
            f"{where} holds {dataset.name} ({dataset.kind}) now; index {index} was read from {reference.name} "
            f"({reference.kind}).",
            f"fgclep data scan {where}",
        )
    return dataset


def listed_ids(dataset: Dataset) -> Iterator[str]:
    """Yield the id of every record that a data set lists, whether its files exist or not."""
    return (record_id for record_id, _ in dataset.iter_listed())
