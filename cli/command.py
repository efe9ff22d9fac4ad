"""Commands and groups that read arguments strictly: nothing that was given is dropped without a word."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from ..common.errors import UserError
from ..common.file_names import require_utf8
from .usage_errors import require_subcommand

Renames = Mapping[str, str | None]

LOGGER = logging.getLogger("edgepress")
MAY_BE_EMPTY = ("--prompt", "--negative-prompt")
COMMAND = "edgepress.command"  # the context's meta: the context of the command that runs


class RenamedOptions(click.Command):
    """A command whose options had other names in the release before; those are read with a warning.

    Attributes:
        renames: New names by old ones, such as `{"--memory": "--max-memory"}`; None for a flag that has no effect now.
    """

    renames: Renames = MappingProxyType({})

    def invoke(self, ctx: click.Context) -> Any:
        ctx.meta[COMMAND] = ctx
        return super().invoke(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        _require_no_blank(args)
        for argument in args:
            require_utf8(argument, "argument", "Rename the file or folder, or check the encoding of the terminal.")
        args = [text for argument in args for text in self._rename(argument)]
        try:
            if not ctx.resilient_parsing:  # shells complete what is not whole yet
                self._require_once(ctx, args)
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def _rename(self, argument: str) -> Sequence[str]:
        name, equals, value = argument.partition("=")
        if name not in self.renames:
            return [argument]
        new = self.renames[name]
        if new is None:
            LOGGER.warning("%s has no effect any more and will be removed in the next release.", name)
            return []
        LOGGER.warning("%s is deprecated and will be removed in the next release. Use %s instead.", name, new)
        return [f"{new}{equals}{value}"]

    def _require_once(self, ctx: click.Context, args: Sequence[str]) -> None:
        """Refuses an option that is given again with another value, of which click would take the last."""
        order = self.make_parser(ctx).parse_args(list(args))[2]
        for parameter, count in Counter(order).items():
            if count == 1 or not isinstance(parameter, click.Option) or parameter.multiple:
                continue
            name = max(parameter.opts, key=len)
            if not parameter.is_flag:
                raise click.UsageError(f"{name} is given {count} times, and has one value. Give it once.", ctx)
            if parameter.secondary_opts and {name, *parameter.secondary_opts} <= set(args):
                raise click.UsageError(f"{name} and {parameter.secondary_opts[0]} exclude each other. Give one.", ctx)


C = TypeVar("C", bound=RenamedOptions)


class Command(RenamedOptions):
    """A command that reads renamed options."""

    allow_extra_args = True  # they are refused here

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        if ctx.args and not ctx.resilient_parsing:
            count = sum(1 for parameter in self.params if isinstance(parameter, click.Argument))
            takes = {0: "no argument", 1: "one argument"}.get(count, f"{count} arguments")
            raise click.UsageError(
                f"'{ctx.command_path}' takes {takes}, and '{ctx.args[0]}' is one more. Leave it out, or quote what "
                "belongs together.",
                ctx,
            )
        return rest


class Group(RenamedOptions, click.Group):
    """A group that reads renamed options."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        require_subcommand(self, ctx, args)
        return super().resolve_command(ctx, args)

    def require_no_options(self, ctx: click.Context) -> None:
        """Checks that an option was not given before the name of a subcommand, which does not see it.

        Raises:
            UsageError: It was.
        """
        assert ctx.invoked_subcommand is not None
        command = self.commands[ctx.invoked_subcommand]
        for parameter in self.params:
            is_given = ctx.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
            if is_given and parameter.expose_value:
                name = max(parameter.opts, key=len)
                has_same = any(name in known.opts for known in command.params)
                advice = f"Give it after '{command.name}'" if has_same else "Leave it out"
                raise click.UsageError(f"{name} before '{command.name}' has no effect. {advice}.", ctx)


def require_effect(option: str, has_effect: bool, reason: str) -> None:
    """Checks that an option of the command that runs was not given in vain.

    Args:
        option: Its name, such as `--quality`.
        has_effect: Whether it changes anything.
        reason: Why not, such as "PNG loses nothing".

    Raises:
        UserError: It was given.
    """
    context = click.get_current_context()
    parameter = next(parameter for parameter in context.command.params if option in parameter.opts)
    name = str(parameter.name)
    is_negated = parameter.secondary_opts and not context.params[name]  # such as --no-gates
    given = parameter.secondary_opts[0] if is_negated else option
    if not has_effect and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
        raise UserError(f"{given} has no effect: {reason}. Leave it out.")


def accept_old_names(renames: Renames) -> Callable[[C], C]:
    """Decorates a command so that old names of its options are read."""

    def decorate(command: C) -> C:
        command.renames = renames
        return command

    return decorate


def _require_no_blank(args: Sequence[str]) -> None:
    """Refuses arguments without a visible character, which a variable without a value leaves, but for prompts.

    As a path, an empty one would be the current folder.
    """
    for previous, argument in pairwise(["", *args]):
        name, equals, value = argument.partition("=")
        is_pair = name.startswith("-") and equals and not value.strip()
        option = previous if not argument.strip() else name if is_pair else MAY_BE_EMPTY[0]
        if option not in MAY_BE_EMPTY:
            where = f"after {option}" if option else "at first"
            kind = "empty" if not (value if is_pair else argument) else "blank"
            raise click.UsageError(f"The argument {where} is {kind}. Give a value, or leave it out.")
