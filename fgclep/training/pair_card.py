"""The model card of a model trained on ECG-report pairs."""

from dataclasses import asdict, dataclass

from fgclep import __version__
from fgclep.evaluation.tables import score_tables, score_text_search
from fgclep.models.dual_encoder import FGCLEPModel
from fgclep.preprocessing import EcgProcessor
from fgclep.pretrained import Calibration
from fgclep.training.config import PairSettings
from fgclep.training.pair_data import PairSet
from fgclep.training.pair_validation import PairValidation
from fgclep.training.training_set import encode_units

_TEMPLATE = """---
tags: [ecg, text-retrieval, fgclep]
---
# fgclep bundle, {step}

Dual encoder for finding 12-lead ECGs by text. For education and research, not for diagnosis.

- **ECG tower**: {ecg_arch}, {ecg_parameters:.1f} M parameters, input 12 x {n_samples} at {fs_hz} Hz.
- **Text tower**: {origin}, {text_parameters:.1f} M parameters.
- **Trained on**: {pairs:,} pairs of ECG and report of {data}, {texts:,} distinct texts{synthetic}.
  {enriched}{loss}; at most {epochs} epochs of batches of
  {batch_size}.
- **Epoch chosen on** {records:,} held-out records: {chosen}.
- Made with fgclep {version}; weights stored in float16.

{tables}
## Score

score = sigmoid({slope:.3f} x cosine + {offset:.3f}): the share of ECGs with this cosine that have the finding, if
{prevalence:.0%} of all ECGs searched have it. Fitted on the held-out records, to {truth}, each finding counting the
same. At another prevalence p multiply the odds by (p / (1 - p)) / (0.05 / 0.95).
"""


@dataclass(frozen=True)
class PairFacts:
    """What the card says of a run beside its settings.

    Attributes:
        step: which step of training, for people.
        origin: where the text tower came from.
        data: names of the data set.
        enriched: sentence about added statements; empty in step 1.
    """

    step: str
    origin: str
    data: str
    enriched: str = ""


def pair_card(
    model: FGCLEPModel,
    processor: EcgProcessor,
    pairs: PairSet,
    validation: PairValidation,
    settings: PairSettings,
    calibration: Calibration,
    chosen: dict[str, float],
    facts: PairFacts,
) -> tuple[str, dict[str, object]]:
    """Return the card and the numbers on it; labelled validation records are scored as for any other card."""
    numbers: dict[str, object] = {"chosen": chosen}
    tables = ""
    infos = validation.records.infos
    if validation.labelled:
        ecg = encode_units(model.ecg_encoder, validation.records.waveforms, autocast=False)
        scores = score_text_search(infos, ecg, model.encode_text)
        tables = score_tables(scores, f"PTB-XL fold 9, {len(infos):,} records")
        numbers |= asdict(scores)
    card = _TEMPLATE.format(
        **{key: value for key, value in asdict(facts).items() if key != "enriched"},
        pairs=len(pairs),
        texts=len(pairs.texts),
        enriched=facts.enriched and facts.enriched + " ",
        ecg_arch=model.config.ecg["arch"],
        ecg_parameters=sum(p.numel() for p in model.ecg_encoder.parameters()) / 1e6,
        n_samples=model.config.n_samples,
        fs_hz=processor.fs_hz,
        text_parameters=sum(p.numel() for p in model.text_tower.parameters()) / 1e6,
        synthetic=f"; up to {settings.synthetic_records:,} synthetic" if settings.synthetic_records else "",
        loss=_loss(settings),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        records=len(infos),
        chosen=", ".join(f"{name} {value:.3f}" for name, value in chosen.items()),
        version=__version__,
        tables=tables,
        slope=calibration.slope,
        offset=calibration.offset,
        prevalence=calibration.prevalence,
        truth="PTB-XL's statements" if validation.labelled else "the findings that their reports tell of",
    )
    return card, numbers


def _loss(settings: PairSettings) -> str:
    if settings.pair_labels == "soft":
        return "Soft-label loss of FOCAL"
    stopped = "" if settings.stop_gradient else ", with gradient through the target"
    return (
        f"Loss of arXiv 2505.11939 (eq. 7): pair labels {settings.pair_labels}, "
        f"lambda {settings.similarity_weight:g}, inner {settings.similarity_reduction}{stopped}"
    )
