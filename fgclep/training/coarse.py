"""Step 1, CLEP: align ECGs with report statements.

Three phases. First the text tower alone learns which wordings mean the same and which do not. Then the ECG tower learns
against the text tower, now frozen: cheap, because the statements of a run are encoded once. Last, the ECG vectors stay
and the text tower learns to place wordings among them: that is what makes a waveform description find what the plain
name finds.
"""

import copy
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from fgclep.evaluation.text_search import TASKS, evaluate_task
from fgclep.losses import clep_loss, pair_labels, pair_logits, statement_loss
from fgclep.models.dual_encoder import FGCLEPModel
from fgclep.models.text_towers import trainable_parameters
from fgclep.record import RecordInfo
from fgclep.training.augment import augment
from fgclep.training.config import CoarseConfig
from fgclep.training.labels import Labels
from fgclep.training.statements import Statement, StatementSampler, statement_labels
from fgclep.training.waveforms import to_mv

STATEMENTS_PER_CHUNK = 256
STATEMENTS_PER_TRAINING_CHUNK = 104
ECGS_PER_TEXT_STEP = 1024


@dataclass
class TrainingSet:
    """Labelled ECGs with their reports.

    Attributes:
        waveforms: int16 blocks, each (n_k, 12, samples); rows count through all blocks.
        labels: int8, shape (n, findings).
        reports: n cleaned report texts.
    """

    waveforms: Sequence[NDArray[np.int16]]
    labels: Labels
    reports: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return waveforms of the given rows in mV, float32 (len(rows), 12, samples)."""
        ends = np.cumsum([len(block) for block in self.waveforms])
        blocks = np.searchsorted(ends, rows, side="right")
        starts = ends - [len(block) for block in self.waveforms]
        units = np.stack([self.waveforms[b][r - starts[b]] for b, r in zip(blocks, rows, strict=True)])
        return to_mv(units)


@dataclass
class ValidationSet:
    """Validation records: infos with codes and prepared waveforms (int16)."""

    infos: list[RecordInfo]
    waveforms: NDArray[np.int16]


def encode_units(model: FGCLEPModel, waveforms: NDArray[np.int16], autocast: bool) -> NDArray[np.float32]:
    """Encode int16 waveforms in blocks."""
    with torch.autocast(model.device.type, torch.bfloat16, enabled=autocast):
        parts = [model.encode_ecg(to_mv(waveforms[i : i + 512])) for i in range(0, len(waveforms), 512)]
    return np.concatenate(parts) if parts else np.empty((0, model.dim), np.float32)


def validate(model: FGCLEPModel, validation: ValidationSet, autocast: bool) -> dict[str, float]:
    """Return macro AUC by plain-name text for each PTB-XL task, and the mean of the defined ones as `mean`."""
    ecg = encode_units(model, validation.waveforms, autocast)
    scores = {task: evaluate_task(validation.infos, ecg, model.encode_text, task).auc.mean for task in TASKS}
    defined = [score for score in scores.values() if not np.isnan(score)]
    return {**scores, "mean": float(np.mean(defined)) if defined else 0.0}


class CoarseTrainer:
    """Runs both phases; holds the best averaged weights seen on the validation set.

    Args:
        model: a fresh model with its tokenizer attached; trained in place.
        data: training records.
        validation: records that choose the epoch.
        sampler: the text side.
        config: settings.
        fs_hz: rate of the waveforms.
        checkpoint: file that holds the state after each epoch; training goes on from it if it exists.
        report: told one line per epoch.
    """

    def __init__(
        self,
        model: FGCLEPModel,
        data: TrainingSet,
        validation: ValidationSet,
        sampler: StatementSampler,
        config: CoarseConfig,
        fs_hz: int,
        checkpoint: Path,
        report: Callable[[str], None],
    ) -> None:
        self.model, self.data, self.validation, self.sampler = model, data, validation, sampler
        self.config, self.fs_hz, self.report = config, fs_hz, report
        self.checkpoint = checkpoint
        self._positives = _positives(data)
        self._seed_epoch(-1)
        self.autocast = model.device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()

    def train(self) -> dict[str, float]:
        """Run all phases and leave the best weights in the model; returns the final validation scores."""
        state = None
        if self.checkpoint.is_file():
            state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            self.model.load_state_dict(state["model"])
        else:
            self._teach_text_what_goes_together()
        self._train_ecg_side(state)
        return self._teach_text_where_ecgs_are()

    def _seed_epoch(self, epoch: int) -> None:
        """Seed all randomness by the epoch, so that a resumed run draws what an unbroken one would have drawn."""
        torch.manual_seed(self.config.seed * 1000 + epoch + 1)
        self.rng = np.random.default_rng([self.config.seed, epoch + 1])
        self.python_rng = random.Random(self.config.seed * 1000 + epoch + 1)

    def _train_ecg_side(self, state: dict[str, Any] | None) -> None:
        model, config = self.model, self.config
        if state is not None and state["epochs_done"] >= config.epochs:
            model.load_state_dict(state["best_state"])
            return
        self._seed_epoch(-1)
        batches = [
            self.sampler.sample(self.python_rng, config.extra_statements) for _ in range(config.statement_batches)
        ]
        self.report(f"encoding {sum(map(len, batches)):,} statements and the reports with the text tower")
        statement_features = [self._features([s.text for s in batch]) for batch in batches]
        report_ids, unique = _unique_ids(self.data.reports)
        report_features = self._features(unique)
        text_head = list(model.text_head.parameters())
        others = [*model.ecg_encoder.parameters(), model.log_scale, model.bias]
        learned = [*others, *text_head]
        rates = [config.learning_rate, config.learning_rate / 10]  # the head has learned already
        optimizer = torch.optim.AdamW(
            [{"params": others}, {"params": text_head}], lr=config.learning_rate, weight_decay=config.weight_decay
        )
        steps = len(self.data) // config.batch_size
        schedule = OneCycleLR(optimizer, rates, total_steps=steps * config.epochs, pct_start=0.1)
        average = copy.deepcopy(model)
        best, best_state, first_epoch = -1.0, average.state_dict(), 0
        if state is not None:
            average.load_state_dict(state["average"])
            optimizer.load_state_dict(state["optimizer"])
            schedule.load_state_dict(state["schedule"])
            best, best_state, first_epoch = state["best"], state["best_state"], state["epochs_done"]
            self.report(f"resuming after epoch {first_epoch}")
        for epoch in range(first_epoch, config.epochs):
            self._seed_epoch(epoch)
            started, losses = time.monotonic(), []
            model.train()
            order = self.rng.permutation(len(self.data))
            for step in range(steps):
                rows = self._balanced(order[step * config.batch_size : (step + 1) * config.batch_size])
                choice = self.python_rng.randrange(len(batches))
                waveforms = torch.from_numpy(augment(self.data.batch(rows), self.fs_hz, self.rng)).to(model.device)
                with torch.autocast(model.device.type, torch.bfloat16, enabled=self.autocast):
                    ecg = model.ecg_encoder(waveforms)
                loss = self._statements_loss(ecg, rows, statement_features[choice], batches[choice])
                groups = torch.from_numpy(report_ids[rows])
                reports = model.project_text(report_features[groups])
                loss = loss + config.report_weight * clep_loss(
                    ecg,
                    reports,
                    model.log_scale,
                    model.bias,
                    pair_labels(groups.to(ecg.device)),
                    config.similarity_weight,
                )
                self._step(loss, optimizer, learned, schedule)
                _update_average(
                    average, model, min(config.ema_decay, (1 + schedule.last_epoch) / (10 + schedule.last_epoch))
                )
                losses.append(loss.item())
            scores = validate(average, self.validation, self.autocast)
            if scores["mean"] > best:
                best, best_state = scores["mean"], copy.deepcopy(average.state_dict())
            _save_atomically(
                {
                    "model": model.state_dict(),
                    "average": average.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "best": best,
                    "best_state": best_state,
                    "epochs_done": epoch + 1,
                },
                self.checkpoint,
            )
            self.report(
                f"epoch {epoch + 1}/{config.epochs} loss {np.mean(losses):.4f} "
                + " ".join(f"{task} {value:.4f}" for task, value in scores.items())
                + f" {time.monotonic() - started:.0f} s"
            )
        model.load_state_dict(best_state)

    def _teach_text_what_goes_together(self) -> None:
        """Separate texts of different findings before the ECG tower sees them.

        A pretrained tower puts "left" and "right bundle branch block" at one point (cosine 0.97), and an ECG tower that
        trains against such texts learns slowly. Here a linear map of a record's true findings stands in for its ECG.
        """
        self._seed_epoch(self.config.epochs + 1)
        stand_in = torch.nn.Linear(self.data.labels.shape[1], self.model.dim, bias=False).to(self.model.device)

        def vectors(rows: NDArray[np.intp]) -> Tensor:
            truth = torch.from_numpy(self.data.labels[rows].astype(np.float32)).to(self.model.device)
            return F.normalize(stand_in(truth), dim=-1)

        self._train_text(vectors, self.config.warmup_text_steps, list(stand_in.parameters()))

    def _teach_text_where_ecgs_are(self) -> dict[str, float]:
        """Let the text tower learn where wordings belong; ECG vectors, scale and bias stay."""
        self._seed_epoch(self.config.epochs)
        ecg = np.concatenate([encode_units(self.model, block, self.autocast) for block in self.data.waveforms])

        def vectors(rows: NDArray[np.intp]) -> Tensor:
            return torch.from_numpy(ecg[rows]).to(self.model.device)

        self._train_text(vectors, self.config.text_steps, [])
        scores = validate(self.model, self.validation, self.autocast)
        self.report("after the last phase " + " ".join(f"{task} {value:.4f}" for task, value in scores.items()))
        return scores

    def _train_text(
        self, vectors: Callable[[NDArray[np.intp]], Tensor], steps: int, more: list[torch.nn.Parameter]
    ) -> None:
        """Train the text tower and its head against given vectors of records.

        Args:
            vectors: rows to unit-norm vectors (n, dim) that stand for those records.
            steps: optimiser steps.
            more: further parameters to learn, those of `vectors`.
        """
        if not steps:
            return
        model, rate = self.model, self.config.text_learning_rate
        tower = trainable_parameters(model.text_tower, self.config.frozen_text_blocks)
        others = [*model.text_head.parameters(), *more]
        optimizer = torch.optim.AdamW([{"params": tower}, {"params": others}], lr=rate, weight_decay=0.01)
        schedule = OneCycleLR(optimizer, [rate, 10 * rate], total_steps=steps, pct_start=0.1)
        started, losses = time.monotonic(), []
        for step in range(steps):
            model.train()
            statements = self.sampler.sample(self.python_rng, self.config.extra_statements)
            rows = self._rows_with_rare_findings()
            features = self._text_features([s.text for s in statements], STATEMENTS_PER_TRAINING_CHUNK)
            loss = self._statements_loss(vectors(rows), rows, features, statements)
            self._step(loss, optimizer, [*tower, *others], schedule)
            losses.append(loss.item())
            if (step + 1) % 100 == 0:
                seconds = time.monotonic() - started
                self.report(f"text step {step + 1}/{steps} loss {np.mean(losses[-100:]):.4f} {seconds:.0f} s")

    def _balanced(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Exchange a share of a batch for records of findings drawn with equal chance.

        Otherwise a finding of 30 records moves nothing beside one of 3,000, and a finding that is common among
        synthetic ECGs but rare among real ones is learned as "synthetic".
        """
        exchanged = round(self.config.balanced_share * len(rows))
        findings = [int(self.rng.integers(len(self._positives))) for _ in range(exchanged)]
        drawn = [self.rng.choice(self._positives[finding]) for finding in findings]
        return np.sort(np.concatenate([rows[: len(rows) - len(drawn)], np.array(drawn, np.intp)]))

    def _rows_with_rare_findings(self) -> NDArray[np.intp]:
        """Return a random sample of records plus one record of every finding that has any."""
        sample = self.rng.choice(len(self.data), ECGS_PER_TEXT_STEP, replace=len(self.data) < ECGS_PER_TEXT_STEP)
        rare = [self.rng.choice(rows) for rows in self._positives]
        return np.concatenate([sample, np.array(rare, np.intp)])

    def _statements_loss(
        self, ecg: Tensor, rows: NDArray[np.intp], features: Tensor, statements: Sequence[Statement]
    ) -> Tensor:
        truth = torch.from_numpy(statement_labels(statements, self.data.labels[rows]).astype(np.float32))
        text = self.model.project_text(features.float())
        return statement_loss(pair_logits(ecg, text, self.model.log_scale, self.model.bias), truth.to(ecg.device))

    @torch.no_grad()
    def _features(self, texts: list[str]) -> Tensor:
        """Return text-tower features (n, hidden) of texts with the tower as it is."""
        self.model.eval()
        return self._text_features(texts, STATEMENTS_PER_CHUNK)

    def _text_features(self, texts: list[str], chunk: int) -> Tensor:
        """Return text-tower features (n, hidden); texts of like length go together, so that little is padding."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        parts = []
        for start in range(0, len(texts), chunk):
            tokens = self.model.tokenize([texts[i] for i in order[start : start + chunk]])
            with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.autocast):
                parts.append(self.model.text_features(**tokens).float())
        return torch.cat(parts)[torch.argsort(torch.tensor(order))]

    @staticmethod
    def _step(loss: Tensor, optimizer: torch.optim.Optimizer, learned: Sequence[Tensor], schedule: OneCycleLR) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        schedule.step()


def _save_atomically(state: dict[str, Any], path: Path) -> None:
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def _positives(data: TrainingSet) -> list[NDArray[np.intp]]:
    """Return the rows that show each finding, of real records where any of them shows it; findings of none left out."""
    real = len(data.waveforms[0])
    found = []
    for column in data.labels.T:
        rows = np.flatnonzero(column == 1)
        if len(rows):
            found.append(rows[rows < real] if rows[0] < real else rows)
    return found


def _unique_ids(texts: Sequence[str]) -> tuple[NDArray[np.intp], list[str]]:
    """Return for each text the index of its distinct text, and the distinct texts."""
    numbers: dict[str, int] = {}
    ids = np.array([numbers.setdefault(text, len(numbers)) for text in texts])
    return ids, list(numbers)


@torch.no_grad()
def _update_average(average: FGCLEPModel, model: FGCLEPModel, decay: float) -> None:
    """Move the averaged weights towards the model's; the frozen text tower is left alone."""
    for (name, mean), current in zip(average.state_dict().items(), model.state_dict().values(), strict=True):
        if name.startswith("text_tower."):
            continue
        if mean.is_floating_point():
            mean.lerp_(current, 1 - decay)
        else:
            mean.copy_(current)
