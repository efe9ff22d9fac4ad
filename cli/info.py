"""`edgepress info`: says what a pipeline folder or an artifact is."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from .command import LOGGER, Command
from .console import print_json
from .options import PATH, json_option, verbosity_options


@click.command(cls=Command)
@click.argument("path", type=PATH)
@json_option
@verbosity_options
def info(path: Path, as_json: bool) -> None:
    """Show what PATH is: a diffusers pipeline (or demo), an artifact, or an export in it.

    Only configs and headers are read, at any size. Which layers would be quantized is shown where torch is installed;
    --verbose lists each.
    """
    from ..api import inspection
    from ..api.folder_info import PipelineInfo

    try:
        result = inspection.info(path, layers=True)
    except ModuleNotFoundError as error:  # on a board
        LOGGER.info("The layers that would be quantized are not shown, since '%s' is not installed.", error.name)
        result = inspection.info(path)
    if as_json:
        print_json(inspection.to_dict(result))
    else:
        click.echo(str(result))
        if isinstance(result, PipelineInfo) and result.layers and LOGGER.isEnabledFor(logging.INFO):
            click.echo(f"\n{result.list_layers()}")
