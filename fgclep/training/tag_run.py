"""A run of the third phase alone: from a finished bundle to the same bundle with a tag head."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fgclep.errors import DataError
from fgclep.preprocessing import EcgProcessor
from fgclep.pretrained import bundle_fingerprint, load_calibration, load_model, save_bundle
from fgclep.training.config import CoarseConfig
from fgclep.training.run import (
    TRAIN_FOLDS,
    VALIDATION_FOLD,
    build_sampler,
    build_training_set,
    open_ptbxl,
)
from fgclep.training.tag_side import TagSettings, tag_auc, train_tag_side
from fgclep.training.training_set import ValidationSet
from fgclep.training.waveforms import read_waveforms

CARD_TITLE = "## Tag head"


def train_tags(
    bundle: Path,
    data: Path,
    out: Path,
    settings: TagSettings,
    synthetic_records: int,
    workers: int,
    report: Callable[[str], None],
) -> Path:
    """Train a tag head for a bundle on PTB-XL folds 1-8 plus synthetic ECGs; write the bundle to `out`/bundle.

    Args:
        bundle: the finished bundle; it is not changed, and what it encodes does not change either.
        data: a PTB-XL tree.
        out: run directory; holds the checkpoint and the waveform cache.
        settings: see `TagSettings`.
        synthetic_records: synthetic ECGs to add.
        workers: processes that read records.
        report: told one line per step of the run.

    Returns:
        The new bundle's directory.

    Raises:
        DataError: if the tree is not PTB-XL or has no records in the training folds.
        UsageError: if `out` holds a run with other settings.
    """
    model, processor = load_model(bundle), EcgProcessor.from_pretrained(bundle)
    dataset = open_ptbxl(data, processor)
    out.mkdir(parents=True, exist_ok=True)
    real = read_waveforms(dataset, processor, out / "cache", workers, report)
    folds = np.array([info.fold for info in real.infos])
    rows = np.flatnonzero(np.isin(folds, list(TRAIN_FOLDS)))
    held = np.flatnonzero(folds == VALIDATION_FOLD)
    if not len(rows) or not len(held):
        raise DataError(
            f"{data} has {len(rows)} records in folds 1-8 and {len(held)} in fold 9; both are needed.",
            f"fgclep data scan {data}",
        )
    config = CoarseConfig(seed=settings.seed, synthetic_records=synthetic_records)
    training = build_training_set(real, rows, config, processor, report)
    sampler = build_sampler(training, [], [real.infos[i] for i in rows], report)
    if torch.cuda.is_available():
        model.to("cuda")
    checkpoint = out / f"tag_side-{bundle_fingerprint(bundle)}.pt"
    train_tag_side(model, training, sampler, settings, processor.fs_hz, checkpoint, report)
    model.to("cpu").half().float().eval()  # the scores are to be of the weights as the bundle stores them
    scores = tag_auc(model, ValidationSet([real.infos[i] for i in held], real.waveforms.select(held)))
    report("tag scores " + " ".join(f"{task} {value:.4f}" for task, value in scores.items()))
    done = out / "bundle"
    card = (bundle / "README.md").read_text(encoding="utf-8").partition(CARD_TITLE)[0].rstrip()
    card += "\n\n" + card_section(settings, synthetic_records, len(rows), scores)
    save_bundle(done, model, model.tokenizer, processor, load_calibration(bundle), card)
    report(f"bundle written to {done}")
    return done


def card_section(settings: TagSettings, synthetic_records: int, records: int, scores: dict[str, float]) -> str:
    """Return what a model card says of the tag head.

    Args:
        settings: it was trained with.
        synthetic_records: synthetic ECGs among the training records.
        records: real ones.
        scores: macro AUC of its scores by task, from `tag_auc`.
    """
    measured = ", ".join(f"{task} {value:.3f}" for task, value in scores.items())
    return (
        f"{CARD_TITLE}\n\n"
        f"Twelve leads x ten windows, each lead read alone; aligned with tags by {settings.alignment}. Trained for "
        f"{settings.steps:,} steps of {settings.batch_size} ECGs on the finished model, from {records:,} real and "
        f"{synthetic_records:,} synthetic ECGs. It tells which leads and windows speak for a text; the vectors that "
        "an index holds are the model's own and do not depend on it. Macro AUC of its scores on PTB-XL fold 9, by "
        f"plain name: {measured}. How often it points at a right lead: `fgclep evaluate pointing`.\n"
    )
