"""What a training run holds in memory: labelled ECGs, and those that choose the epoch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fgclep.evaluation.text_search import TASKS, TextEncoder, evaluate_task
from fgclep.models.dual_encoder import EcgEncoder
from fgclep.record import RecordInfo
from fgclep.training.labels import Labels
from fgclep.training.waveforms import Waveforms, to_mv

_BLOCK = 256


@dataclass
class TrainingSet:
    """Labelled ECGs with their reports.

    Attributes:
        waveforms: int16 blocks, each (n_k, 12, samples); rows count through all blocks.
        labels: int8, shape (n, findings).
        left_open: bool, same shape: unknown, but less sure to be present than where it is coded.
        reports: n cleaned report texts.
        record_ids: of the n records.
    """

    waveforms: Sequence[Waveforms]
    labels: Labels
    left_open: NDArray[np.bool_]
    reports: list[str]
    record_ids: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return waveforms of the given rows in mV, float32 (len(rows), 12, samples)."""
        return take(self.waveforms, rows)


def take(waveforms: Sequence[Waveforms], rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return waveforms in mV, float32 (len(rows), 12, samples), of rows that count through all blocks."""
    ends = np.cumsum([len(block) for block in waveforms])
    blocks = np.searchsorted(ends, rows, side="right")
    starts = ends - [len(block) for block in waveforms]
    return to_mv(np.stack([waveforms[b][int(r - starts[b])] for b, r in zip(blocks, rows, strict=True)]))


@dataclass
class ValidationSet:
    """Validation records: infos with codes and prepared waveforms (int16)."""

    infos: list[RecordInfo]
    waveforms: Waveforms


@torch.inference_mode()
def encode_units(encoder: EcgEncoder, waveforms: Waveforms, autocast: bool) -> NDArray[np.float32]:
    """Encode int16 waveforms (n, 12, samples) in blocks; the encoder is left in eval mode."""
    encoder.eval()
    device = next(encoder.parameters()).device
    parts = []
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        for start in range(0, len(waveforms), _BLOCK):
            block = torch.from_numpy(to_mv(waveforms[start : start + _BLOCK])).to(device)
            parts.append(encoder(block).float().cpu().numpy())
    return np.concatenate(parts)


def validate(
    encoder: EcgEncoder, validation: ValidationSet, autocast: bool, encode_text: TextEncoder
) -> dict[str, float]:
    """Return macro AUC by plain-name text for each PTB-XL task, and the mean of the defined ones as `mean`."""
    ecg = encode_units(encoder, validation.waveforms, autocast)
    scores = {task: evaluate_task(validation.infos, ecg, encode_text, task).auc.mean for task in TASKS}
    defined = [score for score in scores.values() if not np.isnan(score)]
    return {**scores, "mean": float(np.mean(defined)) if defined else 0.0}
