"""`edgepress export compressed-tensors`: text encoders for transformers and vLLM."""

from __future__ import annotations

from pathlib import Path

import click

from ..api import weight_exports as api
from .command import Command
from .console import show_progress
from .weight_exports import show_result, weight_export_options


@click.command("compressed-tensors", cls=Command)
@weight_export_options
def compressed_tensors(recipe: str | None, model: str | None, output: Path | None, as_json: bool) -> None:
    """Export the text encoders in the format pack-quantized of compressed-tensors."""
    with show_progress() as progress:
        result = api.export_compressed_tensors(recipe, model=model, output=output, progress=progress)
    show_result(result, as_json)
