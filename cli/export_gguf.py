"""`edgepress export gguf`: one GGUF file for each quantized component."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from ..api import weight_exports as api
from .command import Command
from .console import show_progress
from .parameter_types import NameChoice
from .weight_exports import component_option, show_result, weight_export_options

TYPES = ("q4_0", "q4_1", "q8_0")


@click.command(cls=Command)
@weight_export_options
@click.option(
    "--type",
    type=NameChoice(TYPES),
    help="q4_0 takes a symmetric 4-bit solution, q8_0 one in 8 bits.  [default: the model's codes, as they are]",
)
@component_option
def gguf(
    recipe: str | None,
    model: str | None,
    output: Path | None,
    type: Literal["q4_0", "q4_1", "q8_0"] | None,  # noqa: A002
    as_json: bool,
    **options: Any,
) -> None:
    """Export the weights to GGUF, for ComfyUI-GGUF, diffusers and others.

    Codes and scales are carried over, not rounded again.
    """
    with show_progress() as progress:
        result = api.export_gguf(recipe, model=model, output=output, type=type, progress=progress, **options)
    show_result(result, as_json)
