"""`edgepress convert`: a diffusers folder of a single-file checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .command import Command
from .console import print_json, show_progress
from .options import PATH, json_option, output_option, verbosity_options


@click.command(cls=Command)
@click.argument("file", type=PATH)
@click.option(
    "--base", required=True, metavar="MODEL", help="The pipeline that it belongs to: a diffusers folder or Hub id."
)
@click.option("--component", metavar="NAME", help="The one component to take, such as transformer.  [default: all]")
@output_option("A new folder for the pipeline.", required=True)
@json_option
@verbosity_options
def convert(file: Path, as_json: bool, **options: Any) -> None:
    """Make a diffusers folder of a single-file checkpoint, for --model of the other commands.

    FILE is a safetensors file with one component, such as ComfyUI keeps in diffusion_models, or a whole checkpoint with
    denoiser, VAE and text encoders. All else is linked or copied from the pipeline.
    """
    from ..api import conversion as api

    with show_progress() as progress:
        result = api.convert(file, progress=progress, **options)
    if as_json:
        print_json({"folder": str(result.folder), "components": result.components, "weights": result.num_weights})
    else:
        click.echo(str(result))
