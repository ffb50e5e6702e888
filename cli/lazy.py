"""A command group that imports a command's module only when that command is called for."""

import difflib
import importlib
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

from fgclep.errors import UsageError


class LazyGroup(TyperGroup):
    """Subclass it with the table of commands.

    Attributes:
        table: command name -> `module:attribute`, a function or a Typer app, in the order of the help page.
        called: how the group is called on the command line, for messages.
    """

    table: ClassVar[dict[str, str]] = {}
    called: ClassVar[str] = "fgclep"

    def list_commands(self, ctx: Any) -> list[str]:
        """Name all commands, in the order of the help page."""
        return list(self.table)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import and build one command; None for an unknown name."""
        if cmd_name not in self.table:
            return None
        if cmd_name not in self.commands:
            self.commands[cmd_name] = _load_command(cmd_name, self.table[cmd_name])
        return self.commands[cmd_name]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Look a command up; a misspelt one is answered with the nearest name."""
        if args[0] not in self.table:
            near = difflib.get_close_matches(args[0], self.table, n=1)
            meant = f"did you mean {near[0]!r}?" if near else f"the commands are {', '.join(self.table)}."
            hint = f"{self.called} {near[0] if near else '--help'}"
            raise UsageError(f"{self.called} has no command {args[0]!r}; {meant}", hint)
        return super().resolve_command(ctx, args)


def _load_command(name: str, where: str) -> Any:
    module, _, attribute = where.partition(":")
    target = getattr(importlib.import_module(module), attribute)
    if not isinstance(target, typer.Typer):
        single = typer.Typer(add_completion=False)
        single.command(name)(target)
        return typer.main.get_command(single)
    group = typer.main.get_group(target)
    group.name = name
    return group
