"""First phase of step 1: the ECG tower learns against one free vector per finding."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import monotonic

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from fgclep.errors import CorruptionError, UsageError
from fgclep.findings.catalog import findings
from fgclep.losses import pair_logits
from fgclep.models.dual_encoder import FGCLEPModel
from fgclep.training.augment import augment, crop, mix
from fgclep.training.config import CoarseConfig
from fgclep.training.labels import finding_ids
from fgclep.training.steps import Phase, autocast_pays, optimizer_step, read_state, rows_by_finding, save_state
from fgclep.training.training_set import TrainingSet, ValidationSet, validate


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


class EcgSide(torch.nn.Module):
    """What the first phase trains: a model's ECG tower, scale and bias, and the anchors.

    Args:
        model: whose tower, scale and bias are trained in place.
    """

    def __init__(self, model: FGCLEPModel) -> None:
        super().__init__()
        self.encoder, self.log_scale, self.bias = model.ecg_encoder, model.log_scale, model.bias
        self.anchors = Anchors(model.dim).to(model.device)


def train_ecg_side(
    side: EcgSide,
    data: TrainingSet,
    validation: ValidationSet,
    config: CoarseConfig,
    fs_hz: int,
    checkpoint: Path,
    report: Callable[[str], None],
) -> None:
    """Train for at most `config.epochs`; the averaged weights of the best epoch stay in `side`.

    Args:
        side: trained in place.
        data: training records.
        validation: records that choose the epoch.
        config: settings.
        fs_hz: rate of the waveforms.
        checkpoint: file that holds the state after each epoch; training goes on from it if it exists.
        report: told one line per epoch.
    """
    weights = list(side.parameters())
    device = weights[0].device
    autocast = autocast_pays(device)
    draw = _Batches(data, config, fs_hz)
    if config.start_from and not checkpoint.is_file():
        _start_from(side, Path(config.start_from))
    average = copy.deepcopy(side)
    optimizer = torch.optim.AdamW(weights, lr=config.learning_rate, weight_decay=config.weight_decay)
    steps = len(data) // config.batch_size
    schedule = OneCycleLR(optimizer, config.learning_rate, total_steps=steps * config.epochs, pct_start=0.1)
    size = config.batch_size
    phase = Phase(
        "the ECG phase", checkpoint, data.record_ids, f"batch_size {size}", f"-o batch_size={max(size // 2, 1)}"
    )
    best, best_state, since_best, first_epoch = -1.0, average.state_dict(), 0, 0
    if checkpoint.is_file():
        state = read_state(checkpoint)
        side.load_state_dict(state["side"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        best, best_state, since_best = state["best"], state["best_state"], state["since_best"]
        first_epoch = state["epochs_done"]
        report(f"resuming after epoch {first_epoch}")
    for epoch in range(first_epoch, config.epochs):
        if since_best >= config.patience:
            break
        draw.start_epoch(epoch)
        started, losses = monotonic(), []
        side.train()
        for step in range(steps):
            loss = optimizer_step(partial(_loss, side, draw, step, autocast), optimizer, weights, schedule, phase)
            done = schedule.last_epoch
            _update_average(average, side, min(config.ema_decay, (1 + done) / (10 + done)))
            losses.append(loss)
        scores = validate(average.encoder, validation, autocast, average.anchors.encode_names)
        since_best += 1
        if scores["mean"] > best:
            best, best_state, since_best = scores["mean"], copy.deepcopy(average.state_dict()), 0
        state = {
            "side": side.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "best": best,
            "best_state": best_state,
            "since_best": since_best,
            "epochs_done": epoch + 1,
        }
        save_state(state, checkpoint)
        report(
            f"epoch {epoch + 1}/{config.epochs} loss {np.mean(losses):.4f} "
            + " ".join(f"{task} {value:.4f}" for task, value in scores.items())
            + f" {monotonic() - started:.0f} s"
        )
    side.load_state_dict(best_state)


def _loss(side: EcgSide, draw: "_Batches", step: int, autocast: bool) -> tuple[Tensor, NDArray[np.intp]]:
    """Return the loss of an epoch's step, and its rows."""
    waveforms, parts = draw.batch(step)
    device = side.log_scale.device
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        ecg = side.encoder(torch.from_numpy(waveforms).to(device))
    logits = pair_logits(ecg, side.anchors(), side.log_scale, side.bias)
    weight = draw.config.left_open_weight
    shares = [share * findings_loss(logits, draw.data, rows, weight) for rows, share in parts]
    return torch.stack(shares).sum(), parts[0][0]


def _start_from(side: EcgSide, file: Path) -> None:
    """Take the best weights of another run; parts of a tower that it lacks start fresh.

    Raises:
        UsageError: if the file is no such run's, or of another tower.
    """
    try:
        weights = read_state(file)["best_state"]
        lacking, foreign = side.load_state_dict(weights, strict=False)
    except (CorruptionError, KeyError, RuntimeError) as error:
        raise UsageError(f"start_from: {file} is not the ecg_side.pt of a run with this tower ({error}).") from error
    if foreign or any(name.startswith("encoder.tower.") for name in lacking):
        raise UsageError(f"start_from: {file} is of another tower: it has {[*foreign, *lacking][0]} or lacks it.")


def findings_loss(logits: Tensor, data: TrainingSet, rows: NDArray[np.intp], left_open_weight: float) -> Tensor:
    """Sigmoid loss of records against anchors over the known pairs; findings left open count as absent, weakly.

    Args:
        logits: float, shape (n, findings).
        data: whose labels are meant.
        rows: n row numbers.
        left_open_weight: of findings that an annotator left open.
    """
    labels, left_open = data.labels[rows], data.left_open[rows]
    truth = torch.from_numpy(np.where(left_open, -1, labels).astype(np.float32)).to(logits.device)
    weights = np.where(left_open, left_open_weight, np.abs(labels)).astype(np.float32)
    losses = F.softplus(-truth * logits) * torch.from_numpy(weights).to(logits.device)
    return losses.sum() / max(float(weights.sum()), 1.0)


class _Batches:
    """Draws the batches of an epoch: balanced, changed (`augment`), cut and mixed."""

    def __init__(self, data: TrainingSet, config: CoarseConfig, fs_hz: int) -> None:
        self.data, self.config, self.fs_hz = data, config, fs_hz
        shown = rows_by_finding(data)
        self.of_whole_ecg = [rows for key, rows in shown.items() if findings()[key].group != "lead"]

    def start_epoch(self, epoch: int) -> None:
        """Seed all randomness by the epoch, so that a resumed run draws what an unbroken one would have drawn."""
        torch.manual_seed(self.config.seed * 1000 + epoch + 1)
        self.rng = np.random.default_rng([self.config.seed, epoch + 1])
        self.order = self.rng.permutation(len(self.data))

    def batch(self, step: int) -> tuple[NDArray[np.float32], list[tuple[NDArray[np.intp], float]]]:
        """Return waveforms (batch, 12, samples) and the rows whose findings they show, with the share of each."""
        size = self.config.batch_size
        rows = self._balanced(self.order[step * size : (step + 1) * size])
        waveforms = crop(augment(self.data.batch(rows), self.fs_hz, self.rng), self.config.shortest_crop, self.rng)
        waveforms, partners, own = mix(waveforms, self.config.mix, self.rng)
        return waveforms, [(rows, own), (rows[partners], 1 - own)]

    def _balanced(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Exchange a share of a batch for records of findings drawn with equal chance.

        Otherwise a finding of 30 records moves nothing beside one of 3,000, and a finding that is common among
        synthetic ECGs but rare among real ones is learned as "synthetic".
        """
        exchanged = round(self.config.balanced_share * len(rows))
        chosen = self.rng.integers(len(self.of_whole_ecg), size=exchanged)
        drawn = [self.rng.choice(self.of_whole_ecg[finding]) for finding in chosen]
        return np.sort(np.concatenate([rows[: len(rows) - len(drawn)], np.array(drawn, np.intp)]))


@torch.no_grad()
def _update_average(average: torch.nn.Module, current: torch.nn.Module, decay: float) -> None:
    for mean, value in zip(average.state_dict().values(), current.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)
