"""A whole run of step 1 by our recipe: from a PTB-XL tree or pack to a model bundle."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fgclep.datasets import Dataset, open_for_rate
from fgclep.errors import DataError, UsageError
from fgclep.findings.tagger import split_report
from fgclep.models.config import ECG_PRESETS
from fgclep.models.text_towers import load_text_tower, prune_vocabulary
from fgclep.preprocessing import EcgProcessor
from fgclep.pretrained import save_bundle
from fgclep.record import RecordInfo
from fgclep.reports import clean_report
from fgclep.training.calibrate import fit_calibration
from fgclep.training.card import TrainingFacts, model_card, tag_section
from fgclep.training.coarse import train_both_sides
from fgclep.training.config import CoarseConfig
from fgclep.training.fresh_model import fresh_model
from fgclep.training.labels import finding_ids, ptbxl_labels, ptbxl_left_open, synthetic_labels
from fgclep.training.run_folder import logged, pin_settings
from fgclep.training.statements import StatementSampler, machine_statements
from fgclep.training.tag_side import TagSettings, tag_auc, train_tag_side
from fgclep.training.training_set import TrainingSet, ValidationSet
from fgclep.training.waveforms import WaveformSet, read_waveforms, synthetic_waveforms

TRAIN_FOLDS = range(1, 9)
VALIDATION_FOLD = 9


def train_coarse(
    data: Path,
    out: Path,
    config: CoarseConfig,
    statements_file: Path | None,
    workers: int,
    report: Callable[[str], None],
) -> Path:
    """Train CLEP on PTB-XL folds 1-8 plus synthetic ECGs, choose on fold 9, write a bundle to `out`/bundle.

    Args:
        data: a PTB-XL tree or pack.
        out: run directory; the waveform cache and the training log stay in it.
        config: settings, saved beside the bundle.
        statements_file: report statements of another source, one per line, to learn the wording of.
        workers: processes that read records.
        report: told one line per step of the run.

    Returns:
        The bundle's directory.

    Raises:
        DataError: if the tree is not PTB-XL or has no records in the training or validation folds.
        UsageError: if the statements cannot be read, a batch is larger than the data, or `out` holds another run.
        NotSetUpError: if the text tower is not to be had.
    """
    preset = ECG_PRESETS[config.tower]
    processor = EcgProcessor(**preset["input"])
    dataset = open_ptbxl(data, processor)
    machine = read_statements(statements_file)
    torch.manual_seed(config.seed)
    if config.threads:
        torch.set_num_threads(config.threads)
    tower, tokenizer = load_text_tower(config.text_tower)
    out.mkdir(parents=True, exist_ok=True)
    pin_settings(out / "config.json", asdict(config) | name_sources(data, machine))
    report(f"reading {data} at {dataset.fs_hz} Hz")
    real = read_waveforms(dataset, processor, out / "cache", workers, report)
    report(f"{len(real.infos):,} records read")
    train_rows, validation_rows = split_by_fold(real, data)
    training = build_training_set(real, train_rows, config, processor, report)
    if len(training) < config.batch_size:
        raise UsageError(f"batch_size is {config.batch_size}; there are only {len(training)} training records.")
    validation = ValidationSet([real.infos[i] for i in validation_rows], real.waveforms.select(validation_rows))
    sampler = build_sampler(training, machine, [real.infos[i] for i in train_rows], report)
    model = fresh_model(
        preset,
        processor,
        tower,
        prune_vocabulary(tower, tokenizer, sampler.all_texts(), config.keep_frequent),
        text_pool="mean",
        max_tokens=128,
        text_hidden=None,
        log_scale_init=config.log_scale_init,
        bias_init=config.bias_init,
    )
    report(
        f"ECG tower {sum(p.numel() for p in model.ecg_encoder.parameters()) / 1e6:.1f} M parameters, "
        f"text vocabulary {tower.config.vocab_size:,} pieces"
    )
    if torch.cuda.is_available():
        model.to("cuda")
    tell = logged(out, report)
    train_both_sides(model, training, validation, sampler, config, processor.fs_hz, out, tell)
    settings = TagSettings(steps=config.tag_steps, alignment=config.tag_alignment, seed=config.seed)
    if config.tag_steps:
        train_tag_side(model, training, sampler, settings, processor.fs_hz, out / "tag_side.pt", tell)
    model.to("cpu").half().float().eval()  # the card is to score the weights as the bundle stores them
    calibration = fit_calibration(model, validation)
    facts = TrainingFacts(len(train_rows), len(machine), dataset.fs_hz, processor.fs_hz)
    card, scores = model_card(model, validation, config, calibration, facts)
    if config.tag_steps:
        card += "\n" + tag_section(settings, config.synthetic_records, len(train_rows), tag_auc(model, validation))
    bundle = out / "bundle"
    save_bundle(bundle, model, model.tokenizer, processor, calibration, card)
    (out / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    report(f"bundle written to {bundle}")
    return bundle


def open_ptbxl(data: Path, processor: EcgProcessor) -> Dataset:
    """Open a PTB-XL tree or pack at the rate that suits a model's input.

    Raises:
        NotSetUpError: if it does not exist.
        DataError: if it is another data set.
    """
    dataset = open_for_rate(data, processor.fs_hz)
    if dataset.kind != "ptb-xl":
        raise DataError(
            f"{data} is a {dataset.kind} tree; this training reads PTB-XL.",
            "On any ECGs with reports: fgclep train coarse -o preset=fg-clep-v1",
        )
    return dataset


def name_sources(data: Path, statements: Sequence[str]) -> dict[str, str]:
    """Return what a run learns from, to be pinned beside its settings."""
    return {
        "data": str(data.resolve()),
        "statements": hashlib.sha256("\n".join(statements).encode()).hexdigest()[:16],
    }


def split_by_fold(real: WaveformSet, data: Path) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows of PTB-XL's folds 1-8 and those of fold 9.

    Raises:
        DataError: if either has none.
    """
    folds = np.array([info.fold for info in real.infos])
    train_rows, held = np.flatnonzero(np.isin(folds, list(TRAIN_FOLDS))), np.flatnonzero(folds == VALIDATION_FOLD)
    if not len(train_rows) or not len(held):
        raise DataError(
            f"{data} has {len(train_rows)} records in folds 1-8 and {len(held)} in fold 9; both are needed.",
            f"fgclep data scan {data}",
        )
    return train_rows, held


def read_statements(file: Path | None) -> list[str]:
    """Return the lines of a list of report statements; none without a file.

    Raises:
        UsageError: if it cannot be read.
    """
    if file is None:
        return []
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not a readable UTF-8 list of statements: {error}.") from error


def build_training_set(
    real: WaveformSet,
    rows: np.ndarray,
    config: CoarseConfig,
    processor: EcgProcessor,
    report: Callable[[str], None],
) -> TrainingSet:
    """Label records and add the synthetic ones.

    Args:
        real: PTB-XL records.
        rows: those of them to train on.
        config: whose `seed` and `synthetic_records` count.
        processor: the model's input.
        report: told what is done.
    """
    infos = [real.infos[i] for i in rows]
    report(f"{config.synthetic_records:,} synthetic ECGs are generated")
    synthetic = synthetic_waveforms(config.seed, config.synthetic_records, processor)
    labels = np.concatenate([np.stack([ptbxl_labels(info) for info in infos]), synthetic_labels(synthetic.infos)])
    reports = [clean_report(info.report_lines, lower=True) for info in [*infos, *synthetic.infos]]
    left_open = np.zeros(labels.shape, bool)
    left_open[: len(infos)] = [ptbxl_left_open(info) for info in infos]
    ids = [info.record_id for info in [*infos, *synthetic.infos]]
    return TrainingSet([real.waveforms.select(rows), synthetic.waveforms], labels, left_open, reports, ids)


def build_sampler(
    training: TrainingSet, machine_texts: Sequence[str], infos: Sequence[RecordInfo], report: Callable[[str], None]
) -> StatementSampler:
    """Collect what can be said of the training records.

    Args:
        training: labelled records.
        machine_texts: report statements of another source.
        infos: records whose reports lend their clauses.
        report: told how much there is.
    """
    has_both = (training.labels == 1).any(axis=0) & (training.labels == -1).any(axis=0)
    usable = [key for key, both in zip(finding_ids(), has_both, strict=True) if both]
    machine = machine_statements(machine_texts)
    clauses = (clause for info in infos for line in info.report_lines for clause in split_report(line))
    own = machine_statements(clauses)
    report(
        f"{len(usable)} of {len(finding_ids())} findings can be learned; {len(machine):,} machine statements, "
        f"{len(own):,} clauses of reports"
    )
    return StatementSampler(machine + own, usable)
