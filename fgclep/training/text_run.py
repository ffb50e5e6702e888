"""A run of the second phase alone: a finished bundle learns further wordings; ECG vectors stay as they are."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch

from fgclep.errors import UsageError
from fgclep.models.dual_encoder import FGCLEPModel
from fgclep.preprocessing import EcgProcessor
from fgclep.pretrained import bundle_fingerprint, load_model, save_bundle
from fgclep.training.calibrate import fit_calibration
from fgclep.training.card import TAG_TITLE, measured_sections
from fgclep.training.coarse import MEMORY_WHILE_LEARNING
from fgclep.training.config import CoarseConfig
from fgclep.training.ecg_side import Anchors
from fgclep.training.labels import finding_ids
from fgclep.training.run import (
    build_sampler,
    build_training_set,
    name_sources,
    open_ptbxl,
    read_statements,
    split_by_fold,
)
from fgclep.training.run_folder import logged, pin_settings
from fgclep.training.statements import StatementSampler
from fgclep.training.tag_side import tag_auc
from fgclep.training.text_side import train_text_side
from fgclep.training.training_set import ValidationSet
from fgclep.training.waveforms import read_waveforms

LEARNING_RATE = 5e-5
"""Half of what the phase starts with on an untrained text head: a finished one is to keep what it knows."""


def train_text(
    bundle: Path,
    data: Path,
    out: Path,
    config: CoarseConfig,
    statements_file: Path | None,
    workers: int,
    report: Callable[[str], None],
) -> Path:
    """Train the text side of a bundle further, on PTB-XL folds 1-8 plus synthetic ECGs; write it to `out`/bundle.

    The wordings are those of the catalogue as it is now. ECG vectors, scale, bias and the memory of findings stay; the
    memory draws texts as weakly as in the second phase while they learn.

    Args:
        bundle: a finished bundle with a memory of findings; it is not changed.
        data: a PTB-XL tree or pack.
        out: run directory; holds the checkpoint and the waveform cache.
        config: of which the settings of the second phase, the seed and the synthetic records count.
        statements_file: report statements of another source, one per line, to learn the wording of.
        workers: processes that read records.
        report: told one line per hundred steps.

    Returns:
        The new bundle's directory.

    Raises:
        DataError: if the tree is not PTB-XL or has no records in the training or validation folds.
        UsageError: if the bundle has no such memory, or `out` holds a run with other settings.
    """
    model, processor = load_model(bundle), EcgProcessor.from_pretrained(bundle)
    if model.memory is None:
        raise UsageError(
            f"{bundle} has no memory of findings, whose places its texts are to learn.",
            "Take a bundle that `fgclep train coarse` made with preset small.",
        )
    dataset = open_ptbxl(data, processor)
    machine = read_statements(statements_file)
    blocks = model.text_tower.config.num_hidden_layers
    config = replace(config, frozen_text_blocks=min(config.frozen_text_blocks, blocks // 3))
    out.mkdir(parents=True, exist_ok=True)
    sources = name_sources(data, machine) | {"bundle": bundle_fingerprint(bundle)}
    pin_settings(out / "config.json", asdict(config) | sources)
    real = read_waveforms(dataset, processor, out / "cache", workers, report)
    rows, held = split_by_fold(real, data)
    training = build_training_set(real, rows, config, processor, report)
    sampler = build_sampler(training, machine, [real.infos[i] for i in rows], report)
    anchors = _remembered(model, sampler)
    if torch.cuda.is_available():
        model.to("cuda")
        anchors.to("cuda")
    findings, settings = model.memory.vectors.detach(), dict(model.config.memory)
    del settings["size"]
    model.remember(findings, **MEMORY_WHILE_LEARNING)
    train_text_side(model, anchors, training, sampler, config, out / "text_side.pt", logged(out, report))
    model.remember(findings, **settings)
    model.to("cpu").half().float().eval()  # the scores are to be of the weights as the bundle stores them
    validation = ValidationSet([real.infos[i] for i in held], real.waveforms.select(held))
    calibration = fit_calibration(model, validation)
    measured, _ = measured_sections(model, validation, calibration, dataset.fs_hz)
    done_now = (
        f"- **Text side trained further** for {config.text_steps:,} steps on the catalogue's wordings\n"
        f"  ({sum(map(len, sampler.wordings.values())):,}), ECG vectors unchanged; scored on fold 9 as before.\n"
    )
    card = _card(bundle, done_now, measured, tag_auc(model, validation) if model.config.tag else {})
    done = out / "bundle"
    save_bundle(done, model, model.tokenizer, processor, calibration, card)
    report(f"bundle written to {done}")
    return done


def _remembered(model: FGCLEPModel, sampler: StatementSampler) -> Anchors:
    """Return the model's memory as anchors: it holds the findings that its own training records settled, in order."""
    assert model.memory is not None
    learned = [number for number, key in enumerate(finding_ids()) if key in sampler.wordings]
    if len(learned) != len(model.memory.vectors):
        raise UsageError(
            f"The bundle remembers {len(model.memory.vectors)} findings; these records settle {len(learned)}.",
            "Train on the records that it was trained on, with as many --synthetic ECGs and the same --seed.",
        )
    anchors = Anchors(model.dim)
    with torch.no_grad():
        anchors.vectors[learned] = model.memory.vectors
    return anchors


def _card(bundle: Path, done_now: str, measured: str, tag_scores: dict[str, float]) -> str:
    """Return the bundle's card with what was done now, its scores of now, and what is still true of its tag head."""
    before = (bundle / "README.md").read_text(encoding="utf-8")
    card = before.partition("\n## ")[0].rstrip() + "\n" + done_now + "\n" + measured
    if not tag_scores:
        return card
    tags = before.partition(TAG_TITLE)[2].partition("\n## ")[0].rstrip()
    scores = ", ".join(f"{task} {value:.3f}" for task, value in tag_scores.items())
    return (
        f"{card}\n{TAG_TITLE}{tags}\n\nSince then the text side was trained further; its macro AUC is now: {scores}.\n"
    )
