"""Training on ECG-report pairs, as the paper does, on one CPU, one GPU or many.

Built on accelerate rather than on the Trainer of transformers: the loss is one of a whole batch in all processes, not a
mean over examples, so the loop has to be ours, and accelerate leaves it to us while one code path covers CPU, GPU and
`torchrun` with gloo or NCCL (device, DistributedDataParallel, gradients held back between accumulated batches, one
process that writes). bfloat16 needs no gradient scaler, so plain autocast serves.

A step draws all its randomness from the seed, its own number and the process's rank. So a checkpoint needs no state of
random generators, and a run that was killed goes on with the losses that an unbroken one would have had.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fgclep.errors import CompatibilityError, FgclepError, UsageError
from fgclep.losses_distributed import global_clep_loss, global_soft_label_loss
from fgclep.models.dual_encoder import FGCLEPModel
from fgclep.models.text_towers import rest_frozen, trainable_parameters
from fgclep.training.config import PairSettings
from fgclep.training.pair_data import PairBatch, PairBatches, PairSet
from fgclep.training.pair_validation import PairValidation, describe, goodness, validate_pairs
from fgclep.training.step_log import StepLog
from fgclep.training.steps import autocast_pays, out_of_memory, read_state, save_state

if TYPE_CHECKING:
    from accelerate import Accelerator

LAST, BEST = "last.pt", "best.pt"
_BATCHES_AHEAD = 4
_TEXTS_TOGETHER = 32
_READERS = 2


class PairLearner(nn.Module):
    """What data-parallel training wraps: both towers in one call. Each text of a batch is encoded once."""

    def __init__(self, model: FGCLEPModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, waveforms: Tensor, input_ids: Tensor, attention_mask: Tensor, which: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode k ECGs and the distinct texts of their reports.

        Args:
            waveforms: float32, shape (k, 12, samples), mV.
            input_ids: int64, shape (texts, tokens).
            attention_mask: int64, same shape.
            which: int64, shape (k,), the text of each ECG.

        Returns:
            ECG and text vectors, unit-norm, shape (k, dim); t' and b.
        """
        model = self.model
        texts = model.project_text(self._text_features(input_ids, attention_mask))
        return model.ecg_encoder(waveforms), texts[which], model.log_scale, model.bias

    def _text_features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return text-tower features (texts, hidden); texts of like length go together, so that little is padding."""
        order = torch.argsort(attention_mask.sum(dim=1))
        parts = []
        for rows in order.split(_TEXTS_TOGETHER):
            mask = attention_mask[rows]
            filled = mask.any(dim=0)
            parts.append(self.model.text_features(input_ids=input_ids[rows][:, filled], attention_mask=mask[:, filled]))
        return torch.cat(parts)[torch.argsort(order)]


@dataclass
class _Progress:
    """Where a run stands."""

    step: int = 0
    best: tuple[float, float] | None = None
    since_best: int = 0


class PairTrainer:
    """One run of `PairSettings` on a model.

    Args:
        model: trained in place; its tokenizer is attached.
        pairs: to train on.
        validation: chooses the epoch.
        settings: see `PairSettings`.
        out: folder of checkpoints and logs; training goes on from them if they exist.
        accelerator: of this process.
        report: told one line per epoch.

    Raises:
        UsageError: if a batch has fewer pairs than there are processes.
    """

    def __init__(
        self,
        model: FGCLEPModel,
        pairs: PairSet,
        validation: PairValidation,
        settings: PairSettings,
        out: Path,
        accelerator: "Accelerator",
        report: Callable[[str], None],
    ) -> None:
        from transformers import get_cosine_schedule_with_warmup

        world, device = accelerator.num_processes, accelerator.device
        if settings.batch_size < world:
            raise UsageError(f"batch_size is {settings.batch_size}; there are {world} processes.", "One pair for each.")
        self.model, self.validation, self.settings, self.out = model, validation, settings, out
        self.accelerator, self.report = accelerator, report
        self.autocast = settings.precision == "bf16" or (settings.precision == "auto" and autocast_pays(device))
        self.batches = PairBatches(pairs, settings, accelerator.process_index, world)
        self.total = self.batches.steps_per_epoch * settings.epochs
        trainable_parameters(model.text_tower, settings.frozen_text_blocks)
        if model.config.text_pool == "pooler":
            model.text_tower.pooler.requires_grad_(True)  # it stands above the frozen blocks
        if world > 1 and device.type == "cuda":  # else every process would normalise by its own part of the batch
            nn.SyncBatchNorm.convert_sync_batchnorm(model)
        if settings.compile:
            model.ecg_encoder.compile()
        self.learner = accelerator.prepare(PairLearner(model))
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(self.weights, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        warm_up = round(settings.warmup_share * self.total)
        self.schedule = get_cosine_schedule_with_warmup(self.optimizer, warm_up, self.total)
        self.progress = _Progress()

    def train(self) -> dict[str, float]:
        """Train to the end or until no epoch is better; the best epoch's weights stay in the model.

        Returns:
            The validation scores of that epoch.

        Raises:
            FgclepError: if the loss is no number, memory runs out or a checkpoint cannot be written; the last good
                checkpoint stays.
            CompatibilityError: if the checkpoint is of another architecture.
        """
        self._resume()
        self.report(
            f"{sum(weight.numel() for weight in self.weights) / 1e6:.1f} M of "
            f"{sum(weight.numel() for weight in self.model.parameters()) / 1e6:.1f} M parameters are trained, "
            f"{self.total:,} steps, {self.accelerator.num_processes} process(es) on {self.accelerator.device.type}"
            f"{', bfloat16' if self.autocast else ''}"
        )
        log = StepLog(self.out, self.progress.step) if self.accelerator.is_main_process else None
        batches = self._prefetched()
        try:
            self._run(batches, log)
        finally:
            batches.close()
            if log is not None:
                log.close()
        self.accelerator.wait_for_everyone()
        best = read_state(self.out / BEST)
        self._load_model(best, self.out / BEST)
        scores: dict[str, float] = best["scores"]
        self.report(f"best after step {best['step']:,}: {describe(scores)}")
        return scores

    def _run(self, batches: Iterator[PairBatch], log: StepLog | None) -> None:
        settings, progress = self.settings, self.progress
        started, first, losses = monotonic(), progress.step, []
        while progress.step < self.total and progress.since_best < settings.patience:
            values = self._step(progress.step, batches)
            progress.step += 1
            losses.append(values["loss"])
            if log is not None:
                log.add(progress.step, values)
            epoch, inside = divmod(progress.step, self.batches.steps_per_epoch)
            if inside == 0:
                rate = (progress.step - first) * settings.batch_size * settings.accumulation / (monotonic() - started)
                scores = self._validate()
                self.report(
                    f"epoch {epoch}/{settings.epochs} loss {np.mean(losses):.4f} validation {describe(scores)} "
                    f"{rate:.0f} pairs/s"
                )
                started, first, losses = monotonic(), progress.step, []
                if log is not None:
                    log.add(progress.step, {f"validation/{name}": value for name, value in scores.items()})
            if inside == 0 or progress.step % settings.checkpoint_steps == 0:
                self._save()

    def _step(self, step: int, batches: Iterator[PairBatch]) -> dict[str, float]:
        """Take one optimiser step over `accumulation` batches."""
        count = self.settings.accumulation
        seeds = np.random.SeedSequence([self.settings.seed, step, self.accelerator.process_index])
        torch.manual_seed(int(seeds.generate_state(1)[0]))
        self.learner.train()
        rest_frozen(self.model.text_tower)
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.accelerator.device)
        try:
            for number in range(count):
                last = number == count - 1
                with nullcontext() if last else self.accelerator.no_sync(self.learner):
                    loss = self._loss(next(batches)) / count
                    self.accelerator.backward(loss)
                total += loss.detach()
            longest = self.settings.clip_norm or float("inf")
            norm = float(self.accelerator.clip_grad_norm_(self.weights, longest))
            if not isfinite(float(total)) or not isfinite(norm):
                raise self._number_error(step, float(total), norm)
            values = {"loss": float(total), "gradient_norm": norm, "learning_rate": self.schedule.get_last_lr()[0]}
            self.optimizer.step()  # the first one makes its own state, twice the weights
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise self._memory_error(step) from error
        self.schedule.step()
        return values | {"scale": float(self.model.log_scale.detach().exp()), "bias": float(self.model.bias.detach())}

    def _loss(self, batch: PairBatch) -> Tensor:
        device, settings = self.accelerator.device, self.settings
        tokens = self.model.tokenize(batch.texts)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.autocast):
            ecg, text, log_scale, bias = self.learner(
                batch.waveforms.to(device, non_blocking=True), **tokens, which=batch.which.to(device)
            )
        if settings.pair_labels == "soft":
            return global_soft_label_loss(ecg, text, log_scale, bias, rows=settings.rows_per_block)
        return global_clep_loss(
            ecg,
            text,
            batch.groups.to(device),
            log_scale,
            bias,
            settings.similarity_weight,
            settings.similarity_reduction,
            settings.stop_gradient,
            rows=settings.rows_per_block,
        )

    def _validate(self) -> dict[str, float]:
        """Score the model in the main process, tell all of them, and keep the best weights."""
        from accelerate.utils import broadcast_object_list

        told: list[Any] = [None]
        if self.accelerator.is_main_process:
            told = [validate_pairs(self.model, self.validation, self.settings, self.autocast)]
        broadcast_object_list(told)
        scores: dict[str, float] = told[0]
        progress = self.progress
        progress.since_best += 1
        if progress.best is None or goodness(scores) > progress.best:
            progress.best, progress.since_best = goodness(scores), 0
            if self.accelerator.is_main_process:
                state = {"model": self.model.state_dict(), "step": progress.step, "scores": scores}
                save_state(state, self.out / BEST)
        return scores

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            state = {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "step": self.progress.step,
                "best": self.progress.best,
                "since_best": self.progress.since_best,
            }
            save_state(state, self.out / LAST)

    def _resume(self) -> None:
        path = self.out / LAST
        if not path.is_file():
            return
        state = read_state(path)
        self._load_model(state, path)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        best = state["best"]
        self.progress = _Progress(state["step"], None if best is None else tuple(best), state["since_best"])
        self.report(f"resuming after step {self.progress.step:,}")

    def _load_model(self, state: dict[str, Any], path: Path) -> None:
        own, stored = self.model.state_dict(), state["model"]
        for name in sorted(own.keys() | stored.keys()):
            have, want = (tuple(part[name].shape) if name in part else None for part in (stored, own))
            if have != want:
                raise CompatibilityError(
                    f"{path} is a checkpoint of another architecture: {name} has the shape {have}, this model {want}.",
                    "Choose a new --out.",
                )
        self.model.load_state_dict(stored)

    def _prefetched(self) -> Generator[PairBatch, None, None]:
        """Yield the batches from here to the end; some are read ahead in threads, numpy lets go of the interpreter."""
        numbers = iter(range(*(step * self.settings.accumulation for step in (self.progress.step, self.total))))
        waiting: deque[Future[PairBatch]] = deque()
        with ThreadPoolExecutor(_READERS, thread_name_prefix="read-pairs") as pool:
            for number in numbers:
                waiting.append(pool.submit(self.batches.__getitem__, number))
                if len(waiting) > _BATCHES_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _kept(self) -> str:
        path = self.out / LAST
        return f"the checkpoint {path} is kept" if path.is_file() else "no checkpoint exists yet"

    def _number_error(self, step: int, loss: float, norm: float) -> FgclepError:
        count = self.settings.accumulation
        ids = [name for number in range(step * count, (step + 1) * count) for name in self.batches.record_ids(number)]
        return FgclepError(
            f"step {step + 1}: the loss is {loss} and the gradient's length {norm}; training stopped, {self._kept()}. "
            f"The step's records: {', '.join(ids)}.",
            "Look at these records, or lower learning_rate.",
        )

    def _memory_error(self, step: int) -> FgclepError:
        size, count = self.settings.batch_size, self.settings.accumulation
        smaller = max(size // 2, 1)
        return FgclepError(
            f"step {step + 1}: out of memory with batch_size {size} on {self.accelerator.device}; {self._kept()}.",
            f"-o batch_size={smaller} -o accumulation={count * size // smaller} and a new --out",
        )
