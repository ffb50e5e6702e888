"""All three steps of FG-CLEP, one after the other: coarse model, enriched reports, fine model.

Every step keeps what it has done (checkpoints, answers, an export that is whole or absent), and a file beside them says
which steps are done. So after a stop at any instant the same call goes on where it was.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from fgclep.datasets import Dataset, open_dataset
from fgclep.datasets.splits import split_of
from fgclep.durable import write_durably
from fgclep.enrichment.export import enriched_rows, write_rows
from fgclep.enrichment.run import run_enrichment
from fgclep.enrichment.store import EnrichmentStore
from fgclep.enrichment.validate import store_outcome, validate_features
from fgclep.enrichment.worklist import collect_texts
from fgclep.errors import UsageError
from fgclep.record import RecordInfo
from fgclep.training.config import CoarseConfig, PairConfig
from fgclep.training.pair_run import train_coarse_pairs, train_fine
from fgclep.training.run import train_coarse
from fgclep.training.run_config import EnrichConfig, RunConfig
from fgclep.training.run_folder import logged, pin_settings

STATE = "steps.json"


def train_step_one(
    data: Path,
    out: Path,
    config: CoarseConfig | PairConfig,
    statements: Path | None,
    workers: int,
    report: Callable[[str], None],
) -> Path:
    """Run step 1 by whichever recipe its settings are of; see `train_coarse` and `train_coarse_pairs`.

    Raises:
        UsageError: if statements are given to the paper's recipe, or ours is started in several processes.
    """
    if isinstance(config, PairConfig):
        if statements is not None:
            raise UsageError("--statements belongs to the preset small; fg-clep-v1 trains on reports only.")
        return train_coarse_pairs(data, out, config, workers, report)
    refuse_torchrun("the preset small")
    return train_coarse(data, out, config, statements, workers, report)


def refuse_torchrun(what: str) -> None:
    """Raise UsageError if this is one of several processes."""
    if torch.distributed.is_torchelastic_launched():
        raise UsageError(
            f"{what} runs in one process.",
            "Leave torchrun out; for steps 1 (preset fg-clep-v1) and 3 it can start train coarse and train fine.",
        )


def is_first_process() -> bool:
    """Tell whether this is the only process, or the first of those that torchrun started."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def train_all(
    data: Path,
    out: Path,
    config: RunConfig,
    statements: Path | None,
    workers: int,
    report: Callable[[str], None],
) -> Path:
    """Run what is left of the three steps; the final bundle is `out`/fine/bundle.

    Args:
        data: a tree or pack.
        out: run directory: coarse/, enrichment.sqlite, enriched.jsonl, fine/.
        config: of all steps.
        statements: report statements of another source, for the preset `small` of step 1.
        workers: processes that read records.
        report: told one line per step of the run.

    Raises:
        UsageError: if `out` holds a run with other settings.
        FgclepError: whatever a step raises; what was done before is kept.
    """
    refuse_torchrun("train run")
    open_dataset(data)  # so that a wrong path is told before anything is written
    out.mkdir(parents=True, exist_ok=True)
    pin_settings(out / "config.json", asdict(config) | {"data": str(data.resolve())})
    tell = logged(out, report)
    state = _State(out / STATE)
    export = out / "enriched.jsonl"

    def coarse() -> None:
        train_step_one(data, out / "coarse", config.coarse, statements, workers, tell)

    def enrich() -> None:
        enrich_reports(data, out, out / "coarse" / "bundle", config.enrich, export, workers, tell)

    def fine() -> None:
        train_fine(out / "coarse", data, export, out / "fine", config.fine, workers, tell)

    for number, step in enumerate((coarse, enrich, fine), start=1):
        if step.__name__ in state.done:
            tell(f"step {number}, {step.__name__}: done before")
            continue
        tell(f"step {number}, {step.__name__}")
        step()
        state.add(step.__name__)
    return out / "fine" / "bundle"


class _State:
    """Which steps are done."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.done: list[str] = json.loads(file.read_text(encoding="utf-8"))["done"] if file.is_file() else []

    def add(self, step: str) -> None:
        self.done.append(step)
        write_durably(self.file, (json.dumps({"done": self.done}) + "\n").encode())


def enrich_reports(
    data: Path,
    out: Path,
    bundle: Path,
    config: EnrichConfig,
    export: Path,
    workers: int,
    report: Callable[[str], None],
) -> None:
    """Step 2: ask about the training reports, keep what the coarse model bears out, and export it.

    Args:
        data: a tree or pack.
        out: where enrichment.sqlite and cached vectors go.
        bundle: of the coarse model.
        config: of the step.
        export: JSONL to write.
        workers: processes that read records.
        report: told the counts.
    """
    dataset = open_dataset(data)
    store = EnrichmentStore(out / "enrichment.sqlite", create=True)
    try:
        worklist = collect_texts(_training_infos(dataset))
        provider = config.provider().open()
        tally = run_enrichment(store, worklist.texts, provider)
        report(
            f"{tally.done:,} of {tally.total:,} distinct reports answered by {provider.identity.model}, "
            f"{tally.resumed:,} of them before; {tally.rejected:,} bad or missing answers"
        )
        run_id = store.start_run(provider.identity)
        outcome = validate_features(
            data,
            bundle,
            store.features_by_hash(run_id),
            config.rule(),
            cache=out / "vectors",
            split="train",
            workers=workers,
        )
        found = outcome.validation
        number = store_outcome(store, run_id, data, outcome)
        report(f"{found.accepted:,} of {found.proposed:,} features accepted ({found.rate:.1%}), validation {number}")
        if found.warning:
            report(f"warning: {found.warning}")
        count = write_rows(export, enriched_rows(_training_infos(dataset), dict(outcome.accepted)))
        report(f"{count:,} records in {export}")
    finally:
        store.close()


def _training_infos(dataset: Dataset) -> Iterator[RecordInfo]:
    return (info for info in dataset.iter_infos() if split_of(info) == "train")
