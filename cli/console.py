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

IMPORT_LOGGER = logging.getLogger("transformers.utils.import_utils")


class _ClickHandler(logging.Handler):
    """Writes log records to standard error, where click's test runner sees them as well."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = f"{record.levelname.capitalize()}: " if record.levelno > logging.INFO else ""
        click.echo(escape_controls(prefix + record.getMessage()), err=True)


def _is_no_fallback(record: logging.LogRecord) -> bool:
    """Whether a record says more than that images are read with Pillow for lack of torchvision, which changes nothing.

    transformers logs it of classes that diffusers only imports, in every run of many pipelines.
    """
    return "requires torchvision (not installed); falling back" not in record.getMessage()


@contextmanager
def log_to_terminal() -> Iterator[None]:
    """Shows the package's warnings, and with `--verbose` what it is doing, but no warnings of Python's libraries."""
    handler, level = _ClickHandler(), LOGGER.level
    LOGGER.setLevel(logging.WARNING)
    LOGGER.addHandler(handler)
    propagates, LOGGER.propagate = LOGGER.propagate, False
    IMPORT_LOGGER.addFilter(_is_no_fallback)
    logging.captureWarnings(True)  # of libraries, such as Pillow's of damaged EXIF data
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        LOGGER.propagate = propagates
        logging.captureWarnings(False)
        IMPORT_LOGGER.removeFilter(_is_no_fallback)


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
