"""Help without what says nothing: flags show no type, arguments no braces.

A Typer app comes in with its commands registered; ``tidy`` makes all of them, and those of the
apps below it, print their help like this.
"""

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class _Flags:
    """A flag is there or not: the word for its type tells nobody anything."""

    def get_params(self, context: Any) -> Any:
        params = super().get_params(context)  # type: ignore[misc]  # it stands before a command
        for param in params:
            if getattr(param, "is_flag", False) and param.metavar is None:
                param.metavar = ""
        return params


class Command(_Flags, TyperCommand):
    """``TEXT``, not ``{TEXT}``."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]


class Group(_Flags, TyperGroup):
    """Commands below one name."""


def tidy(app: typer.Typer) -> None:
    """For ``app`` and all below it; call it when every command is registered."""
    app.info.cls = Group
    for command in app.registered_commands:
        command.cls = Command
    for group in app.registered_groups:
        group.cls = Group
        if group.typer_instance is not None:
            tidy(group.typer_instance)
