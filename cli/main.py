"""The `fgclep` program: global options, the table of commands, and errors told in one paragraph.

Commands are imported when they are called for. Nothing heavy may be imported on the way to `--help`;
tests/test_architecture.py holds every module of this package to that.
"""

import json
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from cli import settings
from cli.lazy import LazyGroup
from fgclep.errors import FgclepError, InterruptedWork, UsageError

COMMANDS: dict[str, str] = {
    "search": "cli.search:search",
    "similar": "cli.search:similar",
    "show": "cli.show:show",
    "index": "cli.index:app",
    "data": "cli.data:app",
    "model": "cli.model:app",
    "enrich": "cli.enrich:app",
    "train": "cli.train:app",
    "evaluate": "cli.evaluate:app",
    "doctor": "cli.doctor:doctor",
    "demo": "cli.demo:demo",
}
"""Command name -> `module:attribute`, a function or a Typer app; daily verbs first."""

WELCOME = """\
fgclep finds 12-lead ECGs by what they look like, in words.

  fgclep search "low QRS voltage"               search your index, or the built-in demo
  fgclep show REF --plot ecg.png                draw one ECG on paper
  fgclep index build --data PATH --name NAME    make an index of your own ECGs

Every day:  search  similar  show
Machinery:  data  index  model  enrich  train  evaluate  doctor  demo
Help:       fgclep --help, fgclep COMMAND --help
"""

PACKAGES = ("cli", "fgclep", "indexer", "retrieval")
_LEVELS = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}


@dataclass(frozen=True)
class GlobalOptions:
    """What was said before the command; a command that takes a `typer.Context` finds it as `ctx.obj`.

    Attributes:
        verbosity: -1 quiet, 0 plain, 1 `-v`, 2 `-vv`.
    """

    verbosity: int = 0


class _Root(LazyGroup):
    table = COMMANDS


app = typer.Typer(
    cls=_Root,
    invoke_without_command=True,
    rich_markup_mode=None,  # importing Rich takes as long as all the rest of this help page; the commands' pages use it
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from fgclep import __version__

        typer.echo(f"fgclep {__version__}")
        raise typer.Exit


@app.callback()
def main(
    ctx: typer.Context,
    verbose: Annotated[
        int, typer.Option("-v", "--verbose", count=True, show_default=False, help="Say more; -vv: debug, tracebacks.")
    ] = 0,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing on stderr but errors.")] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="Plain text, no colours (also NO_COLOR).")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network (also FGCLEP_OFFLINE).")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Find 12-lead ECGs by what they look like, in words: search, draw, and index your own."""
    if ctx.invoked_subcommand is None:
        typer.echo(WELCOME, nl=False)
        return
    verbosity = -1 if quiet else min(verbose, 2)
    _set_log_level(verbosity)
    settings.export_for_libraries(no_color=no_color, offline=bool(settings.resolve("offline", offline or None).value))
    ctx.obj = GlobalOptions(verbosity)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the program and map every way to end to an exit code.

    Args:
        arguments: the words after `fgclep`; those of the process unless given.

    Returns:
        0 done, 1 failed, 2 usage, 3 not set up, 4 nothing found, 5 incompatible, 6 corrupt, 7 too many rejects,
        130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    _set_log_level(0)
    try:
        _check_words(words)
        result = typer.main.get_command(app)(args=words, prog_name="fgclep", standalone_mode=False)
        sys.stdout.flush()
    except Exception as problem:
        return _report(problem, as_json="--json" in words)
    except KeyboardInterrupt:
        result = InterruptedWork.exit_code
    if result == InterruptedWork.exit_code:
        return _report(InterruptedWork("Interrupted."), as_json="--json" in words)
    return result if isinstance(result, int) else 0


def _check_words(words: Sequence[str]) -> None:
    """Refuse words that are not UTF-8 before any of them gets into a query, a table or a file."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"The word {word!r} of the command is not UTF-8.",
                "Type it anew, or rename the file or folder it names.",
            ) from error


def _set_log_level(verbosity: int) -> None:
    """Send log lines to stderr; `-v` opens our own packages only, other libraries keep to warnings."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    for package in PACKAGES:
        logging.getLogger(package).setLevel(_LEVELS[verbosity])


def _report(problem: Exception, as_json: bool) -> int:
    """Tell a failure on stderr, and on stdout if JSON was asked for; return the exit code."""
    if isinstance(problem, BrokenPipeError):  # the reader of our output went away: nothing to tell, nobody to tell it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter's last flush complains
        return 1
    if isinstance(problem, TyperException) and not problem.format_message():
        return 0  # a group without a command: Typer printed its help page and has nothing to complain of
    if settings.debug() or logging.getLogger("cli").isEnabledFor(logging.DEBUG):
        traceback.print_exception(problem)
    error = _explain(problem)
    print(f"error: {error['message']}", file=sys.stderr)
    if error["hint"]:
        print(f"hint: {error['hint']}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": error}, ensure_ascii=False))
    return int(error["code"])


def _explain(problem: Exception) -> dict[str, Any]:
    """Put any exception into the four fields of an error: code, kind, message, hint."""
    if isinstance(problem, FgclepError):
        fields = problem.exit_code, problem.kind, problem.message, problem.hint
    elif isinstance(problem, TyperException):  # bad options and arguments
        context = getattr(problem, "ctx", None)
        path = context.command_path if context else "fgclep"
        fields = UsageError.exit_code, UsageError.kind, problem.format_message(), f"{path} --help"
    elif isinstance(problem, typer.Abort):
        fields = 1, "failed", "Aborted.", ""
    elif isinstance(problem, OSError) and problem.strerror:
        where = f": {problem.filename}" if problem.filename else ""
        fields = 1, "failed", f"{problem.strerror}{where}", ""
    else:
        fields = 1, "internal", f"internal error, {type(problem).__name__}: {problem}", "FGCLEP_DEBUG=1 shows where"
    return dict(zip(("code", "kind", "message", "hint"), fields, strict=True))


if __name__ == "__main__":
    sys.exit(run())
