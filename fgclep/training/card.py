"""The model card: what the model is, what it was trained on, and what it scores."""

from dataclasses import asdict, dataclass

from fgclep import __version__
from fgclep.evaluation.tables import score_tables, score_text_search
from fgclep.models.dual_encoder import FGCLEPModel
from fgclep.pretrained import Calibration
from fgclep.training.config import CoarseConfig
from fgclep.training.tag_side import TagSettings
from fgclep.training.training_set import ValidationSet, encode_units

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
  synthetic ECGs of fgclep's own generator. Texts: wordings of the catalogue of findings, clauses of the training
  records' reports, and {machine_statements:,} report statements of another source (texts only, no ECGs).
  Epoch chosen on fold 9; fold 10 was not touched.
- **In-domain**: the scores below are on PTB-XL, whose training folds and statements the model has seen. They are not
  zero-shot scores.
- Made with fgclep {version}; weights stored in float16.

{measured}"""

_MEASURED = """{tables}
## Score

score = sigmoid({slope:.3f} x cosine + {offset:.3f}): the share of ECGs with this cosine that have the finding, if
{prevalence:.0%} of all ECGs searched have it. Fitted on the same fold over all 71 statements, each counting the same.
At another prevalence p multiply the odds by (p / (1 - p)) / (0.05 / 0.95).
"""

TAG_TITLE = "## Tag head"
"""Where a card begins to speak of the tag head."""


@dataclass(frozen=True)
class TrainingFacts:
    """What the card says about a run beside its settings."""

    train_records: int
    machine_statements: int
    files_fs_hz: int | None
    model_fs_hz: int


def model_card(
    model: FGCLEPModel,
    validation: ValidationSet,
    config: CoarseConfig,
    calibration: Calibration,
    facts: TrainingFacts,
) -> tuple[str, dict[str, object]]:
    """Measure the model on the validation records and return its card and the numbers."""
    measured, scores = measured_sections(model, validation, calibration, facts.files_fs_hz)
    card = _TEMPLATE.format(
        preset=config.tower,
        ecg_arch=model.config.ecg["arch"],
        ecg_parameters=sum(p.numel() for p in model.ecg_encoder.parameters()) / 1e6,
        n_samples=model.config.n_samples,
        fs_hz=facts.model_fs_hz,
        text_tower=config.text_tower,
        text_parameters=sum(p.numel() for p in model.text_tower.parameters()) / 1e6,
        vocabulary=model.config.text["vocab_size"],
        train_records=facts.train_records,
        machine_statements=facts.machine_statements,
        synthetic=config.synthetic_records,
        version=__version__,
        measured=measured,
    )
    return card, scores


def measured_sections(
    model: FGCLEPModel, validation: ValidationSet, calibration: Calibration, files_fs_hz: int | None
) -> tuple[str, dict[str, object]]:
    """Measure the model on the validation records; return a card's sections on its scores, and the numbers."""
    ecg = encode_units(model.ecg_encoder, validation.waveforms, autocast=False)
    scores = score_text_search(validation.infos, ecg, model.encode_text)
    sections = _MEASURED.format(
        tables=score_tables(scores, f"PTB-XL fold 9, {len(validation.infos):,} records, {files_fs_hz} Hz files"),
        **asdict(calibration),
    )
    return sections, asdict(scores)


def tag_section(settings: TagSettings, synthetic_records: int, records: int, scores: dict[str, float]) -> str:
    """Return what a model card says of the tag head.

    Args:
        settings: it was trained with.
        synthetic_records: synthetic ECGs among the training records.
        records: real ones.
        scores: macro AUC of its scores by task, from `tag_auc`.
    """
    measured = ", ".join(f"{task} {value:.3f}" for task, value in scores.items())
    return (
        f"{TAG_TITLE}\n\n"
        f"Twelve leads x ten windows, each lead read alone; aligned with tags by {settings.alignment}. Trained for "
        f"{settings.steps:,} steps of {settings.batch_size} ECGs on the finished model, from {records:,} real and "
        f"{synthetic_records:,} synthetic ECGs. It tells which leads and windows speak for a text; the vectors that "
        "an index holds are the model's own and do not depend on it. Macro AUC of its scores on PTB-XL fold 9, by "
        f"plain name: {measured}. How often it points at a right lead: `fgclep evaluate pointing`.\n"
    )
