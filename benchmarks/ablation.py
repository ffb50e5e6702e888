"""What each part of FG-CLEP's training is worth, on PTB-XL: the same short training with parts added one by one.

    python benchmarks/ablation.py DATA OUT [--seeds 7 8 9] [--short-seeds ...] [--epochs 2] [--fine-epochs 1]

DATA is PTB-XL or a pack of it. Folds 1-8 train on original reports, fold 9 chooses the epoch and is scored by the plain
English names of its classes. Every row is one or two calls of the command line, printed before they run, with a folder
of its own below OUT; repeat the call after a stop, finished rows are read from their folders. Ends with the table in
Markdown: mean over seeds, and in brackets the distance of the largest from the smallest. With short seeds only step 3
and the row that it goes on from are trained.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TASKS = ("super", "sub", "form", "rhythm", "all")
TOWERS = ("tower=small", "text_tower=minilm", "text_pool=mean")
RECIPE = ("batch_size=128", "learning_rate=5e-4", "frozen_text_blocks=4", "clip_norm=1.0", "checkpoint_steps=25")
FINE = ("learning_rate=2e-4",)  # of step 3, beside RECIPE
MEAN = ("similarity_weight=0.5", "similarity_reduction=mean")
CHOSEN = (*MEAN, "pair_labels=equal-text")  # what step 3 goes on from
COARSE = {
    "original reports, sigmoid loss": ("similarity_weight=0",),
    "+ similarity term, inner sum, as published": ("similarity_weight=0.5",),
    "+ similarity term, inner mean": MEAN,
    "+ equal texts are pairs": CHOSEN,
    "+ 4,000 synthetic ECGs": (*CHOSEN, "synthetic_records=4000"),
}
FROM = "+ equal texts are pairs"
ACCEPTED, PROPOSED, NOTHING = (
    "step 3: features of the knowledge base, better half by the coarse model",
    "step 3: features of the knowledge base, all",
    "step 3: original reports again",
)


@dataclass(frozen=True)
class Study:
    """Where things are and how long is trained."""

    data: Path
    out: Path
    epochs: int
    fine_epochs: int


def main() -> None:
    """Parse the arguments, run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--short-seeds", type=int, nargs="*", default=[])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--fine-epochs", type=int, default=1)
    arguments = parser.parse_args()
    study = Study(arguments.data.resolve(), arguments.out.resolve(), arguments.epochs, arguments.fine_epochs)
    scores: dict[str, list[Path]] = {}
    for seed in [*arguments.seeds, *arguments.short_seeds]:
        for row, file in run_seed(study, seed, short=seed not in arguments.seeds).items():
            scores.setdefault(row, []).append(file)
        print(table(scores), flush=True)


def run_seed(study: Study, seed: int, *, short: bool) -> dict[str, Path]:
    """Run all rows with one seed, or only step 3 and what it goes on from; return the file of scores of each."""
    place = study.out / f"seed-{seed}"
    steps = place / "three-steps"
    files = {}
    for number, (row, settings) in enumerate(COARSE.items()):
        if row == FROM:
            three_steps(study, seed, steps)
            files[row] = steps / "coarse" / "scores.json"
        elif not short:
            run = place / f"coarse-{number}"
            train(study, run, "coarse", words(coarse_settings(study, settings)), seed)
            files[row] = run / "scores.json"
    for row, name in ((NOTHING, "nothing"), (PROPOSED, "proposed")):
        features = place / f"{name}.jsonl"
        if not features.is_file() and row == NOTHING:
            empty(steps / "enriched.jsonl", features)
        elif not features.is_file():
            everything(study, steps, features)
        run = place / f"fine-{name}"
        options = ["--from", str(steps / "coarse"), "--features", str(features), *words(fine_settings(study))]
        train(study, run, "fine", options, seed)
        files[row] = run / "scores.json"
    return files | {ACCEPTED: steps / "fine" / "scores.json"}


def coarse_settings(study: Study, settings: Sequence[str]) -> list[str]:
    """Return the settings of a row of step 1."""
    return ["preset=fg-clep-v1", *TOWERS, *RECIPE, f"epochs={study.epochs}", *settings]


def fine_settings(study: Study) -> list[str]:
    """Return the settings of step 3; its preset `small` takes equal texts as pairs and the inner mean."""
    return ["preset=small", *RECIPE, *FINE, f"epochs={study.fine_epochs}"]


def words(settings: Sequence[str]) -> list[str]:
    """Return settings as options of the command line."""
    return [word for setting in settings for word in ("-o", setting)]


def three_steps(study: Study, seed: int, out: Path) -> None:
    """Run `train run`: step 1 as `FROM`, the knowledge base, step 3."""
    tables = {
        "coarse": [*coarse_settings(study, CHOSEN), f"seed={seed}"],
        "enrich": ["backend=knowledge", "quantile=0.5"],
        "fine": [*fine_settings(study), f"seed={seed}"],
    }
    for step in ("coarse", "fine"):
        share_cache(study, out / step)
    settings = [f"{name}.{setting}" for name, table in tables.items() for setting in table]
    if not (out / "fine" / "scores.json").is_file():
        call("train", "run", "--data", str(study.data), "--out", str(out), *words(settings))


def train(study: Study, out: Path, step: str, options: Sequence[str], seed: int) -> None:
    """Run one step unless it is done."""
    share_cache(study, out)
    if not (out / "scores.json").is_file():
        call("train", step, "--data", str(study.data), "--out", str(out), "--seed", str(seed), *options)


def share_cache(study: Study, run: Path) -> None:
    """Let all runs use the same prepared waveforms: they differ in nothing that changes them."""
    run.mkdir(parents=True, exist_ok=True)
    cache = study.out / "cache"
    cache.mkdir(exist_ok=True)
    if not (run / "cache").exists():
        (run / "cache").symlink_to(cache)


def empty(exported: Path, out: Path) -> None:
    """Write the export without its features, so that step 3 trains as long on the reports as they are."""
    rows = [json.loads(line) for line in exported.read_text(encoding="utf-8").splitlines()]
    out.write_text("".join(json.dumps(row | {"features": []}) + "\n" for row in rows), encoding="utf-8")


def everything(study: Study, steps: Path, out: Path) -> None:
    """Write an export in which the coarse model has refused nothing."""
    store = ["--store", str(steps / "enrichment.sqlite")]
    bundle = ["--model", str(steps / "coarse" / "bundle"), "--data", str(study.data)]
    call("enrich", "validate", *bundle, *store, "--score", "cosine", "--threshold", "-1")
    call("enrich", "export", str(out), *store)


def call(*arguments: str) -> None:
    """Run fgclep in a process of its own, after printing the command."""
    print("$ " + shlex.join(["fgclep", *arguments]), flush=True)
    subprocess.run([sys.executable, "-m", "cli.main", *arguments], check=True)


def table(scores: dict[str, list[Path]]) -> str:
    """Return the table in Markdown: AUC by task, report retrieval, and the loss by wordings held out from training."""
    lines = [
        "| training | seeds | " + " | ".join(TASKS) + " | own report in the first 10 | loss by other wordings |",
        "|---|---|" + "---|" * (len(TASKS) + 2),
    ]
    for row in (row for row in (*COARSE, NOTHING, PROPOSED, ACCEPTED) if row in scores):
        found = [json.loads(file.read_text(encoding="utf-8")) for file in scores[row]]
        cells = [spread([one["tasks"][task]["auc"]["mean"] for one in found]) for task in TASKS]
        cells.append(spread([one["chosen"]["r10"] for one in found]))
        cells.append(spread([one["drop"]["mean"] for one in found]))
        lines.append(f"| {row} | {len(found)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """Return mean and, of several, the distance of the largest from the smallest."""
    mean = f"{statistics.fmean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({max(values) - min(values):.3f})"


if __name__ == "__main__":
    main()
