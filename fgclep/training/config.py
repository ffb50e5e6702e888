"""Settings of a training run, read from TOML; unknown keys are refused."""

import difflib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fgclep.errors import UsageError
from fgclep.models.config import ECG_PRESETS


@dataclass(frozen=True)
class CoarseConfig:
    """Settings of `fgclep train coarse`.

    Attributes:
        preset: ECG tower (`fgclep.models.config.ECG_PRESETS`).
        text_tower: `minilm`, a directory or a hub id.
        seed: seeds everything.
        epochs: passes over the records in the first phase, in which the ECG tower learns.
        patience: epochs without a better validation score after which the first phase ends.
        batch_size: ECGs per step.
        balanced_share: share of each batch that is drawn by finding, rare ones as often as common ones.
        left_open_weight: weight of "absent" where an annotator left a finding uncoded beside a code that may include it
            (`fgclep.training.labels.ptbxl_left_open`).
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
        threads: torch threads; 0 leaves torch's default.
    """

    preset: str = "small"
    text_tower: str = "minilm"
    seed: int = 7
    epochs: int = 20
    patience: int = 3
    batch_size: int = 128
    balanced_share: float = 0.3
    left_open_weight: float = 0.3
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
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
    threads: int = 0


_NEVER_ZERO = ("epochs", "patience", "batch_size", "learning_rate")


def read_config(path: Path | None, overrides: dict[str, Any]) -> CoarseConfig:
    """Read a TOML file and apply command-line overrides.

    Raises:
        UsageError: for a missing file, bad TOML, an unknown key (naming the nearest) or a value of the wrong type.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"{path} is not a readable TOML file: {error}.") from error
    values |= overrides
    types = {field.name: type(field.default) for field in fields(CoarseConfig)}
    for key, value in values.items():
        if key not in types:
            near = difflib.get_close_matches(key, types, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(types)}"
            raise UsageError(f"unknown key {key!r} in the training configuration{f' {path}' if path else ''}.", hint)
        wanted = types[key]
        if not isinstance(value, wanted) and not (wanted is float and isinstance(value, int)):
            raise UsageError(f"{key} is {value!r}; expected {wanted.__name__}.")
        if isinstance(value, int | float) and (value < 0 or (value == 0 and key in _NEVER_ZERO)) and key != "bias_init":
            least = "more than zero" if key in _NEVER_ZERO else "zero or more"
            raise UsageError(f"{key} is {value}; expected {least}.")
    config = CoarseConfig(**values)
    if config.preset not in ECG_PRESETS:
        raise UsageError(f"unknown preset {config.preset!r}; expected one of {', '.join(ECG_PRESETS)}.")
    return config


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """Parse `key=value` settings of the command line; values are read as TOML, bare words as text.

    Raises:
        UsageError: for a pair without `=`.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator:
            raise UsageError(f"the setting {pair!r} has no '='; expected key=value, such as epochs=10.")
        try:
            values[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[key.strip()] = text.strip()
    return values
