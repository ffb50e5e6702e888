"""All three steps of FG-CLEP, one after the other: coarse model, enriched reports, fine model.

Every step keeps what it has done (checkpoints, answers, an export that is whole or absent), and a file beside them says
which steps are done, with which settings. So after a stop at any instant the same call goes on where it was; what is
not done yet may get other settings, as far as its own folder allows.
"""

import gc
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from fgclep.datasets import Dataset, open_dataset
from fgclep.datasets.splits import split_of
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
from fgclep.training.run_config import EnrichConfig, RunConfig, hints_of_table, in_table
from fgclep.training.run_folder import logged, pin_settings, read_settings, save_settings

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


def leave_processes() -> None:
    """Leave the group of processes that torchrun started, if there is one, after training.

    Its threads must not outlive the interpreter: a process that ends beside them may abort although all is done.
    """
    if torch.distributed.is_initialized():
        gc.collect()  # a model in its data-parallel wrapper is a cycle that holds the group
        torch.distributed.destroy_process_group()


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
        UsageError: if `out` holds a run with other settings, of a step that is done or in its folder.
        FgclepError: whatever a step raises; what was done before is kept.
    """
    refuse_torchrun("train run")
    open_dataset(data)  # so that a wrong path is told before anything is written
    out.mkdir(parents=True, exist_ok=True)
    state = _State(out / STATE, data, config)
    tell = logged(out, report)
    export = out / "enriched.jsonl"

    def coarse() -> None:
        train_step_one(data, out / "coarse", config.coarse, statements, workers, tell)

    def enrich() -> None:
        enrich_reports(data, out, out / "coarse" / "bundle", config.enrich, export, workers, tell)

    def fine() -> None:
        train_fine(out / "coarse", data, export, out / "fine", config.fine, workers, tell)

    for number, step in enumerate((coarse, enrich, fine), start=1):
        name = step.__name__
        if name in state.done:
            tell(f"step {number}, {name}: done before")
            continue
        tell(f"step {number}, {name}")
        with hints_of_table(name, None if step is enrich else out / name):
            step()
        state.add(name)
    return out / "fine" / "bundle"


class _State:
    """Which steps are done, each with its settings, which are bound from then on.

    Raises:
        UsageError: if they were done with others.
    """

    def __init__(self, file: Path, data: Path, config: RunConfig) -> None:
        self._file = file
        self._data, self._tables = str(data.resolve()), asdict(config)
        earlier = read_settings(file)
        self.done = [step for step in self._tables if step in earlier]
        pin_settings(file, self._settings())

    def add(self, step: str) -> None:
        self.done.append(step)
        save_settings(self._file, self._settings())

    def _settings(self) -> dict[str, Any]:
        return {"data": self._data} | {step: self._tables[step] for step in self.done}


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
        run_id = _ask(store, dataset, config, report)
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
            report(f"warning: {in_table(found.warning, 'enrich')}")
        count = write_rows(export, enriched_rows(_training_infos(dataset), dict(outcome.accepted)))
        report(f"{count:,} records in {export}")
    finally:
        store.close()


def _ask(store: EnrichmentStore, dataset: Dataset, config: EnrichConfig, report: Callable[[str], None]) -> int:
    """Ask about the training reports; return the run's number.

    Nothing of the provider outlives the call: a language model would keep its memory from the model that scores.
    """
    provider = config.provider().open()
    tally = run_enrichment(store, collect_texts(_training_infos(dataset)).texts, provider)
    report(
        f"{tally.done:,} of {tally.total:,} distinct reports answered by {provider.identity.model}, "
        f"{tally.resumed:,} of them before; {tally.rejected:,} bad or missing answers"
    )
    if tally.warning:
        report(f"warning: {tally.warning}")
    return store.start_run(provider.identity)


def _training_infos(dataset: Dataset) -> Iterator[RecordInfo]:
    return (info for info in dataset.iter_infos() if split_of(info) == "train")
