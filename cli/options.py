"""The options and types that commands share, so that one thing has one name in all of them."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from ..common.file_names import require_utf8
from ..recipes.loader import recipe_names

F = TypeVar("F", bound=Callable[..., Any])
Renames = Mapping[str, str | None]

LOGGER = logging.getLogger("edgepress")
FOLDER = click.Path(path_type=Path)
QUIET = "edgepress.quiet"  # keys of the context's meta
MAY_BE_EMPTY = "--prompt"
MAX_TUNE_MINUTES = 10_080  # a week
COMMAND = "edgepress.command"  # the context of the command that runs


class ImageSize(click.ParamType[tuple[int, int]]):
    """An image's height and width in pixels."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d{1,6})[xX×](\d{1,6})", value)
        if not match:
            self.fail(f"{value!r} is not a size. Write height and width like 512x768.", param, ctx)
        return int(match[1]), int(match[2])


class Number(click.FloatRange):
    """A number within limits, which NaN is not, though it is neither below nor above any."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value} is not a number. Write it like 2.5.", param, ctx)
        return number


class Seconds(Number):
    """A duration: positive, and no longer than about a year."""

    name = "seconds"

    def __init__(self) -> None:
        super().__init__(0, 3e7, min_open=True)


class TuneTime(click.ParamType[str | float]):
    """`off`, `auto`, or minutes: positive, and no longer than a week."""

    name = "off|auto|MINUTES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | float:
        if str(value).lower() in ("off", "auto"):
            return str(value).lower()
        if re.fullmatch(r"\d{1,5}(\.\d{1,9})?", str(value)) and 0 < float(value) <= MAX_TUNE_MINUTES:
            return float(value)
        return self.fail(f"{value!r} is not off, auto or minutes. Write minutes like 10, up to 10080.", param, ctx)


class ByteSize(click.ParamType[int]):
    """Bytes, given as a number with a unit."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*([KMGT]i?)B", value)
        if not match:
            self.fail(f"{value!r} is not a size. Write it like 6GiB or 500MB.", param, ctx)
        base = 1024 if match[2].endswith("i") else 1000
        return int(float(match[1]) * base ** (1 + "KMGT".index(match[2][0])))


class RecipeName(click.ParamType[str]):
    """A recipe's name or file; shells complete the names."""

    name = "NAME|FILE"

    def shell_complete(self, _: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
        names = [CompletionItem(name) for name in recipe_names() if name.startswith(incomplete)]
        return [*names, CompletionItem(incomplete, type="file")]


def recipe_option(required: bool = True, help: str = "A shipped recipe, or a YAML file.") -> Callable[[F], F]:  # noqa: A002
    """`--recipe`, as the parameter `recipe`."""
    return click.option("--recipe", type=RecipeName(), required=required, help=help)


def model_option(help: str) -> Callable[[F], F]:  # noqa: A002
    """`--model`, as the parameter `model`."""
    return click.option("--model", metavar="PATH", help=help)


def output_option(help: str, required: bool = False, metavar: str = "DIR") -> Callable[[F], F]:  # noqa: A002
    """`--output` or `-o`, as the parameter `output`."""
    return click.option("-o", "--output", type=FOLDER, metavar=metavar, required=required, help=help)


def force_option(help: str) -> Callable[[F], F]:  # noqa: A002
    """`--force`, as the parameter `force`."""
    return click.option("--force", is_flag=True, help=help)


def restart_option(function: F) -> F:
    """`--restart`, as the parameter `restart`."""
    return click.option("--restart", is_flag=True, help="Start over instead of resuming interrupted work.")(function)


def json_option(function: F) -> F:
    """`--json`, as the parameter `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(function)


def verbosity_options(function: F) -> F:
    """`--quiet` and `--verbose`, which no function sees: they decide what goes to standard error."""
    quiet = click.option(
        "-q", "--quiet", is_flag=True, expose_value=False, callback=_set_quiet, help="Show no progress, only warnings."
    )
    verbose = click.option(
        "-v", "--verbose", is_flag=True, expose_value=False, callback=_set_verbose, help="Show what is being done."
    )
    return quiet(verbose(function))


def _set_quiet(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.meta[QUIET] = ctx.meta.get(QUIET, False) or value


def _set_verbose(_: click.Context, __: click.Parameter, value: bool) -> None:
    if value:
        LOGGER.setLevel(logging.INFO)


def _require_no_empty(args: Sequence[str]) -> None:
    """Refuses arguments without a character, which a variable without a value leaves, but for a prompt.

    As a path, one would be the current folder.
    """
    for previous, argument in pairwise(["", *args]):
        name, equals, value = argument.partition("=")
        option = previous if not argument else name if name.startswith("-") and equals and not value else MAY_BE_EMPTY
        if option != MAY_BE_EMPTY:
            where = f"after {option}" if option else "at first"
            raise click.UsageError(f"The argument {where} is empty. Give a value, or leave it out.")


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
        _require_no_empty(args)
        for argument in args:
            require_utf8(argument, "argument", "Rename the file or folder, or check the encoding of the terminal.")
        return super().parse_args(ctx, [text for argument in args for text in self._rename(argument)])

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


C = TypeVar("C", bound=RenamedOptions)


class Command(RenamedOptions):
    """A command that reads renamed options."""


class Group(RenamedOptions, click.Group):
    """A group that reads renamed options."""


def accept_old_names(renames: Renames) -> Callable[[C], C]:
    """Decorates a command so that old names of its options are read."""

    def decorate(command: C) -> C:
        command.renames = renames
        return command

    return decorate
