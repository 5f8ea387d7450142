"""Commands whose help shows what an option takes, and nothing beside one that takes nothing."""

from typing import Any

from typer.core import TyperCommand, TyperGroup


class _PlainFlags:
    """Takes the type off flags; typer shows it as `<bool>`, as if it were to be typed."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters of a command, --help among them."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return params


class PlainCommand(_PlainFlags, TyperCommand):
    """A command."""


class PlainGroup(_PlainFlags, TyperGroup):
    """A command with subcommands."""
