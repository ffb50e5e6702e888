"""Second phase of step 1: the text tower learns where wordings belong; ECG vectors, anchors, scale and bias stay."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from fgclep.losses import clep_loss, pair_labels, pair_logits, statement_loss
from fgclep.models.dual_encoder import FGCLEPModel
from fgclep.models.text_towers import trainable_parameters
from fgclep.training.config import CoarseConfig
from fgclep.training.ecg_side import Anchors
from fgclep.training.labels import finding_ids
from fgclep.training.statements import Statement, StatementSampler, statement_labels
from fgclep.training.steps import Phase, autocast_pays, optimizer_step, read_state, rows_by_finding, save_state
from fgclep.training.training_set import TrainingSet, encode_units

TEXTS_PER_CHUNK = 104
ECGS_PER_STEP = 1024
STEPS_PER_CHECKPOINT = 100


def train_text_side(
    model: FGCLEPModel,
    anchors: Anchors,
    data: TrainingSet,
    sampler: StatementSampler,
    config: CoarseConfig,
    checkpoint: Path,
    report: Callable[[str], None],
) -> None:
    """Train the text tower and its head for `config.text_steps`.

    Args:
        model: trained in place; its ECG side is done.
        anchors: of the findings, done too.
        data: training records.
        sampler: draws the statements.
        config: settings.
        checkpoint: holds the state after every hundred steps; training goes on from it if it exists.
        report: told one line per hundred steps.
    """
    trainer = _TextSide(model, anchors, data, sampler, config)
    tower = trainable_parameters(model.text_tower, config.frozen_text_blocks)
    head = list(model.text_head.parameters())
    rate = config.text_learning_rate
    optimizer = torch.optim.AdamW([{"params": tower}, {"params": head}], lr=rate, weight_decay=0.01)
    schedule = OneCycleLR(optimizer, [rate, 10 * rate], total_steps=max(config.text_steps, 1), pct_start=0.1)
    size = config.extra_statements
    phase = Phase(
        "the text phase",
        checkpoint,
        data.record_ids,
        f"extra_statements {size} and report_pairs {config.report_pairs}",
        f"-o extra_statements={size // 2} -o report_pairs={config.report_pairs // 2}",
    )
    first, started, losses = 0, monotonic(), []
    if checkpoint.is_file():
        state = read_state(checkpoint)
        model.text_tower.load_state_dict(state["tower"])
        model.text_head.load_state_dict(state["head"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        first = state["steps_done"]
        report(f"resuming after text step {first}")
    for step in range(first, config.text_steps):
        if step % STEPS_PER_CHECKPOINT == 0:
            trainer.seed(step)
        losses.append(optimizer_step(trainer.loss, optimizer, [*tower, *head], schedule, phase))
        if (step + 1) % STEPS_PER_CHECKPOINT == 0:
            save_state(
                {
                    "tower": model.text_tower.state_dict(),
                    "head": model.text_head.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "steps_done": step + 1,
                },
                checkpoint,
            )
            report(
                f"text step {step + 1}/{config.text_steps} loss {np.mean(losses[-STEPS_PER_CHECKPOINT:]):.4f} "
                f"{monotonic() - started:.0f} s"
            )


class _TextSide:
    """The loss of one step of the second phase."""

    def __init__(
        self,
        model: FGCLEPModel,
        anchors: Anchors,
        data: TrainingSet,
        sampler: StatementSampler,
        config: CoarseConfig,
    ) -> None:
        self.model, self.data, self.sampler, self.config = model, data, sampler, config
        self.autocast = autocast_pays(model.device)
        self.positives = list(rows_by_finding(data).values())
        self.anchors = anchors().detach()
        self.ecg = np.concatenate([encode_units(model.ecg_encoder, block, self.autocast) for block in data.waveforms])

    def seed(self, step: int) -> None:
        """Seed all randomness, so that a run resumed at this step draws what an unbroken one would have drawn."""
        torch.manual_seed(self.config.seed * 1000 + step)
        self.rng = np.random.default_rng([self.config.seed, 1_000_000 + step])
        self.python_rng = random.Random(self.config.seed * 1_000_000 + step)

    def loss(self) -> tuple[Tensor, NDArray[np.intp]]:
        """Draw statements, ECGs and report pairs; return the loss, and the rows of the reports."""
        model, config, device = self.model, self.config, self.model.device
        model.train()
        statements = self.sampler.sample(self.python_rng, config.extra_statements)
        rows = self._rows_with_rare_findings()
        pairs = self.rng.choice(len(self.data), config.report_pairs, replace=False)
        reports = [self.data.reports[row] for row in pairs]
        texts = model.project_text(self._features([s.text for s in statements] + reports).float())
        asked, told = texts[: len(statements)], texts[len(statements) :]
        truth = torch.from_numpy(statement_labels(statements, self.data.labels[rows]).astype(np.float32))
        logits = pair_logits(torch.from_numpy(self.ecg[rows]).to(device), asked, model.log_scale, model.bias)
        # "no X" is true of nearly every ECG: counted as they come, X itself would not matter
        negated = torch.tensor([any(sign < 0 for _, sign in s.terms) for s in statements])
        loss = statement_loss(logits, truth.to(device), negated.to(device))
        loss = loss + config.anchor_weight * self._distance_to_anchors(asked, statements)
        if config.report_pairs:
            same = pair_labels(torch.from_numpy(_text_ids(reports)).to(device))
            ecg = torch.from_numpy(self.ecg[pairs]).to(device)
            paired = clep_loss(ecg, told, model.log_scale, model.bias, same, config.similarity_weight)
            loss = loss + config.report_weight * paired
        return loss, pairs

    def _rows_with_rare_findings(self) -> NDArray[np.intp]:
        """Return a random sample of records plus one record of every finding that has any."""
        sample = self.rng.choice(len(self.data), ECGS_PER_STEP, replace=len(self.data) < ECGS_PER_STEP)
        rare = [self.rng.choice(rows) for rows in self.positives]
        return np.concatenate([sample, np.array(rare, np.intp)])

    def _features(self, texts: list[str]) -> Tensor:
        """Return text-tower features (n, hidden); texts of like length go together, so that little is padding."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        parts = []
        for start in range(0, len(texts), TEXTS_PER_CHUNK):
            tokens = self.model.tokenize([texts[i] for i in order[start : start + TEXTS_PER_CHUNK]])
            with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.autocast):
                parts.append(self.model.text_features(**tokens))
        return torch.cat(parts)[torch.argsort(torch.tensor(order))]

    def _distance_to_anchors(self, texts: Tensor, statements: Sequence[Statement]) -> Tensor:
        """Return the mean of 1 - cos between texts that assert one finding alone and the anchors of those findings."""
        columns = {key: number for number, key in enumerate(finding_ids())}
        pairs = [
            (row, columns[key])
            for row, statement in enumerate(statements)
            for key, sign in statement.terms[:1]
            if len(statement.terms) == 1 and sign > 0 and key in self.sampler.wordings
        ]
        rows, numbers = zip(*pairs, strict=True)
        distance: Tensor = 1 - (texts[list(rows)] * self.anchors[list(numbers)]).sum(dim=1).mean()
        return distance


def _text_ids(texts: Sequence[str]) -> NDArray[np.intp]:
    """Return for each text the index of its distinct text."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(text, len(numbers)) for text in texts])
