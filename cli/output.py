"""How commands print: one table for people, and --json, --jsonl, --csv, --ids for machines, everywhere the same.

stdout is data, stderr is talk. What is printed never depends on where it goes; only colour and width do.
"""

import inspect
import json
import logging
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 10_000  # columns where nobody looks at a screen: no line is wrapped or cropped

logger = logging.getLogger(__name__)


class OutputFormat(StrEnum):
    """What a listing is printed as."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    IDS = "ids"


_FLAGS = {
    OutputFormat.JSON: "Print one JSON object.",
    OutputFormat.JSONL: "Print one JSON object per line.",
    OutputFormat.CSV: "Print CSV with a header.",
    OutputFormat.IDS: "Print one id per line.",
}


def with_output_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the four format flags in place of its parameter `output`.

    Args:
        command: takes `output: OutputFormat` as a keyword.
    """

    @wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        from fgclep.errors import UsageError

        chosen = [form for form in _FLAGS if kwargs.pop(f"as_{form}")]
        if len(chosen) > 1:
            raise UsageError(f"{' and '.join(f'--{form}' for form in chosen)} exclude each other.", "Give one of them.")
        command(*args, output=chosen[0] if chosen else OutputFormat.TABLE, **kwargs)

    flags = [
        inspect.Parameter(
            f"as_{form}",
            inspect.Parameter.KEYWORD_ONLY,
            default=False,
            annotation=Annotated[bool, typer.Option(f"--{form}", help=text)],
        )
        for form, text in _FLAGS.items()
    ]
    own = inspect.signature(command).parameters.values()
    set_parameters(wrapper, [*(parameter for parameter in own if parameter.name != "output"), *flags])
    return wrapper


def set_parameters(command: Callable[..., None], parameters: Sequence[inspect.Parameter]) -> None:
    """Replace the parameters that Typer sees of a command."""
    by_keyword = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    command.__signature__ = inspect.Signature(by_keyword)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}


def print_rows(
    output: OutputFormat,
    document: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    id_column: str,
) -> None:
    """Print a listing in one of the machine formats.

    Args:
        output: any format but `TABLE`.
        document: what --json prints.
        rows: what the other formats print.
        columns: the columns of --csv, in order.
        id_column: the column of --ids.
    """
    if output is OutputFormat.JSON:
        print_json(document)
    elif output is OutputFormat.JSONL:
        sys.stdout.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    elif output is OutputFormat.CSV:
        from retrieval.tables import csv_text

        sys.stdout.write(csv_text(rows, columns))
    else:
        sys.stdout.writelines(f"{row[id_column]}\n" for row in rows)


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON object, UTF-8, readable."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=1) + "\n")


def console() -> "Console":
    """Return the console for tables on stdout: COLUMNS wide, else the terminal's width, else without limit."""
    from rich.console import Console

    width = shutil.get_terminal_size((_WIDE, 24)).columns
    # No markup, no emoji: reports and record ids may hold [brackets] and :colons:.
    return Console(width=width, markup=False, emoji=False, highlight=False)


def say(line: str, *, dim: bool = False) -> None:
    """Talk to the user on stderr, unless `-q` was given."""
    if logger.isEnabledFor(logging.WARNING):
        typer.secho(line, err=True, dim=dim)
