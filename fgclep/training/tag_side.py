"""Third phase of training: a tag head learns on a finished model; towers, scale and bias stay (METHOD B1-B4).

A tag head is asked two kinds of question whose answers are known. Is this statement true of the ECG? And is this
finding seen in this lead, if the head is given that lead's patches alone? The second kind is exact for synthetic ECGs;
without it attention may look anywhere in an ECG that shows the finding somewhere.

FOCAL's loss (`fgclep.models.tag_head.tag_loss`) makes vectors for true tags only and its soft labels ask for logits
near zero of unrelated ones; where the truth of statements is known, `statement_loss` says more.
"""

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import monotonic

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from fgclep.errors import UsageError
from fgclep.evaluation.metrics import macro_auc
from fgclep.evaluation.text_search import TASKS, task_labels
from fgclep.findings.catalog import LEAD_KINDS, findings
from fgclep.leads import LEADS
from fgclep.losses import statement_loss
from fgclep.models.config import tag_preset
from fgclep.models.dual_encoder import FGCLEPModel
from fgclep.models.tag_head import ALIGNMENTS, TagHead
from fgclep.training.augment import augment
from fgclep.training.labels import finding_ids
from fgclep.training.statements import StatementSampler, statement_labels
from fgclep.training.steps import Phase, autocast_pays, optimizer_step, read_state, rows_by_finding, save_state
from fgclep.training.training_set import TrainingSet, ValidationSet
from fgclep.training.waveforms import to_mv

STATEMENT_ROUNDS = 32
"""How often the sampler is asked; the text tower stays as it is, so its vectors are computed once, before training."""
STEPS_PER_CHECKPOINT = 100


@dataclass(frozen=True)
class TagSettings:
    """Settings of the third phase.

    Attributes:
        steps: optimiser steps.
        alignment: `attention` or `transport`.
        batch_size: ECGs per step.
        statements: statements per step.
        learning_rate: peak of the one-cycle schedule.
        weight_decay: of AdamW.
        lead_weight: weight of the questions about single leads beside those about whole ECGs.
        seed: seeds everything.
    """

    steps: int = 1000
    alignment: str = "transport"
    batch_size: int = 64
    statements: int = 96
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    lead_weight: float = 1.0
    seed: int = 7

    def __post_init__(self) -> None:
        if self.alignment not in ALIGNMENTS:
            raise UsageError(f"tag alignment is {self.alignment!r}; expected one of {', '.join(ALIGNMENTS)}.")


def train_tag_side(
    model: FGCLEPModel,
    data: TrainingSet,
    sampler: StatementSampler,
    settings: TagSettings,
    fs_hz: int,
    checkpoint: Path,
    report: Callable[[str], None],
) -> None:
    """Give a trained model a tag head and train it.

    Args:
        model: gets the head; nothing else of it changes.
        data: training records.
        sampler: draws the statements.
        settings: see `TagSettings`.
        fs_hz: rate of the waveforms.
        checkpoint: holds the state after every hundred steps; training goes on from it if it exists.
        report: told one line per hundred steps.

    Raises:
        UsageError: if the checkpoint was made with other settings.
        CorruptionError: if the checkpoint cannot be read.
    """
    torch.manual_seed(settings.seed)
    head = model.add_tag_head(tag_preset(model.config.ecg, settings.alignment))
    side = _TagSide(model, head, data, sampler, settings, fs_hz)
    weights = list(side.learned.parameters())
    report(f"tag head of {sum(weight.numel() for weight in weights) / 1e6:.2f} M parameters, {settings.alignment}")
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = OneCycleLR(optimizer, settings.learning_rate, total_steps=max(settings.steps, 1), pct_start=0.1)
    first, started, losses = 0, monotonic(), []
    if checkpoint.is_file():
        state = read_state(checkpoint)
        if state["settings"] != asdict(settings):
            raise UsageError(f"{checkpoint} is of a run with other settings.", "Repeat them or choose a new --out.")
        side.learned.load_state_dict(state["learned"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        first = state["steps_done"]
        report(f"resuming after tag step {first}")
    phase = Phase("the tag phase", checkpoint, data.record_ids, f"{settings.batch_size} ECGs a step", "")
    side.learned.train()
    for step in range(first, settings.steps):
        losses.append(optimizer_step(partial(side.loss, step), optimizer, weights, schedule, phase))
        if (step + 1) % STEPS_PER_CHECKPOINT == 0:
            state = {
                "settings": asdict(settings),
                "learned": side.learned.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "steps_done": step + 1,
            }
            save_state(state, checkpoint)
            report(
                f"tag step {step + 1}/{settings.steps} loss {np.mean(losses[-STEPS_PER_CHECKPOINT:]):.4f} "
                f"{monotonic() - started:.0f} s"
            )
    model.requires_grad_(True).eval()


def tag_auc(model: FGCLEPModel, validation: ValidationSet) -> dict[str, float]:
    """Return macro AUC by plain-name text for each PTB-XL task, records ranked by `FGCLEPModel.tag_scores`."""
    keys = list(dict.fromkeys(key for task in TASKS.values() for key in task))
    names = [findings()[key].name for key in keys]
    blocks = [validation.waveforms[start : start + 256] for start in range(0, len(validation.waveforms), 256)]
    scores = np.concatenate([model.tag_scores(to_mv(block), names) for block in blocks])
    found = {}
    for task, classes in TASKS.items():
        rows, labels = task_labels(validation.infos, task)
        columns = [keys.index(key) for key in classes]
        found[task] = macro_auc(labels, scores[rows][:, columns], classes).mean
    return found


class _TagSide:
    """The loss of one step of the third phase."""

    def __init__(
        self,
        model: FGCLEPModel,
        head: TagHead,
        data: TrainingSet,
        sampler: StatementSampler,
        settings: TagSettings,
        fs_hz: int,
    ) -> None:
        self.model, self.head, self.data, self.settings, self.fs_hz = model, head, data, settings, fs_hz
        self.autocast = autocast_pays(model.device)
        self.learned = torch.nn.ModuleDict({"head": head})
        if model.tag_stem is not None:
            self.learned["stem"] = model.tag_stem
        model.eval().requires_grad_(False)
        self.learned.requires_grad_(True)
        self.by_finding = list(rows_by_finding(data).values())
        drawn = random.Random(settings.seed)
        self.statements = [s for _ in range(STATEMENT_ROUNDS) for s in sampler.sample(drawn, settings.statements)]
        self.vectors = self._encode([statement.text for statement in self.statements])
        self.kinds = [self._encode(list(names)) for names in LEAD_KINDS.values()]
        columns = {key: number for number, key in enumerate(finding_ids())}
        self.lead_columns = np.array([[columns[f"{kind}@{lead}"] for kind in LEAD_KINDS] for lead in LEADS])

    def loss(self, step: int) -> tuple[Tensor, NDArray[np.intp]]:
        """Return the loss of a step and its rows.

        ECGs and questions are drawn by the step's number, so that a resumed run draws what an unbroken one would.
        """
        rng = np.random.default_rng([self.settings.seed, step])
        rows = self._rows(rng)
        waveforms = augment(self.data.batch(rows), self.fs_hz, rng)
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.autocast):
            tokens = self.model.patch_tokens(torch.from_numpy(waveforms).to(self.model.device)).float()
        asked = rng.choice(len(self.statements), min(self.settings.statements, len(self.statements)), replace=False)
        truth = statement_labels([self.statements[number] for number in asked], self.data.labels[rows])
        whole = self._answered(tokens, self.vectors[asked], truth)
        return whole + self.settings.lead_weight * self._lead_loss(tokens, rows, rng), rows

    def _lead_loss(self, tokens: Tensor, rows: NDArray[np.intp], rng: np.random.Generator) -> Tensor:
        """Ask for each lead-wise finding, without naming a lead, in every lead's patches alone."""
        batch, width, patches = tokens.shape
        by_lead = tokens.reshape(batch, width, len(LEADS), patches // len(LEADS)).transpose(1, 2).flatten(0, 1)
        queries = torch.stack([words[int(rng.integers(len(words)))] for words in self.kinds])
        truth = self.data.labels[rows][:, self.lead_columns].reshape(batch * len(LEADS), -1)
        return self._answered(by_lead, queries, truth)

    def _answered(self, tokens: Tensor, queries: Tensor, truth: NDArray[np.int8]) -> Tensor:
        logits = self.head.log_scale.exp() * self.head.scores(tokens, queries) + self.head.bias
        return statement_loss(logits, torch.from_numpy(truth.astype(np.float32)).to(logits.device))

    def _rows(self, rng: np.random.Generator) -> NDArray[np.intp]:
        """Return a third of any records, a third that show findings drawn with equal chance, the rest synthetic ones.

        Synthetic ECGs alone say exactly which leads show what; real ones keep the head from learning their looks.
        """
        third = self.settings.batch_size // 3
        real, total = len(self.data.waveforms[0]), len(self.data)
        balanced = [rng.choice(self.by_finding[rng.integers(len(self.by_finding))]) for _ in range(third)]
        synthetic = rng.integers(real if real < total else 0, total, self.settings.batch_size - 2 * third)
        return np.sort(np.concatenate([rng.integers(0, total, third), np.array(balanced, np.intp), synthetic]))

    def _encode(self, texts: list[str]) -> Tensor:
        return torch.from_numpy(self.model.encode_text(texts)).to(self.model.device)
