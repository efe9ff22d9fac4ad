"""`edgepress export comfyui`: the transformer in ComfyUI's layout for 4-bit weights."""

from __future__ import annotations

from pathlib import Path

import click

from ..api import weight_exports as api
from .command import Command
from .console import show_progress
from .weight_exports import show_result, weight_export_options


@click.command(cls=Command)
@weight_export_options
def comfyui(recipe: str | None, model: str | None, output: Path | None, as_json: bool) -> None:
    """Export the transformer to one file with the layout awq_w4a16 of comfy-kitchen."""
    with show_progress() as progress:
        result = api.export_comfyui(recipe, model=model, output=output, progress=progress)
    show_result(result, as_json)
