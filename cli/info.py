"""`edgepress info`: says what a pipeline folder or an artifact is."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from .console import print_json
from .options import FOLDER, LOGGER, Command, json_option, verbosity_options


@click.command(cls=Command)
@click.argument("path", type=FOLDER)
@json_option
@verbosity_options
def info(path: Path, as_json: bool) -> None:
    """Show what PATH is: a diffusers pipeline, an artifact, or an export in it.

    Only configs and headers are read, so it takes a moment at any size. --verbose lists every layer of a pipeline that
    can be quantized.
    """
    from ..api import inspection

    result = inspection.info(path, layers=True)
    if as_json:
        print_json(inspection.to_dict(result))
    else:
        click.echo(str(result))
        if isinstance(result, inspection.PipelineInfo) and result.layers and LOGGER.isEnabledFor(logging.INFO):
            click.echo(f"\n{result.list_layers()}")
