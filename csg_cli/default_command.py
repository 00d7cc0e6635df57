"""Groups with a command that needs no name: `csg export [RUN]` beside `csg export inspect`, and `csg config`."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

DEFAULT = "run"
"""The name of the command that is taken if none is named; users do not see it."""


class DefaultGroup(TyperGroup):
    """Takes the command DEFAULT if the first word is not another of its commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = args[:1] != [DEFAULT] and bool(self.commands.keys() & set(args[:1]))
        return super().parse_args(ctx, args if named else [DEFAULT, *args])


class _GroupsContext(typer.Context):
    """Names the command as a user types it, in its usage line and in errors."""

    @property
    def command_path(self) -> str:
        return self.parent.command_path if self.parent else super().command_path


class DefaultCommand(TyperCommand):
    """The class of the command DEFAULT."""

    context_class = _GroupsContext
