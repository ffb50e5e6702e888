"""Whole runs on ECG-report pairs: step 1 as in the paper, and step 3; from a data set to a model bundle."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fgclep.datasets import Dataset, open_for_rate
from fgclep.datasets.pack_format import sha256_of
from fgclep.datasets.splits import split_of
from fgclep.errors import DataError, NotSetUpError, UsageError
from fgclep.models.config import ECG_PRESETS
from fgclep.models.dual_encoder import FGCLEPModel
from fgclep.models.text_towers import load_text_tower
from fgclep.preprocessing import EcgProcessor
from fgclep.pretrained import bundle_fingerprint, load_model, resolve_model, save_bundle
from fgclep.training.config import FineConfig, PairConfig, PairSettings
from fgclep.training.enriched import read_enriched
from fgclep.training.fresh_model import fresh_model
from fgclep.training.pair_card import PairFacts, pair_card
from fgclep.training.pair_data import split_pairs
from fgclep.training.pair_trainer import PairTrainer
from fgclep.training.pair_validation import PairValidation, calibrate, open_validation
from fgclep.training.run_folder import logged, pin_settings
from fgclep.training.waveforms import WaveformSet, read_waveforms

if TYPE_CHECKING:
    from accelerate import Accelerator

PTBXL = "ptb-xl"
_TEXT_HIDDEN = 256  # the hidden layer of the paper's text head (METHOD A1)


def train_coarse_pairs(data: Path, out: Path, config: PairConfig, workers: int, report: Callable[[str], None]) -> Path:
    """Step 1 as in the paper: train CLEP on the reports of any data set; write a bundle to `out`/bundle.

    Args:
        data: a tree or a pack.
        out: run directory; repeat the call to go on after a stop.
        config: settings, saved beside the bundle.
        workers: processes that read records where no pack can be mapped.
        report: told one line per step of the run.

    Returns:
        The bundle's directory.

    Raises:
        DataError: if no records are for training or validation.
        UsageError: if `out` holds another run, or a batch is larger than the data.
        NotSetUpError: if the data, the text tower or accelerate is not to be had.
    """
    preset = ECG_PRESETS[config.tower]
    processor = EcgProcessor(**preset["input"])
    accelerator = _accelerator()
    with accelerator.main_process_first():  # one process fetches the tower, the others find it
        tower, tokenizer = load_text_tower(config.text_tower)
    torch.manual_seed(config.seed)
    model = fresh_model(
        preset,
        processor,
        tower,
        tokenizer,
        text_pool=config.text_pool,
        max_tokens=_checked_length(config.max_tokens, tower.config.to_dict()),
        text_hidden=_TEXT_HIDDEN,
        log_scale_init=config.log_scale_init,
        bias_init=config.bias_init,
    )
    run = _open_run(accelerator, data, out, config, {}, processor, workers, report)
    facts = PairFacts("step 1 (CLEP)", f"fine-tuned from `{config.text_tower}`", run.dataset.name)
    return _train(run, model, processor, {}, facts)


def train_fine(
    source: str | Path,
    data: Path,
    features: Path,
    out: Path,
    config: FineConfig,
    workers: int,
    report: Callable[[str], None],
) -> Path:
    """Step 3, FG-CLEP: go on from a coarse model on enriched reports; write a bundle to `out`/bundle.

    A tag head of the coarse model is left behind: it was trained with other towers.

    Args:
        source: a bundle's name or directory, or a run directory that holds one.
        data: the tree or pack that was enriched.
        features: JSONL of `fgclep enrich export`.
        out: run directory; repeat the call to go on after a stop.
        config: settings, saved beside the bundle.
        workers: processes that read records where no pack can be mapped.
        report: told one line per step of the run.

    Returns:
        The bundle's directory.

    Raises:
        CompatibilityError: if the source holds another kind of model.
        DataError: if the export is none, or is of other records.
        UsageError, NotSetUpError: as `train_coarse_pairs`.
    """
    bundle = _find_bundle(source)
    fingerprint = bundle_fingerprint(bundle)
    processor = EcgProcessor.from_pretrained(bundle)
    model = load_model(bundle)
    model.config.max_tokens = _checked_length(config.max_tokens, model.config.text)
    enriched = read_enriched(features)
    sources = {"from": fingerprint, "features": sha256_of(features)[:16]}
    run = _open_run(_accelerator(), data, out, config, sources, processor, workers, report)
    training = [info.record_id for info in run.real.infos if split_of(info) == "train"]
    told = [enriched.features[record_id] for record_id in training if record_id in enriched.features]
    if not told:
        raise DataError(
            f"{features} has none of the {len(training):,} training records of {data}.",
            f"fgclep enrich export OUT.jsonl --data {data}",
        )
    others = len(training) - len(told)
    run.report(
        f"{enriched.kept:,} features in {features}, {enriched.held_out:,} more dropped: wordings held out from "
        f"training; {others:,} of {len(training):,} training records are not in it and keep their report"
    )
    if model.tag_head is not None:
        run.report("the tag head is left behind: its towers change; `fgclep train tags` makes a new one")
        model.tag_head, model.tag_stem, model.config.tag = None, None, None
    facts = PairFacts(
        "step 3 (FG-CLEP)",
        f"fine-tuned from that of bundle {fingerprint}",
        run.dataset.name,
        f"Reports carry {sum(map(len, told)):,} accepted waveform features.{_mean_of(config)}",
    )
    return _train(run, model, processor, enriched.features, facts, config.start_share)


def _mean_of(config: FineConfig) -> str:
    return f" {config.start_share:.0%} of the weights are the coarse model's." if config.start_share else ""


@dataclass(frozen=True)
class _Run:
    """What both steps begin with."""

    dataset: Dataset
    real: WaveformSet
    config: PairSettings
    out: Path
    workers: int
    accelerator: "Accelerator"
    report: Callable[[str], None]


def _open_run(
    accelerator: "Accelerator",
    data: Path,
    out: Path,
    config: PairSettings,
    sources: Mapping[str, str],
    processor: EcgProcessor,
    workers: int,
    report: Callable[[str], None],
) -> _Run:
    if config.threads:
        torch.set_num_threads(config.threads)
    dataset = open_for_rate(data, processor.fs_hz)
    with accelerator.main_process_first():
        if accelerator.is_main_process:
            out.mkdir(parents=True, exist_ok=True)
            pin_settings(out / "config.json", asdict(config) | {"data": str(data.resolve())} | dict(sources))
        tell = logged(out, report) if accelerator.is_main_process else _silent
        tell(f"reading {data}")
        real = read_waveforms(dataset, processor, out / "cache", workers, tell)
    return _Run(dataset, real, config, out, workers, accelerator, tell)


def _train(
    run: _Run,
    model: FGCLEPModel,
    processor: EcgProcessor,
    features: Mapping[str, Sequence[str]],
    facts: PairFacts,
    start_share: float = 0.0,
) -> Path:
    start = {name: value.clone() for name, value in model.state_dict().items()} if start_share else {}
    pairs, held = split_pairs(run.real, processor, run.config, features, run.report)
    longest = model.config.max_tokens
    cut = sum(len(tokens) > longest for tokens in model.tokenizer(pairs.texts, verbose=False)["input_ids"])
    run.report(f"{cut:,} of {len(pairs.texts):,} texts are longer than {longest} tokens: their ends are not seen")
    validation = _validation(run, processor, held)
    trainer = PairTrainer(model, pairs, validation, run.config, run.out, run.accelerator, run.report)
    chosen = trainer.train()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if start_share and value.is_floating_point():
                value.lerp_(start[name].to(value.device), start_share)
    bundle = run.out / "bundle"
    if run.accelerator.is_main_process:
        model.half().float().eval()  # what is measured are the weights as the bundle stores them
        calibration = calibrate(model, validation)
        card, numbers = pair_card(model, processor, pairs, validation, run.config, calibration, chosen, facts)
        save_bundle(bundle, model, model.tokenizer, processor, calibration, card)
        (run.out / "scores.json").write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
        run.report(f"bundle written to {bundle}")
    run.accelerator.wait_for_everyone()
    return bundle


def _validation(run: _Run, processor: EcgProcessor, held: WaveformSet) -> PairValidation:
    if not run.config.validation_data:
        return open_validation(held, run.dataset.kind == PTBXL, run.report)
    other = Path(run.config.validation_data)
    dataset = open_for_rate(other, processor.fs_hz)
    if dataset.kind != PTBXL:
        raise DataError(f"validation_data {other} is {dataset.name}; expected PTB-XL.", f"fgclep data scan {other}")
    with run.accelerator.main_process_first():
        real = read_waveforms(dataset, processor, run.out / "cache-validation", run.workers, run.report)
    rows = [row for row, info in enumerate(real.infos) if split_of(info) == "val"]
    return open_validation(real.select(np.array(rows, np.intp)), True, run.report)


def _checked_length(max_tokens: int, tower: Mapping[str, Any]) -> int:
    """Return how many tokens a text may have, or raise UsageError if the text tower has no places for so many."""
    places = tower.get("max_position_embeddings", max_tokens)
    if max_tokens > places:
        raise UsageError(
            f"max_tokens is {max_tokens}; the text tower reads at most {places}.", f"-o max_tokens={places}"
        )
    return max_tokens


def _find_bundle(source: str | Path) -> Path:
    inside = Path(source) / "bundle"
    return resolve_model(inside if (inside / "config.json").is_file() else source)


def _accelerator() -> "Accelerator":
    try:
        from accelerate import Accelerator
        from accelerate.utils import InitProcessGroupKwargs
    except ImportError as error:
        raise NotSetUpError("training on pairs needs accelerate.", "pip install 'fgclep[train]'") from error
    # The others wait while one process reads the data or validates. The usual ten minutes are not enough for that, and
    # a process that dies is torchrun's to notice.
    patience = InitProcessGroupKwargs(timeout=timedelta(days=1))
    return Accelerator(cpu=not torch.cuda.is_available(), kwargs_handlers=[patience])


def _silent(line: str) -> None:
    """Let the main process do the talking."""
