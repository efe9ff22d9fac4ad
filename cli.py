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

from . import __version__
from .errors import UserError
from .evaluate.command import evaluate
from .export.command import export
from .quantize.command import quantize
from .runtime.bench.command import bench
from .runtime.command import generate

USER_ERROR = 2
USUAL = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
RESUMED = ("quantize", "evaluate")  # verbs that keep what is finished


class Root(click.Group):
    """A group whose user errors are one sentence and exit code 2; `--debug` shows the traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        with _listening() as pressed:
            try:
                return super().invoke(ctx)
            except (Exception, KeyboardInterrupt) as error:
                cause = KeyboardInterrupt() if pressed and not isinstance(error, KeyboardInterrupt) else error
                if ctx.params["debug"] or not _is_told(cause):
                    raise
                click.echo(f"Error: {_sentence(cause, ctx.invoked_subcommand in RESUMED)}", err=True)
                ctx.exit(USER_ERROR)


@contextmanager
def _listening() -> Iterator[list[int]]:
    """Notes that Ctrl-C was pressed, and interrupts as Python does: a library in C may make another error of that.

    A request to end (SIGTERM) is heard in the same way, so that what was begun is cleared up.
    """
    pressed: list[int] = []

    def hear(number: int, _: object) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()
    heard = {number: usual for number, usual in USUAL.items() if is_main and signal.getsignal(number) is usual}
    for number in heard:
        signal.signal(number, hear)
    try:
        yield pressed
    finally:
        for number, usual in heard.items():
            signal.signal(number, usual)


def _is_told(error: BaseException) -> TypeGuard[UserError | KeyboardInterrupt | OSError]:
    """Whether an error is a sentence rather than a defect."""
    return isinstance(error, UserError | KeyboardInterrupt) or (isinstance(error, OSError) and error.errno is not None)


def _sentence(error: UserError | KeyboardInterrupt | OSError, resumed: bool) -> str:
    if isinstance(error, KeyboardInterrupt):
        goes_on = "what is finished is kept, and the same command goes on from there"
        return str(error) or f"Interrupted; {goes_on if resumed else 'the same command starts over'}."
    if isinstance(error, UserError):
        return str(error)
    where = f" at {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"There is no room left{where} ({error.strerror}); free some or give another --output."
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return f"Access is not allowed{where} ({error.strerror}); mend the rights, or give another --output."
    return f"{error.strerror}{where}."


@click.group(cls=Root)
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
