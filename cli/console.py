"""What commands write to the terminal: results to standard output, progress and log messages to standard error."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from ..common.errors import escape_controls
from ..common.progress import Progress, no_progress, progress_bars
from .command import LOGGER
from .options import QUIET


class _ClickHandler(logging.Handler):
    """Writes log records to standard error, where click's test runner sees them as well."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = f"{record.levelname.capitalize()}: " if record.levelno > logging.INFO else ""
        click.echo(escape_controls(prefix + record.getMessage()), err=True)


@contextmanager
def log_to_terminal() -> Iterator[None]:
    """Shows the package's warnings, and with `--verbose` what it is doing, but no warnings of Python's libraries."""
    handler, level = _ClickHandler(), LOGGER.level
    LOGGER.setLevel(logging.WARNING)
    LOGGER.addHandler(handler)
    propagates, LOGGER.propagate = LOGGER.propagate, False
    logging.captureWarnings(True)  # of libraries, such as Pillow's of damaged EXIF data
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        LOGGER.propagate = propagates
        logging.captureWarnings(False)


@contextmanager
def show_progress(refresh_per_second: float = 10) -> Iterator[Progress]:
    """Bars with the remaining time, unless the command was given `--quiet`."""
    if click.get_current_context().meta.get(QUIET):
        yield no_progress
        return
    with progress_bars(refresh_per_second) as progress:
        yield progress


def print_json(content: Any) -> None:
    """Writes a result as JSON."""
    click.echo(json.dumps(content, ensure_ascii=False, indent=2))
