"""The options that commands share, so that one thing has one name in all of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import click

from .command import LOGGER
from .parameter_types import LocalPath, NameChoice, RecipeName

F = TypeVar("F", bound=Callable[..., Any])

PATH = LocalPath()
QUIET, VERBOSE = "edgepress.quiet", "edgepress.verbose"  # keys of the context's meta


def recipe_option(required: bool = True, help: str = "A shipped recipe, or a YAML file.") -> Callable[[F], F]:  # noqa: A002
    """`--recipe`, as the parameter `recipe`."""
    return click.option("--recipe", type=RecipeName(), required=required, help=help)


def model_option(help: str) -> Callable[[F], F]:  # noqa: A002
    """`--model`, as the parameter `model`."""
    return click.option("--model", metavar="PATH", help=help)


def output_option(help: str, required: bool = False, metavar: str = "DIR") -> Callable[[F], F]:  # noqa: A002
    """`--output` or `-o`, as the parameter `output`."""
    return click.option("-o", "--output", type=PATH, metavar=metavar, required=required, help=help)


def ignore_plan_option(function: F) -> F:
    """`--ignore-plan`, as the parameter `ignore_plan`."""
    help = "Go on where the plan says that the device cannot run the result."  # noqa: A001
    return click.option("--ignore-plan", is_flag=True, help=help)(function)


def force_option(help: str) -> Callable[[F], F]:  # noqa: A002
    """`--force`, as the parameter `force`."""
    return click.option("--force", is_flag=True, help=help)


def restart_option(function: F) -> F:
    """`--restart`, as the parameter `restart`."""
    return click.option("--restart", is_flag=True, help="Start over instead of resuming interrupted work.")(function)


def ray_option(function: F) -> F:
    """`--ray`, as the parameter `ray`."""
    help = "Run on the machines of a Ray cluster, or on one that is started on this machine. Results are the same."  # noqa: A001
    return click.option("--ray", metavar="HOST:PORT|local", help=help)(function)


def provenance_option(function: F) -> F:
    """`--provenance`, as the parameter `provenance`."""
    help = "What the file says: the artifact, seed, steps and the prompt's hash, or the prompt itself, or nothing."  # noqa: A001
    choice = NameChoice(("hash", "prompt", "none"))
    return click.option("--provenance", type=choice, default="hash", show_default=True, help=help)(function)


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
    _require_one_verbosity(ctx)


def _set_verbose(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.meta[VERBOSE] = ctx.meta.get(VERBOSE, False) or value
    _require_one_verbosity(ctx)
    if value:
        LOGGER.setLevel(logging.INFO)


def _require_one_verbosity(ctx: click.Context) -> None:
    if ctx.meta.get(QUIET) and ctx.meta.get(VERBOSE):
        raise click.UsageError("--quiet and --verbose exclude each other. Give one of them.", ctx)
