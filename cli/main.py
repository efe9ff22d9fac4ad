"""The root command: registers one command a verb, and turns errors into sentences."""

from __future__ import annotations

import errno
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

import click

from .. import __version__
from ..common.errors import UserError
from .bench import bench
from .evaluate import evaluate
from .export import export
from .generate import generate
from .quantize import quantize

USER_ERROR_EXIT_CODE = 2
DEFAULT_HANDLERS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
RESUMABLE_COMMANDS = ("quantize", "evaluate")  # verbs that keep what is finished


class RootGroup(click.Group):
    """A group whose user errors are one sentence and exit code 2; `--debug` shows the traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        with _record_interrupts() as signals:
            try:
                return super().invoke(ctx)
            except (Exception, KeyboardInterrupt) as error:
                cause = KeyboardInterrupt() if signals and not isinstance(error, KeyboardInterrupt) else error
                if ctx.params["debug"] or not _is_user_facing(cause):
                    raise
                click.echo(f"Error: {_format_error(cause, ctx.invoked_subcommand in RESUMABLE_COMMANDS)}", err=True)
                ctx.exit(USER_ERROR_EXIT_CODE)


@contextmanager
def _record_interrupts() -> Iterator[list[int]]:
    """Notes that Ctrl-C was pressed, and interrupts as Python does: a library in C may make another error of that.

    A request to end (SIGTERM) is heard in the same way, so that what was begun is cleared up.
    """
    signals: list[int] = []

    def handler(number: int, _: object) -> None:
        signals.append(number)
        raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()
    replaced = {
        number: usual for number, usual in DEFAULT_HANDLERS.items() if is_main and signal.getsignal(number) is usual
    }
    for number in replaced:
        signal.signal(number, handler)
    try:
        yield signals
    finally:
        for number, usual in replaced.items():
            signal.signal(number, usual)


def _is_user_facing(error: BaseException) -> TypeGuard[UserError | KeyboardInterrupt | OSError]:
    """Whether an error is a sentence rather than a defect."""
    return isinstance(error, UserError | KeyboardInterrupt) or (isinstance(error, OSError) and error.errno is not None)


def _format_error(error: UserError | KeyboardInterrupt | OSError, resumable: bool) -> str:
    if isinstance(error, KeyboardInterrupt):
        resume_hint = "what is finished is kept, and the same command goes on from there"
        return str(error) or f"Interrupted; {resume_hint if resumable else 'the same command starts over'}."
    if isinstance(error, UserError):
        return str(error)
    where = f" at {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"There is no room left{where} ({error.strerror}); free some or give another --output."
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return f"Access is not allowed{where} ({error.strerror}); mend the rights, or give another --output."
    return f"{error.strerror}{where}."


@click.group(cls=RootGroup)
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Press text-to-image pipelines until they fit edge devices."""


main.add_command(quantize)
main.add_command(export)
main.add_command(evaluate)
main.add_command(generate)
main.add_command(bench)

if __name__ == "__main__":
    sys.exit(main())
