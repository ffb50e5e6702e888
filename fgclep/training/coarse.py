"""Step 1, CLEP: align ECGs with report statements.

Two phases. First the ECG tower learns against one free vector per finding, its anchor: a pretrained text tower puts
"left" and "right bundle branch block" at one point (cosine 0.97), and an ECG tower that trains against such texts
learns slowly. Then the ECG vectors stay, and the text tower learns to place wordings: near the anchors of what they
assert, and among the ECGs of which they are true. That is what makes a waveform description find what the plain name
finds.
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

from fgclep.evaluation.text_search import TASKS, TextEncoder, evaluate_task
from fgclep.findings.catalog import findings
from fgclep.losses import clep_loss, pair_labels, pair_logits, statement_loss
from fgclep.models.dual_encoder import FGCLEPModel
from fgclep.models.text_towers import trainable_parameters
from fgclep.record import RecordInfo
from fgclep.training.augment import augment
from fgclep.training.config import CoarseConfig
from fgclep.training.labels import Labels, finding_ids
from fgclep.training.statements import Statement, StatementSampler, statement_labels
from fgclep.training.waveforms import to_mv

TEXTS_PER_CHUNK = 104
ECGS_PER_TEXT_STEP = 1024


@dataclass
class TrainingSet:
    """Labelled ECGs with their reports.

    Attributes:
        waveforms: int16 blocks, each (n_k, 12, samples); rows count through all blocks.
        labels: int8, shape (n, findings).
        left_open: bool, same shape: unknown, but less sure to be present than where it is coded.
        reports: n cleaned report texts.
    """

    waveforms: Sequence[NDArray[np.int16]]
    labels: Labels
    left_open: NDArray[np.bool_]
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


def validate(
    model: FGCLEPModel, validation: ValidationSet, autocast: bool, encode_text: TextEncoder
) -> dict[str, float]:
    """Return macro AUC by plain-name text for each PTB-XL task, and the mean of the defined ones as `mean`."""
    ecg = encode_units(model, validation.waveforms, autocast)
    scores = {task: evaluate_task(validation.infos, ecg, encode_text, task).auc.mean for task in TASKS}
    defined = [score for score in scores.values() if not np.isnan(score)]
    return {**scores, "mean": float(np.mean(defined)) if defined else 0.0}


class Anchors(torch.nn.Module):
    """One free vector per finding, in the order of `finding_ids`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.vectors = torch.nn.Parameter(torch.randn(len(finding_ids()), dim) / dim**0.5)

    def forward(self) -> Tensor:
        """Return the anchors at unit length, (findings, dim)."""
        return F.normalize(self.vectors, dim=-1)

    def encode_names(self, names: Sequence[str]) -> NDArray[np.float32]:
        """Return the anchors of findings given by their plain names: what a perfect text tower would return."""
        column = {finding.name: number for number, finding in enumerate(findings().values())}
        vectors: NDArray[np.float32] = self().detach().cpu().numpy()[[column[name] for name in names]]
        return vectors


class _Learner(torch.nn.Module):
    """What the first phase trains, in one piece."""

    def __init__(self, model: FGCLEPModel, anchors: Anchors) -> None:
        super().__init__()
        self.model, self.anchors = model, anchors


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
        self.anchors = Anchors(model.dim).to(model.device)
        shown = _positives(data)
        self._positives = list(shown.values())
        self._of_whole_ecg = [rows for key, rows in shown.items() if findings()[key].group != "lead"]
        self._seed_epoch(-1)
        self.autocast = model.device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()

    def train(self) -> dict[str, float]:
        """Run both phases and leave the best weights in the model; returns the final validation scores."""
        state = None
        if self.checkpoint.is_file():
            state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        self._train_ecg_side(state)
        return self._train_text_side()

    def _seed_epoch(self, epoch: int) -> None:
        """Seed all randomness by the epoch, so that a resumed run draws what an unbroken one would have drawn."""
        torch.manual_seed(self.config.seed * 1000 + epoch + 1)
        self.rng = np.random.default_rng([self.config.seed, epoch + 1])
        self.python_rng = random.Random(self.config.seed * 1000 + epoch + 1)

    def _train_ecg_side(self, state: dict[str, Any] | None) -> None:
        model, config = self.model, self.config
        self._seed_epoch(-1)
        learner = _Learner(model, self.anchors)
        average = copy.deepcopy(learner)
        weights = [*model.ecg_encoder.parameters(), model.log_scale, model.bias, *self.anchors.parameters()]
        optimizer = torch.optim.AdamW(weights, lr=config.learning_rate, weight_decay=config.weight_decay)
        steps = len(self.data) // config.batch_size
        schedule = OneCycleLR(optimizer, config.learning_rate, total_steps=steps * config.epochs, pct_start=0.1)
        best, best_state, since_best, first_epoch = -1.0, average.state_dict(), 0, 0
        if state is not None:
            learner.load_state_dict(state["model"])
            average.load_state_dict(state["average"])
            optimizer.load_state_dict(state["optimizer"])
            schedule.load_state_dict(state["schedule"])
            best, best_state, since_best = state["best"], state["best_state"], state["since_best"]
            first_epoch = state["epochs_done"]
            self.report(f"resuming after epoch {first_epoch}")
        for epoch in range(first_epoch, config.epochs):
            if since_best >= config.patience:
                break
            self._seed_epoch(epoch)
            started, losses = time.monotonic(), []
            learner.train()
            order = self.rng.permutation(len(self.data))
            for step in range(steps):
                rows = self._balanced(order[step * config.batch_size : (step + 1) * config.batch_size])
                waveforms = torch.from_numpy(augment(self.data.batch(rows), self.fs_hz, self.rng)).to(model.device)
                with torch.autocast(model.device.type, torch.bfloat16, enabled=self.autocast):
                    ecg = model.ecg_encoder(waveforms)
                loss = self._findings_loss(pair_logits(ecg, self.anchors(), model.log_scale, model.bias), rows)
                self._step(loss, optimizer, weights, schedule)
                _update_average(
                    average, learner, min(config.ema_decay, (1 + schedule.last_epoch) / (10 + schedule.last_epoch))
                )
                losses.append(loss.item())
            scores = validate(average.model, self.validation, self.autocast, average.anchors.encode_names)
            since_best += 1
            if scores["mean"] > best:
                best, best_state, since_best = scores["mean"], copy.deepcopy(average.state_dict()), 0
            _save_atomically(
                {
                    "model": learner.state_dict(),
                    "average": average.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "best": best,
                    "best_state": best_state,
                    "since_best": since_best,
                    "epochs_done": epoch + 1,
                },
                self.checkpoint,
            )
            self.report(
                f"epoch {epoch + 1}/{config.epochs} loss {np.mean(losses):.4f} "
                + " ".join(f"{task} {value:.4f}" for task, value in scores.items())
                + f" {time.monotonic() - started:.0f} s"
            )
        learner.load_state_dict(best_state)

    def _findings_loss(self, logits: Tensor, rows: NDArray[np.intp]) -> Tensor:
        """Sigmoid loss of records against anchors over the known pairs; findings left open count as absent, weakly."""
        labels, left_open = self.data.labels[rows], self.data.left_open[rows]
        truth = torch.from_numpy(np.where(left_open, -1, labels).astype(np.float32)).to(logits.device)
        weights = np.where(left_open, self.config.left_open_weight, np.abs(labels)).astype(np.float32)
        losses = F.softplus(-truth * logits) * torch.from_numpy(weights).to(logits.device)
        return losses.sum() / max(float(weights.sum()), 1.0)

    def _train_text_side(self) -> dict[str, float]:
        """Let the text tower learn where wordings belong; ECG vectors, anchors, scale and bias stay."""
        model, config = self.model, self.config
        self._seed_epoch(config.epochs)
        ecg = np.concatenate([encode_units(model, block, self.autocast) for block in self.data.waveforms])
        anchors = self.anchors().detach()
        tower = trainable_parameters(model.text_tower, config.frozen_text_blocks)
        head = list(model.text_head.parameters())
        rate = config.text_learning_rate
        optimizer = torch.optim.AdamW([{"params": tower}, {"params": head}], lr=rate, weight_decay=0.01)
        schedule = OneCycleLR(optimizer, [rate, 10 * rate], total_steps=max(config.text_steps, 1), pct_start=0.1)
        started, losses = time.monotonic(), []
        for step in range(config.text_steps):
            model.train()
            statements = self.sampler.sample(self.python_rng, config.extra_statements)
            rows = self._rows_with_rare_findings()
            pairs = self.rng.choice(len(self.data), config.report_pairs, replace=False)
            reports = [self.data.reports[row] for row in pairs]
            features = self._text_features([s.text for s in statements] + reports).float()
            texts = model.project_text(features)
            asked, told = texts[: len(statements)], texts[len(statements) :]
            truth = torch.from_numpy(statement_labels(statements, self.data.labels[rows]).astype(np.float32))
            logits = pair_logits(torch.from_numpy(ecg[rows]).to(model.device), asked, model.log_scale, model.bias)
            loss = statement_loss(logits, truth.to(model.device))
            loss = loss + config.anchor_weight * self._distance_to_anchors(asked, statements, anchors)
            if config.report_pairs:
                same = pair_labels(torch.from_numpy(_unique_ids(reports)[0]).to(model.device))
                loss = loss + config.report_weight * clep_loss(
                    torch.from_numpy(ecg[pairs]).to(model.device),
                    told,
                    model.log_scale,
                    model.bias,
                    same,
                    config.similarity_weight,
                )
            self._step(loss, optimizer, [*tower, *head], schedule)
            losses.append(loss.item())
            if (step + 1) % 100 == 0:
                mean, seconds = np.mean(losses[-100:]), time.monotonic() - started
                self.report(f"text step {step + 1}/{config.text_steps} loss {mean:.4f} {seconds:.0f} s")
        scores = validate(model, self.validation, self.autocast, model.encode_text)
        self.report("with texts " + " ".join(f"{task} {value:.4f}" for task, value in scores.items()))
        return scores

    def _balanced(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Exchange a share of a batch for records of findings drawn with equal chance.

        Otherwise a finding of 30 records moves nothing beside one of 3,000, and a finding that is common among
        synthetic ECGs but rare among real ones is learned as "synthetic".
        """
        exchanged = round(self.config.balanced_share * len(rows))
        chosen = self.rng.integers(len(self._of_whole_ecg), size=exchanged)
        drawn = [self.rng.choice(self._of_whole_ecg[finding]) for finding in chosen]
        return np.sort(np.concatenate([rows[: len(rows) - len(drawn)], np.array(drawn, np.intp)]))

    def _rows_with_rare_findings(self) -> NDArray[np.intp]:
        """Return a random sample of records plus one record of every finding that has any."""
        sample = self.rng.choice(len(self.data), ECGS_PER_TEXT_STEP, replace=len(self.data) < ECGS_PER_TEXT_STEP)
        rare = [self.rng.choice(rows) for rows in self._positives]
        return np.concatenate([sample, np.array(rare, np.intp)])

    def _text_features(self, texts: list[str]) -> Tensor:
        """Return text-tower features (n, hidden); texts of like length go together, so that little is padding."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        parts = []
        for start in range(0, len(texts), TEXTS_PER_CHUNK):
            tokens = self.model.tokenize([texts[i] for i in order[start : start + TEXTS_PER_CHUNK]])
            with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.autocast):
                parts.append(self.model.text_features(**tokens))
        return torch.cat(parts)[torch.argsort(torch.tensor(order))]

    def _distance_to_anchors(self, texts: Tensor, statements: Sequence[Statement], anchors: Tensor) -> Tensor:
        """Return the mean of 1 - cos between texts that assert one finding alone and the anchors of those findings."""
        columns = {key: number for number, key in enumerate(finding_ids())}
        pairs = [
            (row, columns[key])
            for row, statement in enumerate(statements)
            for key, sign in statement.terms[:1]
            if len(statement.terms) == 1 and sign > 0 and key in self.sampler.wordings
        ]
        rows, numbers = zip(*pairs, strict=True)
        return 1 - (texts[list(rows)] * anchors[list(numbers)]).sum(dim=1).mean()

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


def _positives(data: TrainingSet) -> dict[str, NDArray[np.intp]]:
    """Return the rows that show each finding, of real records where any of them shows it; findings of none left out."""
    real = len(data.waveforms[0])
    found = {}
    for key, column in zip(finding_ids(), data.labels.T, strict=True):
        rows = np.flatnonzero(column == 1)
        if len(rows):
            found[key] = rows[rows < real] if rows[0] < real else rows
    return found


def _unique_ids(texts: Sequence[str]) -> tuple[NDArray[np.intp], list[str]]:
    """Return for each text the index of its distinct text, and the distinct texts."""
    numbers: dict[str, int] = {}
    ids = np.array([numbers.setdefault(text, len(numbers)) for text in texts])
    return ids, list(numbers)


@torch.no_grad()
def _update_average(average: torch.nn.Module, model: torch.nn.Module, decay: float) -> None:
    """Move the averaged weights towards the model's; the frozen text tower is left alone."""
    for (name, mean), current in zip(average.state_dict().items(), model.state_dict().values(), strict=True):
        if name.startswith("model.text_tower."):
            continue
        if mean.is_floating_point():
            mean.lerp_(current, 1 - decay)
        else:
            mean.copy_(current)
