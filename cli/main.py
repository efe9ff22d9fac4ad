"""The root command: registers one command per verb, and turns errors into sentences."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import click

from .. import __version__
from ..common.errors import UserError, escape_controls
from .command import COMMAND
from .console import log_to_terminal
from .failures import describe_failure, is_broken_pipe
from .interrupts import record_interrupts
from .lazy_commands import LazyCommands
from .usage_errors import explain_usage_error, require_subcommand

PASSED_ON = (click.ClickException, click.exceptions.Exit, click.Abort, SystemExit, GeneratorExit)  # are for click
LIBRARIES = {"torch": "torch", "ONNX Runtime": "onnxruntime"}  # that --version names
RKNN_TOOLKIT = "rknn-toolkit2"
RKNN_RUNTIME = "rknn-toolkit-lite2"  # that --version names where it is installed: on boards
NOT_INSTALLED = "not installed"
COMMANDS = {
    "convert": "convert",
    "plan": "plan",
    "quantize": "quantize",
    "export": "export",
    "evaluate": "evaluate",
    "compare": "compare",
    "generate": "generate",
    "serve": "serve",
    "kit": "kit",
    "wheelhouse": "kit",
    "bench": "bench",
    "recipes": "recipes",
    "info": "info",
    "doctor": "doctor",
    "describe": "describe",
    "diff": "diff",
    "verify": "verify",
    "sign": "sign",
    "publish": "publish",
    "clean": "clean",
}  # and the modules that define them


class RootGroup(click.Group):
    """A group whose commands end in a sentence if they fail; `--debug` shows the traceback.

    Exit codes: 2 for what users can change, 3 for a defect, 128 and the signal's number for an interruption.
    """

    def main(self, *args: Any, **kwargs: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):  # whatever a stream cannot express, such as Chinese in ASCII
                stream.reconfigure(errors="backslashreplace")
        with suppress(OSError):  # there is no temporary folder
            # When it is imported, torch creates the folder of a cache that no command uses. This one exists.
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", tempfile.gettempdir())
        return super().main(*args, **kwargs)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _explained_usage():
            return super().make_context(*args, **kwargs)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        require_subcommand(self, ctx, args)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with _explained_usage(), record_interrupts() as signals, log_to_terminal():
            try:
                return super().invoke(ctx)
            except PASSED_ON:
                raise
            except BaseException as error:  # panics of libraries in Rust are no Exception
                if ctx.params["debug"] or (is_broken_pipe(error) and not signals):  # click handles a broken pipe
                    raise
                command: click.Context = ctx.meta.get(COMMAND, ctx)
                options = {name for parameter in command.command.params for name in parameter.opts}
                failure = describe_failure(error, command.command_path, options, signals)
                with suppress(OSError):  # the terminal may be closed
                    click.echo(f"Error: {escape_controls(failure.message)}", err=True)
                ctx.exit(failure.exit_code)


@contextmanager
def _explained_usage() -> Iterator[None]:
    """Replaces what click says about arguments."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        raise click.UsageError(explain_usage_error(error), error.ctx) from error


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


@click.group(cls=RootGroup, commands=LazyCommands(COMMANDS), context_settings={"help_option_names": ["-h", "--help"]})
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
