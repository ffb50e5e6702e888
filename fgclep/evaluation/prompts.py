"""What each class of a benchmark is asked for by (METHOD A6, F6). A class scores the best of its texts."""

import json
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path

from fgclep.errors import DataError, NotSetUpError
from fgclep.evaluation.benchmarks import benchmark
from fgclep.leads import LEADS

PROMPT_KINDS = ("plain", "ensemble", "curated")
"""Ways to ask that need no file: the class's plain name; that and "<name> in lead <x>" for the twelve leads, as papers
do; the plain name and two or three true synonyms."""

Prompts = Mapping[str, tuple[str, ...]]
"""Class -> its texts."""

_TABLES = {"csn-strict": "csn", "csn-merl": "csn"}


def prompts_for(name: str, kind: str) -> Prompts:
    """Return the texts of a benchmark's classes.

    Args:
        name: the benchmark.
        kind: one of `PROMPT_KINDS`, or the path of a JSON file in CKEPE's format: an object from class to one text
            (taken in lower case and as a whole, as its authors do) or to a list of texts.

    Raises:
        UsageError: if there is no such benchmark.
        NotSetUpError: if `kind` is neither known nor a file.
        DataError: if the file is of another form or lacks a class.
    """
    classes = benchmark(name).classes
    if kind not in PROMPT_KINDS:
        return _read_file(Path(kind), classes)
    curated = _curated(_TABLES.get(name, name))
    if kind == "curated":
        return {c: curated[c] for c in classes}
    if kind == "plain":
        return {c: curated[c][:1] for c in classes}
    return {c: (curated[c][0], *(f"{curated[c][0]} in lead {lead}" for lead in LEADS)) for c in classes}


@cache
def _curated(table: str) -> dict[str, tuple[str, ...]]:
    text = (files("fgclep.evaluation") / "data" / "prompts.toml").read_text(encoding="utf-8")
    return {c: tuple(texts) for c, texts in tomllib.loads(text)[table].items()}


def _read_file(path: Path, classes: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    hint = f"Known without a file: {', '.join(PROMPT_KINDS)}."
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotSetUpError(f"there are no prompts {str(path)!r}, and no such file.", hint) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a JSON file of prompts: {error}.", hint) from None
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a JSON {type(content).__name__}; expected an object, class to text.", hint)
    lacking = [c for c in classes if c not in content]
    if lacking:
        raise DataError(f"{path} has no text for {', '.join(lacking)}.", "Add these classes to the file.")
    return {c: _texts(content[c], c, path) for c in classes}


def _texts(value: object, name: str, path: Path) -> tuple[str, ...]:
    if isinstance(value, str) and value.strip():
        return (value.strip().lower(),)
    if isinstance(value, list) and value and all(isinstance(text, str) and text.strip() for text in value):
        return tuple(value)
    raise DataError(f"{path}: the texts of {name} are {value!r}; expected a text or a list of texts.")
