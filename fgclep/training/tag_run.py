"""A run of the third phase alone: from a finished bundle to the same bundle with a tag head."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from fgclep.preprocessing import EcgProcessor
from fgclep.pretrained import bundle_fingerprint, load_calibration, load_model, save_bundle
from fgclep.training.card import TAG_TITLE, tag_section
from fgclep.training.config import CoarseConfig
from fgclep.training.run import build_sampler, build_training_set, open_ptbxl, split_by_fold
from fgclep.training.run_folder import pin_settings
from fgclep.training.tag_side import TagSettings, tag_auc, train_tag_side
from fgclep.training.training_set import ValidationSet
from fgclep.training.waveforms import read_waveforms


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
        data: a PTB-XL tree or pack.
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
    sources = {"synthetic_records": synthetic_records, "data": str(data.resolve())}
    pin_settings(out / "config.json", asdict(settings) | sources)
    real = read_waveforms(dataset, processor, out / "cache", workers, report)
    rows, held = split_by_fold(real, data)
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
    card = (bundle / "README.md").read_text(encoding="utf-8").partition(TAG_TITLE)[0].rstrip()
    card += "\n\n" + tag_section(settings, synthetic_records, len(rows), scores)
    save_bundle(done, model, model.tokenizer, processor, load_calibration(bundle), card)
    report(f"bundle written to {done}")
    return done
