"""Settings of training: of the two recipes of step 1, and of step 3."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgclep.errors import UsageError
from fgclep.evaluation.text_search import TASKS
from fgclep.models.config import ECG_PRESETS
from fgclep.models.tag_head import ALIGNMENTS
from fgclep.training.settings import make_settings, read_toml


@dataclass(frozen=True)
class CoarseConfig:
    """Settings of `fgclep train coarse` by our recipe, preset `small`.

    Attributes:
        tower: ECG tower (`fgclep.models.config.ECG_PRESETS`).
        text_tower: `minilm`, a directory or a hub id.
        start_from: `ecg_side.pt` of another run, whose ECG tower the first phase starts from; empty: from scratch.
        seed: seeds everything.
        epochs: passes over the records in the first phase, in which the ECG tower learns.
        patience: epochs without a better validation score after which the first phase ends.
        batch_size: ECGs per step.
        balanced_share: share of each batch that is drawn by finding, rare ones as often as common ones.
        left_open_weight: weight of "absent" where an annotator left a finding uncoded beside a code that may include it
            (`fgclep.training.labels.ptbxl_left_open`).
        shortest_crop: least share of the ten seconds that a step sees.
        mix: concentration of the shares with which ECGs are mixed (`fgclep.training.augment.mix`).
        learning_rate: peak of the one-cycle schedule.
        weight_decay: of AdamW.
        log_scale_init: start of t'. The paper's log 10 leaves too little room where an ECG has many true statements:
            it cannot stand close to all of them.
        bias_init: start of b. About log(share of true pairs); the paper's -10 suits its diagonal labels.
        synthetic_records: synthetic ECGs to add.
        ema_decay: of the averaged weights that are validated and saved.
        text_steps: steps of the second phase: the text tower learns, ECG vectors stay.
        extra_statements: machine statements, negations and conjunctions per step.
        anchor_weight: weight of the distance between a statement and the anchor of its finding.
        report_pairs: ECG-report pairs per step.
        report_weight: weight of the loss on ECG-report pairs (eq. 7) beside the loss on statements.
        similarity_weight: lambda of eq. 7. The published 0.5 with the inner sum outweighs everything else while the
            text head is untrained and all texts look alike.
        text_learning_rate: of the text tower; its head learns ten times faster.
        frozen_text_blocks: lowest transformer blocks of the text tower that stay as they are, with the embeddings.
        keep_frequent: most frequent word pieces of the text tower to keep beside those the texts need.
        tag_steps: steps of the third phase, in which the tag head learns; 0: no tag head.
        tag_alignment: `attention` or `transport`, see `fgclep.models.tag_head`.
        threads: torch threads; 0 leaves torch's default.
    """

    tower: str = "small"
    text_tower: str = "minilm"
    start_from: str = ""
    seed: int = 7
    epochs: int = 22
    patience: int = 4
    batch_size: int = 128
    balanced_share: float = 0.3
    left_open_weight: float = 0.3
    shortest_crop: float = 0.7
    mix: float = 0.2
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    log_scale_init: float = 3.4
    bias_init: float = -5.0
    synthetic_records: int = 4000
    ema_decay: float = 0.998
    text_steps: int = 700
    extra_statements: int = 64
    anchor_weight: float = 1.0
    report_pairs: int = 32
    report_weight: float = 0.005
    similarity_weight: float = 0.02
    text_learning_rate: float = 1e-4
    frozen_text_blocks: int = 2
    keep_frequent: int = 4000
    tag_steps: int = 0
    tag_alignment: str = "transport"
    threads: int = 0


@dataclass(frozen=True)
class PairSettings:
    """Settings of training on ECG-report pairs, shared by steps 1 and 3; the defaults are the paper's.

    Attributes:
        seed: seeds everything.
        epochs: passes over the pairs.
        patience: epochs without a better validation score after which training ends.
        batch_size: pairs that are compared with each other, in all processes together.
        accumulation: batches whose gradients make one step. Pairs of different batches are never compared, so this is
            not the same as a larger batch.
        learning_rate: of AdamW, at the end of the warm-up; a cosine takes it to zero.
        weight_decay: of AdamW.
        warmup_share: share of the steps in which the rate rises.
        clip_norm: gradients longer than this are cut to it; 0 leaves them. The paper tells of none.
        pair_labels: which pairs match: `diagonal` (the paper), `equal-text` (an ECG with every copy of its report's
            text; identical reports are common), or `soft` (FOCAL's loss in place of eq. 7).
        similarity_weight: lambda of eq. 7.
        similarity_reduction: of eq. 6: `sum` over texts as published, or `mean`.
        stop_gradient: whether the target of eq. 6 carries no gradient (METHOD A2; the paper leaves it open).
        rows_per_block: ECGs whose row of the pair matrix exists at a time.
        frozen_text_blocks: lowest transformer blocks of the text tower that stay as they are, with the embeddings.
            The paper does not say; its authors' later code trains the last three of twelve.
        synthetic_records: synthetic ECGs with their reports to add.
        validation_data: a PTB-XL tree or pack whose fold 9 chooses the epoch; empty: the validation records of the
            training data choose.
        validation_tasks: PTB-XL tasks whose macro AUC counts.
        checkpoint_steps: steps between checkpoints, beside those at the end of each epoch.
        precision: `auto` (bfloat16 where it is faster), `fp32` or `bf16`.
        compile: compile the ECG tower with torch.compile; pays on CUDA after the first minutes.
        threads: torch threads; 0 leaves torch's default.
    """

    seed: int = 7
    epochs: int = 10
    patience: int = 10
    batch_size: int = 100
    accumulation: int = 1
    learning_rate: float = 2e-5
    weight_decay: float = 1e-4
    warmup_share: float = 0.1
    clip_norm: float = 0.0
    pair_labels: str = "diagonal"
    similarity_weight: float = 0.5
    similarity_reduction: str = "sum"
    stop_gradient: bool = True
    rows_per_block: int = 1024
    frozen_text_blocks: int = 9
    synthetic_records: int = 0
    validation_data: str = ""
    validation_tasks: tuple[str, ...] = ("super", "sub", "form", "rhythm", "all")
    checkpoint_steps: int = 500
    precision: str = "auto"
    compile: bool = False
    threads: int = 0


@dataclass(frozen=True)
class PairConfig(PairSettings):
    """Settings of `fgclep train coarse` as in the paper, preset `fg-clep-v1` (METHOD A1-A3).

    Attributes:
        tower: ECG tower (`fgclep.models.config.ECG_PRESETS`).
        text_tower: `minilm`, a directory or a hub id.
        text_pool: `pooler`, `cls` or `mean`.
        max_tokens: texts are cut after so many tokens.
        log_scale_init: start of t', log 10.
        bias_init: start of b.
    """

    tower: str = "resnet1d-50"
    text_tower: str = "emilyalsentzer/Bio_ClinicalBERT"
    text_pool: str = "pooler"
    max_tokens: int = 128
    log_scale_init: float = 2.302585
    bias_init: float = -10.0


@dataclass(frozen=True)
class FineConfig(PairSettings):
    """Settings of `fgclep train fine`: the same pairs loss, three epochs, both towers trainable from end to end.

    Attributes:
        max_tokens: texts are cut after so many tokens; reports are longer with their features than without.
        start_share: share of the coarse model's weights in the result, the rest is of the best epoch: a mean of both
            may keep what either is good at (WiSE-FT, arXiv 2109.01903). The paper's is 0.
    """

    epochs: int = 3
    patience: int = 3
    frozen_text_blocks: int = 0
    max_tokens: int = 256
    start_share: float = 0.0


COARSE_PRESETS: dict[str, type[CoarseConfig] | type[PairConfig]] = {"small": CoarseConfig, "fg-clep-v1": PairConfig}
FINE_PRESETS: dict[str, dict[str, Any]] = {
    "small": {"pair_labels": "equal-text", "similarity_reduction": "mean", "clip_norm": 1.0},
    "fg-clep-v1": {},
}
_CHOICES = {
    "tower": tuple(ECG_PRESETS),
    "text_pool": ("pooler", "cls", "mean"),
    "pair_labels": ("diagonal", "equal-text", "soft"),
    "similarity_reduction": ("sum", "mean"),
    "precision": ("auto", "fp32", "bf16"),
    "validation_tasks": tuple(TASKS),
    "tag_alignment": ALIGNMENTS,
}


def read_config(path: Path | None, overrides: Mapping[str, Any]) -> CoarseConfig | PairConfig:
    """Read the settings of step 1: a preset's, what the file changes of them, and what the command line changes.

    Raises:
        UsageError: for a missing file, bad TOML, an unknown preset or key (naming the nearest) or an impossible value.
    """
    return coarse_settings(read_toml(path) | dict(overrides), str(path or ""))


def coarse_settings(values: Mapping[str, Any], where: str = "") -> CoarseConfig | PairConfig:
    """Build the settings of step 1 from a preset (`small` unless told) and what differs from it; raises as above."""
    preset, changed = _split_preset(values, tuple(COARSE_PRESETS))
    settings = make_settings(COARSE_PRESETS[preset], changed, _CHOICES, where)
    if isinstance(settings, CoarseConfig):
        _check_crop(settings)
    return settings


def _check_crop(settings: CoarseConfig) -> None:
    tower = ECG_PRESETS[settings.tower]
    if settings.shortest_crop < 1 and tower["pool"] != "mean-max-measures":
        raise UsageError(
            f"shortest_crop is {settings.shortest_crop:g}; the tower {settings.tower} knows places in the strip by "
            "number and takes whole ECGs only.",
            "-o shortest_crop=1",
        )
    if settings.shortest_crop < 0.35:
        raise UsageError(
            f"shortest_crop is {settings.shortest_crop:g}; the tower {settings.tower} measures rhythm over 3 s and "
            "needs at least 0.35 of the strip.",
            "-o shortest_crop=0.5",
        )


def read_fine_config(path: Path | None, overrides: Mapping[str, Any]) -> FineConfig:
    """Read the settings of step 3; raises as `read_config` does."""
    return fine_settings(read_toml(path) | dict(overrides), str(path or ""))


def fine_settings(values: Mapping[str, Any], where: str = "") -> FineConfig:
    """Build the settings of step 3 from a preset (`small` unless told) and what differs from it."""
    preset, changed = _split_preset(values, tuple(FINE_PRESETS))
    return make_settings(FineConfig, FINE_PRESETS[preset] | changed, _CHOICES, where)


def _split_preset(values: Mapping[str, Any], known: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    changed = dict(values)
    preset = changed.pop("preset", "small")
    if preset not in known:
        raise UsageError(f"unknown preset {preset!r}; expected one of {', '.join(known)}.")
    return preset, changed
