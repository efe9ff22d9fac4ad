"""`--verify`: compares every file of an export with its SHA-256 before images are generated from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from .command import LOGGER
from .console import show_progress

F = TypeVar("F", bound=Callable[..., Any])


def verify_option(function: F) -> F:
    """`--verify`, as the parameter `verify`."""
    text = "First compare every file of the artifact with its SHA-256, as evaluate and bench do."
    return click.option("--verify", is_flag=True, help=text)(function)


def require_recorded_hashes(artifact: Path) -> None:
    """Checks the hashes of an export; says so where it has none.

    Raises:
        UserError: A file is not as it was exported.
    """
    from ..runtime.verification import verify_export

    with show_progress() as progress:
        notice = verify_export(artifact, progress)
    if notice:
        LOGGER.warning("%s", notice)
