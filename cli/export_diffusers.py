"""`edgepress export diffusers`: a folder for stock diffusers, transformers and auto-round."""

from __future__ import annotations

from pathlib import Path

import click

from ..api import weight_exports as api
from .command import Command
from .console import show_progress
from .weight_exports import show_result, weight_export_options


@click.command(cls=Command)
@weight_export_options
def diffusers(recipe: str | None, model: str | None, output: Path | None, as_json: bool) -> None:
    """Export to a folder that stock diffusers opens, without edgepress.

    It needs auto-round, which computes with 4-bit weights.
    """
    with show_progress() as progress:
        result = api.export_diffusers(recipe, model=model, output=output, progress=progress)
    show_result(result, as_json)
