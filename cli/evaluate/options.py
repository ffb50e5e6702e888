"""What the commands of `fgclep evaluate` share: options that mean the same everywhere, and the cache."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.progress import record_progress

if TYPE_CHECKING:
    from fgclep.evaluation.embeddings import Kind
    from fgclep.evaluation.zero_shot import Embed

SplitName = Literal["train", "val", "test"]

BENCHMARK_NAMES = "ptbxl-super, ptbxl-sub, ptbxl-form, ptbxl-rhythm, cpsc2018, csn-strict, csn-merl"

_INPUT, _OUTPUT = "Input", "Output"

Benchmark = Annotated[
    str, typer.Option("--dataset", metavar="NAME", help=f"Benchmark: {BENCHMARK_NAMES}.", rich_help_panel=_INPUT)
]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="PATH", help="Tree of its data set (FGCLEP_DATA).", rich_help_panel=_INPUT),
]
SplitChoice = Annotated[SplitName, typer.Option("--split", help="Which part of the benchmark.", rich_help_panel=_INPUT)]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="SPEC",
        help="A bundle's name or path, random:BUNDLE for fresh weights, or merl:, ecgfounder:, clef: before a "
        "checkpoint; repeatable. The shipped bundle unless given (FGCLEP_MODEL).",
        rich_help_panel=_INPUT,
    ),
]
Splits = Annotated[
    Path | None,
    typer.Option(
        "--splits",
        metavar="DIR",
        help="Published split files, at any depth; without them the data set's own codes and folds count.",
        rich_help_panel=_INPUT,
    ),
]
Draws = Annotated[int, typer.Option("--draws", min=0, help="Draws of the bootstrap over subjects; 0: no intervals.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random.")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Processes that read records; 1 reads in this one.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Write results (.json) and scores (.npz).", rich_help_panel=_OUTPUT),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=_OUTPUT)]


@dataclass(frozen=True)
class _Encoded:
    """Counts of a run that encodes records; rejects are told at its end."""

    done: int
    total: int
    resumed: int = 0
    rejected: int = 0


@contextmanager
def encoding_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function to call with records done and records in all.

    Args:
        what: shown before the bar or line.
    """

    with record_progress(what) as update:
        yield lambda done, total: update(_Encoded(done, total))


@contextmanager
def embedding(spec: str, kind: "Kind", workers: int) -> "Iterator[Embed]":
    """Give a function that encodes records, or takes them from the home's cache, and shows how far it is.

    Args:
        spec: the model, shown before the bar or line.
        kind: see `embeddings.embed`.
        workers: processes that read.
    """
    from functools import partial

    from fgclep.evaluation.embeddings import embed

    with encoding_progress(spec) as progress:
        yield partial(embed, kind=kind, cache=cache_folder(), workers=workers, progress=progress)


def cache_folder() -> Path:
    """Return the folder of cached vectors."""
    from cli import settings

    return settings.home() / "cache" / "embeddings"


def data_folder(given: Path | None, example: str) -> Path:
    """Return the tree to read: the flag's, else the setting's.

    Args:
        given: what the flag said.
        example: a command that would work, for the message.

    Raises:
        UsageError: if neither is given.
    """
    from cli import settings
    from fgclep.errors import UsageError

    folder = given or settings.text("data")
    if folder is None:
        raise UsageError("No data was given.", example)
    return Path(folder)


def model_specs(given: list[str] | None) -> list[str]:
    """Return the models to measure, each once: the flags', else the setting's, else the shipped bundle."""
    from cli import settings
    from fgclep.pretrained import SHIPPED_MODEL

    return list(dict.fromkeys(given or [settings.text("model") or SHIPPED_MODEL]))


def command_words(command: str, **given: object) -> list[str]:
    """Return the command line that makes a result again.

    Args:
        command: such as `zero-shot`.
        given: options by name; those that are None or False were not given, a list repeats its option.
    """
    words = ["fgclep", "evaluate", command]
    for name, value in given.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif value is not None and value is not False:
            for one in value if isinstance(value, list) else [value]:
                words += [flag, str(one)]
    return words
