"""The model card: what the model is, what it was trained on, and what it scores."""

from dataclasses import asdict

import numpy as np

from fgclep import __version__
from fgclep.evaluation.text_search import (
    TASKS,
    TaskResult,
    WordingResult,
    evaluate_task,
    evaluate_wordings,
    wording_drop,
)
from fgclep.models.dual_encoder import FGCLEPModel
from fgclep.pretrained import Calibration
from fgclep.training.coarse import ValidationSet, encode_units
from fgclep.training.config import CoarseConfig

_TEMPLATE = """---
license: cc-by-4.0
tags: [ecg, text-retrieval, fgclep]
---
# fgclep bundle `{preset}`

Dual encoder for finding 12-lead ECGs by text. For education and research, not for diagnosis.

- **ECG tower**: {ecg_arch}, {ecg_parameters:.1f} M parameters, input 12 x {n_samples} at {fs_hz} Hz.
- **Text tower**: fine-tuned from `{text_tower}` ({text_parameters:.1f} M parameters; minilm is all-MiniLM-L6-v2,
  Apache-2.0) with a vocabulary of {vocabulary:,} word pieces.
- **Trained on**: {train_records:,} records of PTB-XL folds 1-8 (CC BY 4.0, Wagner et al. 2020) and {synthetic:,}
  synthetic ECGs of fgclep's own generator, with statements built from the catalogue of findings, report clauses and
  machine statements. Epoch chosen on fold 9; fold 10 was not touched.
- **In-domain**: the scores below are on PTB-XL, whose training folds and statements the model has seen. They are not
  zero-shot scores.
- Made with fgclep {version}; weights stored in float16.

## Text retrieval on PTB-XL fold 9 ({records:,} records, 100 Hz files)

Each class is asked for by its plain name. AUC, mAP and P@10 are means over classes; prevalence is what chance gives.

| task | records | classes | macro AUC | mAP | P@10 | prevalence |
|---|---|---|---|---|---|---|
{task_rows}

## Other wordings

{findings:.0f} findings with at least 10 positives, asked for in wordings that were kept out of training:
plain name AUC {plain:.3f}; mean over the held-out wordings {mean:.3f} lower; the worse of two (first and last held-out
wording) {worse_of_two:.3f} lower; the worst of all held-out wordings {worst:.3f} lower.

| finding | plain name | held-out wordings: mean | worst | the worst wording |
|---|---|---|---|---|
{wording_rows}

## Score

score = sigmoid({slope:.3f} x cosine + {offset:.3f}), fitted on the same fold over all 71 statements.
"""


def model_card(
    model: FGCLEPModel, validation: ValidationSet, config: CoarseConfig, train_records: int, calibration: Calibration
) -> tuple[str, dict[str, object]]:
    """Measure the model on the validation records and return its card and the numbers."""
    ecg = encode_units(model, validation.waveforms, autocast=False)
    tasks = {task: evaluate_task(validation.infos, ecg, model.encode_text, task) for task in TASKS}
    wordings = evaluate_wordings(validation.infos, ecg, model.encode_text)
    drop = wording_drop(wordings)
    card = _TEMPLATE.format(
        preset=config.preset,
        ecg_arch=model.config.ecg["arch"],
        ecg_parameters=sum(p.numel() for p in model.ecg_encoder.parameters()) / 1e6,
        n_samples=model.config.n_samples,
        fs_hz=model.config.n_samples // 10,
        text_tower=config.text_tower,
        text_parameters=sum(p.numel() for p in model.text_tower.parameters()) / 1e6,
        vocabulary=model.config.text["vocab_size"],
        train_records=train_records,
        synthetic=config.synthetic_records,
        version=__version__,
        records=len(validation.infos),
        task_rows="\n".join(_task_row(task, result) for task, result in tasks.items()),
        wording_rows="\n".join(map(_wording_row, wordings)),
        slope=calibration.slope,
        offset=calibration.offset,
        **drop,
    )
    numbers: dict[str, object] = {
        "tasks": {task: asdict(result) for task, result in tasks.items()},
        "wordings": [asdict(result) for result in wordings],
        "wording_drop": drop,
    }
    return card, numbers


def _task_row(task: str, result: TaskResult) -> str:
    return (
        f"| {task} | {result.records:,} | {len(result.auc.by_class)} | {result.auc.mean:.3f} "
        f"| {result.mean_average_precision.mean:.3f} | {result.precision_at_10.mean:.3f} | {result.prevalence:.3f} |"
    )


def _wording_row(result: WordingResult) -> str:
    worst = min(result.others, key=lambda text: result.others[text])
    mean = float(np.mean(list(result.others.values())))
    return f"| {result.finding} | {result.plain:.3f} | {mean:.3f} | {result.others[worst]:.3f} | {worst} |"
