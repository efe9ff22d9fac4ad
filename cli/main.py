"""The root command: registers one command per verb, and turns errors into sentences."""

from __future__ import annotations

import errno
import platform
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, TypeGuard

import click

from .. import __version__
from ..common.errors import UserError
from ..common.requirements import missing_package
from .bench import bench
from .console import log_to_terminal
from .evaluate import evaluate
from .export import export
from .generate import generate
from .info import info
from .quantize import quantize
from .recipes import recipes

USER_ERROR_EXIT_CODE = 2
DEFAULT_HANDLERS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
RESUMABLE_COMMANDS = ("quantize", "evaluate")  # verbs that keep what is finished
LIBRARIES = {"torch": "torch", "ONNX Runtime": "onnxruntime"}  # that --version names
RKNN_TOOLKIT = "rknn-toolkit2"
RKNN_RUNTIME = "rknn-toolkit-lite2"  # that --version names where it is installed: on boards
NOT_INSTALLED = "not installed"


class RootGroup(click.Group):
    """A group that prints a user's error as one sentence and exits with code 2; `--debug` shows the traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        with _record_interrupts() as signals, log_to_terminal():
            try:
                return super().invoke(ctx)
            except (Exception, KeyboardInterrupt) as error:
                cause: BaseException = error
                if signals and not isinstance(error, KeyboardInterrupt):
                    cause = KeyboardInterrupt()
                elif isinstance(error, ModuleNotFoundError):
                    cause = missing_package(error, "all")
                if ctx.params["debug"] or not _is_user_facing(cause):
                    raise
                click.echo(f"Error: {_format_error(cause, ctx.invoked_subcommand in RESUMABLE_COMMANDS)}", err=True)
                ctx.exit(USER_ERROR_EXIT_CODE)


@contextmanager
def _record_interrupts() -> Iterator[list[int]]:
    """Records Ctrl-C, and interrupts as Python does: a C library may raise another error then.

    SIGTERM is handled in the same way, so that what was begun is cleaned up.
    """
    signals: list[int] = []

    def handler(number: int, _: object) -> None:
        signals.append(number)
        raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()
    replaced = {
        number: default
        for number, default in DEFAULT_HANDLERS.items()
        if is_main and signal.getsignal(number) is default
    }
    for number in replaced:
        signal.signal(number, handler)
    try:
        yield signals
    finally:
        for number, default in replaced.items():
            signal.signal(number, default)


def _is_user_facing(error: BaseException) -> TypeGuard[UserError | KeyboardInterrupt | OSError]:
    """Whether an error is a sentence for the user rather than a defect."""
    if isinstance(error, OSError):
        return error.errno not in (None, errno.EPIPE)  # a reader that left is click's to handle
    return isinstance(error, UserError | KeyboardInterrupt)


def _format_error(error: UserError | KeyboardInterrupt | OSError, resumable: bool) -> str:
    if isinstance(error, KeyboardInterrupt):
        hint = "finished work is kept, and the same command resumes." if resumable else "the same command starts over."
        return str(error) or f"Interrupted; {hint}"
    if isinstance(error, UserError):
        return str(error)
    where = f": {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"No space left{where} ({error.strerror}). Free some disk space, or choose another --output."
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return f"Permission denied{where} ({error.strerror}). Change the permissions, or choose another --output."
    return f"{error.strerror}{where}."


def _print_versions(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    click.echo(f"edgepress {__version__}")
    click.echo(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    for title, distribution in LIBRARIES.items():
        click.echo(f"{title} {_find_version(distribution)}")
    click.echo(f"{RKNN_TOOLKIT} {_find_version(RKNN_TOOLKIT, _toolkit_paths())}")
    runtime_version = _find_version(RKNN_RUNTIME)
    if runtime_version != NOT_INSTALLED:
        click.echo(f"{RKNN_RUNTIME} {runtime_version}")
    ctx.exit()


def _find_version(distribution: str, paths: list[str] | None = None) -> str:
    versions = [
        candidate.version
        for candidate in metadata.distributions(name=distribution, path=sys.path if paths is None else paths)
    ]
    return versions[0] if versions else NOT_INSTALLED


def _toolkit_paths() -> list[str]:
    """Where packages of the toolkit's own environment are."""
    from ..runtime.rknn.toolkit import find_interpreter

    try:
        environment = find_interpreter().absolute().parents[1]
    except UserError:
        return []
    return [str(path) for path in Path(environment).glob("lib/python*/site-packages")]


@click.group(cls=RootGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_versions,
    help="Show versions and exit.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Quantize text-to-image pipelines to run on edge devices."""


for command in (quantize, export, evaluate, generate, bench, recipes, info):
    main.add_command(command)
