"""ECG-report pairs to train on: which records, which texts, in which batches."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from fgclep.datasets.splits import SPLIT_RULE, split_of
from fgclep.errors import DataError, UsageError
from fgclep.preprocessing import EcgProcessor
from fgclep.record import RecordInfo
from fgclep.reports import REPORT_FAULTS, clean_report, report_fault
from fgclep.training.config import PairSettings
from fgclep.training.training_set import take
from fgclep.training.waveforms import Waveforms, WaveformSet, synthetic_waveforms


@dataclass
class PairSet:
    """ECGs with their reports; each distinct text is held once.

    Attributes:
        waveforms: blocks of prepared waveforms; rows count through all blocks.
        rows: intp, shape (n,), the row of each pair's ECG.
        texts: m distinct texts.
        text_of: int64, shape (n,), the text of each pair.
        record_ids: of the n pairs.
    """

    waveforms: Sequence[Waveforms]
    rows: NDArray[np.intp]
    texts: list[str]
    text_of: NDArray[np.int64]
    record_ids: list[str]

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, pairs: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the ECGs of pairs in mV, float32 (len(pairs), 12, samples)."""
        return take(self.waveforms, self.rows[pairs])


def pair_set(
    waveforms: Sequence[Waveforms],
    infos: Sequence[RecordInfo],
    rows: NDArray[np.intp],
    features: Mapping[str, Sequence[str]],
    report: Callable[[str], None],
) -> PairSet:
    """Pair ECGs with their reports, without reports that teach nothing (`fgclep.reports.report_fault`).

    Args:
        waveforms: blocks.
        infos: of all rows of all blocks.
        rows: those to pair.
        features: record id -> statements to append to the report.
        report: told how many were left out and why, and how many texts are distinct.
    """
    left_out: Counter[str] = Counter()
    numbers: dict[str, int] = {}
    kept, text_of = [], []
    for row in rows:
        lines = [*infos[row].report_lines, *features.get(infos[row].record_id, ())]
        fault = report_fault(lines)
        if fault is not None:
            left_out[fault] += 1
            continue
        kept.append(row)
        text_of.append(numbers.setdefault(clean_report(lines, lower=True), len(numbers)))
    why = "".join(f"; left out {count:,}: {REPORT_FAULTS[fault]}" for fault, count in left_out.items())
    report(f"{len(kept):,} pairs of ECG and report, {len(numbers):,} distinct texts{why}")
    ids = [infos[row].record_id for row in kept]
    return PairSet(waveforms, np.array(kept, np.intp), list(numbers), np.array(text_of, np.int64), ids)


def split_pairs(
    real: WaveformSet,
    processor: EcgProcessor,
    settings: PairSettings,
    features: Mapping[str, Sequence[str]],
    report: Callable[[str], None],
) -> tuple[PairSet, WaveformSet]:
    """Return the training pairs, synthetic ones among them, and the validation records.

    Args:
        real: all records that could be read.
        processor: of the model, for synthetic ECGs.
        settings: whose `seed`, `synthetic_records`, `batch_size` and `accumulation` count.
        features: record id -> statements to append to its report.
        report: told the numbers.

    Raises:
        DataError: if there are no validation records.
        UsageError: if one step takes more pairs than there are.
    """
    splits = np.array([split_of(info) for info in real.infos])
    rows, held = np.flatnonzero(splits == "train"), np.flatnonzero(splits == "val")
    if not len(held):
        raise DataError(f"none of {len(real.infos):,} records are for validation: {SPLIT_RULE}.", "Take more records.")
    infos, blocks = list(real.infos), [real.waveforms]
    if settings.synthetic_records:
        report(f"{settings.synthetic_records:,} synthetic ECGs are generated")
        synthetic = synthetic_waveforms(settings.seed, settings.synthetic_records, processor)
        rows = np.concatenate([rows, len(infos) + np.arange(len(synthetic.infos))])
        infos, blocks = infos + synthetic.infos, [*blocks, synthetic.waveforms]
    report(f"{len(rows):,} training records, {len(held):,} for validation ({SPLIT_RULE})")
    pairs = pair_set(blocks, infos, rows, features, report)
    taken = settings.batch_size * settings.accumulation
    if len(pairs) < taken:
        raise UsageError(
            f"batch_size {settings.batch_size} x accumulation {settings.accumulation} is {taken} pairs a step; there "
            f"are only {len(pairs)}.",
            f"-o batch_size={max(len(pairs) // settings.accumulation, 1)}",
        )
    return pairs, real.select(held)


@dataclass(frozen=True)
class PairBatch:
    """What one process sees of one batch.

    Attributes:
        waveforms: float32, shape (k, 12, samples), mV.
        texts: the distinct texts of these pairs.
        which: int64, shape (k,), the place of each pair's text in `texts`.
        groups: int64, shape (k,), equal numbers mean pairs that match each other, in all processes alike.
    """

    waveforms: torch.Tensor
    texts: list[str]
    which: torch.Tensor
    groups: torch.Tensor


class PairBatches(torch.utils.data.Dataset[PairBatch]):
    """The batches of a run by number; each depends on the seed and its number only, so a run goes on at any of them.

    Args:
        pairs: what they are drawn from, each pair once an epoch; the rest of an epoch that fills no step is left.
        settings: whose `seed`, `batch_size`, `accumulation` and `pair_labels` count.
        rank: of this process.
        world: number of processes; each sees its share of every batch.
    """

    def __init__(self, pairs: PairSet, settings: PairSettings, rank: int = 0, world: int = 1) -> None:
        self.pairs, self.settings, self.rank, self.world = pairs, settings, rank, world
        self.steps_per_epoch = len(pairs) // (settings.batch_size * settings.accumulation)
        self._order = lru_cache(maxsize=2)(self._permutation)  # reading threads may stand in two epochs

    def __getitem__(self, number: int) -> PairBatch:
        mine = np.array_split(self.members(number), self.world)[self.rank]
        text_of = self.pairs.text_of[mine]
        distinct, which = np.unique(text_of, return_inverse=True)
        return PairBatch(
            waveforms=torch.from_numpy(self.pairs.batch(mine)),
            texts=[self.pairs.texts[text] for text in distinct],
            which=torch.from_numpy(which.astype(np.int64)),
            groups=torch.from_numpy(text_of if self.settings.pair_labels == "equal-text" else mine.astype(np.int64)),
        )

    def members(self, number: int) -> NDArray[np.intp]:
        """Return the pairs of a batch in all processes."""
        epoch, place = divmod(number, self.steps_per_epoch * self.settings.accumulation)
        size = self.settings.batch_size
        return self._order(epoch)[place * size : (place + 1) * size]

    def _permutation(self, epoch: int) -> NDArray[np.intp]:
        return np.random.default_rng([self.settings.seed, epoch]).permutation(len(self.pairs))

    def record_ids(self, number: int) -> list[str]:
        """Return the record ids of a batch, in all processes."""
        return [self.pairs.record_ids[pair] for pair in self.members(number)]
