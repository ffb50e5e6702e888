"""How good a model of pairs is on held-out records: loss, report retrieval, and macro AUC where there are labels."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fgclep.errors import DataError
from fgclep.evaluation.calibration import fit_platt
from fgclep.evaluation.text_search import TASKS, evaluate_task, task_labels
from fgclep.findings.catalog import findings
from fgclep.findings.tagger import tag_report
from fgclep.losses import clep_loss, pair_labels, pair_logits, soft_label_loss, soft_labels
from fgclep.models.dual_encoder import FGCLEPModel
from fgclep.pretrained import Calibration
from fgclep.training.config import PairSettings
from fgclep.training.pair_data import PairSet, pair_set
from fgclep.training.training_set import ValidationSet, encode_units
from fgclep.training.waveforms import WaveformSet

_TOP = 10
_ROWS = 1024


@dataclass
class PairValidation:
    """Held-out records.

    Attributes:
        records: all of them.
        pairs: those with a report to compare with, by their place among `records`.
        labelled: whether they carry PTB-XL codes.
    """

    records: ValidationSet
    pairs: PairSet
    labelled: bool


def open_validation(held: WaveformSet, labelled: bool, report: Callable[[str], None]) -> PairValidation:
    """Prepare held-out records.

    Args:
        held: records with waveforms.
        labelled: whether they carry PTB-XL codes.
        report: told how many have a usable report.

    Raises:
        DataError: if nothing can be measured on them: no report, and no finding both present and absent.
    """
    records = ValidationSet(held.infos, held.waveforms)
    pairs = pair_set([held.waveforms], held.infos, np.arange(len(held.infos)), {}, report)
    validation = PairValidation(records, pairs, labelled)
    _, _, labels = known_findings(validation)
    if not len(pairs) or not (labels.any(axis=0) & ~labels.all(axis=0)).any():
        raise DataError(
            f"the {len(held.infos)} validation records have {len(pairs)} usable reports, and no finding that some "
            "have and others do not; expected both, to choose the epoch and to fit scores.",
            "Take more records.",
        )
    return validation


def known_findings(validation: PairValidation) -> tuple[list[str], NDArray[np.intp], NDArray[np.bool_]]:
    """Return names of findings, the records they are known of, and which have them: bool (records, findings).

    PTB-XL's codes tell where there are any, else the tagger's reading of the reports.
    """
    infos = validation.records.infos
    if validation.labelled:
        rows, labels = task_labels(infos, "all")
        return [findings()[key].name for key in TASKS["all"]], rows, labels
    said = [tag_report(" ".join(info.report_lines)) for info in infos]
    labels = np.array([[tags.get(key, False) for key in findings()] for tags in said], bool)
    rows = np.flatnonzero([bool(info.report_lines) for info in infos])
    return [finding.name for finding in findings().values()], rows, labels[rows]


def calibrate(model: FGCLEPModel, validation: PairValidation, autocast: bool = False) -> Calibration:
    """Fit the score to `known_findings` by plain name."""
    ecg = encode_units(model.ecg_encoder, validation.records.waveforms, autocast)
    names, rows, labels = known_findings(validation)
    return fit_platt(ecg[rows] @ model.encode_text(names).T, labels)


def validate_pairs(
    model: FGCLEPModel, validation: PairValidation, settings: PairSettings, autocast: bool
) -> dict[str, float]:
    """Return `loss` and `r10` of the pairs, and for labelled records macro AUC by task and their `mean`.

    The loss is that of training, over batches in a fixed order; r10 is the share of ECGs whose own report's text is
    among the ten nearest of all distinct ones, texts at the same distance counting as nearer. The model is left in eval
    mode.
    """
    model.eval()
    ecg = encode_units(model.ecg_encoder, validation.records.waveforms, autocast)
    pairs = validation.pairs
    text = model.encode_text(pairs.texts)
    scores = {"loss": _loss(model, pairs, ecg, text, settings), "r10": _recall(ecg[pairs.rows], text, pairs.text_of)}
    if validation.labelled:
        infos = validation.records.infos
        by_task = {
            task: evaluate_task(infos, ecg, model.encode_text, task).auc.mean for task in settings.validation_tasks
        }
        defined = [score for score in by_task.values() if not np.isnan(score)]
        scores |= {**by_task, "mean": float(np.mean(defined)) if defined else 0.0}
    return scores


def goodness(scores: dict[str, float]) -> tuple[float, float]:
    """Return what the best epoch has most of: macro AUC, or where nothing is labelled r10; then the lower loss."""
    return scores.get("mean", scores["r10"]), -scores["loss"]


@torch.inference_mode()
def _loss(
    model: FGCLEPModel,
    pairs: PairSet,
    ecg: NDArray[np.float32],
    text: NDArray[np.float32],
    settings: PairSettings,
) -> float:
    losses: list[float] = []
    sizes: list[int] = []
    log_scale, bias = model.log_scale.cpu(), model.bias.cpu()
    for start in range(0, len(pairs), settings.batch_size):
        part = np.arange(start, min(start + settings.batch_size, len(pairs)))
        ecgs, texts = torch.from_numpy(ecg[pairs.rows[part]]), torch.from_numpy(text[pairs.text_of[part]])
        if settings.pair_labels == "soft":
            loss = soft_label_loss(pair_logits(ecgs, texts, log_scale, bias), soft_labels(texts))
        else:
            groups = pairs.text_of[part] if settings.pair_labels == "equal-text" else part
            labels = pair_labels(torch.from_numpy(groups))
            options = settings.similarity_weight, settings.similarity_reduction
            loss = clep_loss(ecgs, texts, log_scale, bias, labels, *options)
        losses.append(float(loss))
        sizes.append(len(part))
    return float(np.average(losses, weights=sizes))


def _recall(ecg: NDArray[np.float32], text: NDArray[np.float32], own: NDArray[np.int64]) -> float:
    hits = 0
    for start in range(0, len(ecg), _ROWS):
        cosines = ecg[start : start + _ROWS] @ text.T
        mine = np.take_along_axis(cosines, own[start : start + _ROWS, None], axis=1)
        hits += int(((cosines >= mine).sum(axis=1) <= _TOP).sum())  # itself among them: collapsed texts find nothing
    return hits / len(ecg)


def describe(scores: dict[str, float]) -> str:
    """Return scores as one line."""
    return " ".join(f"{name} {scores[name]:.4f}" for name in scores)
