"""Step 1, CLEP: align ECGs with report statements.

Two phases. First the ECG tower learns against one free vector per finding, its anchor (`ecg_side`): a pretrained text
tower puts "left" and "right bundle branch block" at one point (cosine 0.97), and an ECG tower that trains against such
texts learns slowly. Then the ECG vectors stay, and the text tower learns to place wordings (`text_side`): near the
anchors of what they assert, and among the ECGs of which they are true. That is what makes a waveform description find
what the plain name finds. The anchors stay in the model as its memory of findings, which draws texts to them.
"""

from collections.abc import Callable
from pathlib import Path

from fgclep.models.dual_encoder import FGCLEPModel
from fgclep.training.config import CoarseConfig
from fgclep.training.ecg_side import EcgSide, train_ecg_side
from fgclep.training.labels import finding_ids
from fgclep.training.statements import StatementSampler
from fgclep.training.steps import autocast_pays
from fgclep.training.text_side import train_text_side
from fgclep.training.training_set import TrainingSet, ValidationSet, validate

MEMORY_WHILE_LEARNING = {"sharpness": 16.0, "pull": 1.5, "threshold": 0.0}
MEMORY = {"sharpness": 16.0, "pull": 10.0, "threshold": 0.55}
"""The text tower has to learn to place texts by itself; once it can, findings may draw harder, but only what is near.
Chosen on fold 9; without the threshold so strong a pull turns negations round."""


def train_both_sides(
    model: FGCLEPModel,
    data: TrainingSet,
    validation: ValidationSet,
    sampler: StatementSampler,
    config: CoarseConfig,
    fs_hz: int,
    out: Path,
    report: Callable[[str], None],
) -> dict[str, float]:
    """Run both phases and leave the best weights in the model.

    Args:
        model: a fresh model with its tokenizer attached; trained in place.
        data: training records.
        validation: records that choose the epoch of the first phase.
        sampler: the text side.
        config: settings.
        fs_hz: rate of the waveforms.
        out: folder of the checkpoints of both phases; training goes on from them if they exist.
        report: told one line per epoch or hundred steps.

    Returns:
        Macro AUC by text on the validation set.
    """
    side = EcgSide(model)
    train_ecg_side(side, data, validation, config, fs_hz, out / "ecg_side.pt", report)
    learned = [number for number, key in enumerate(finding_ids()) if key in sampler.wordings]
    memory = side.anchors().detach()[learned]
    model.remember(memory, **MEMORY_WHILE_LEARNING)
    train_text_side(model, side.anchors, data, sampler, config, out / "text_side.pt", report)
    model.remember(memory, **MEMORY)
    scores = validate(model.ecg_encoder, validation, autocast_pays(model.device), model.encode_text)
    report("with texts " + " ".join(f"{task} {value:.4f}" for task, value in scores.items()))
    return scores
