"""`edgepress plan`: whether a pipeline fits on a device, and the least time of an image, before any work."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ..api.planning import plan as plan_pipeline
from .command import Command
from .console import print_json
from .options import json_option, model_option, recipe_option, verbosity_options
from .parameter_types import ImageSize, Number

if TYPE_CHECKING:
    from ..export.planning.device_plan import DevicePlan


@click.command(cls=Command)
@recipe_option()
@model_option("A diffusers folder, an artifact, a hub id, or 'demo'.  [default: the recipe's]")
@click.option("--size", type=ImageSize(), help="Height and width of the image.  [default: those of the preset quality]")
@click.option(
    "--memory",
    type=Number(0, 2**20, min_open=True),
    metavar="GIB",
    help="Memory of the device.  [default: that of its smallest version]",
)
@json_option
@verbosity_options
def plan(recipe: str, model: str | None, size: tuple[int, int] | None, memory: float | None, as_json: bool) -> None:
    """Say whether a pipeline fits on a device, from configs and headers alone.

    All numbers are estimated. Exit code 2: it does not fit.
    """
    result = plan_pipeline(recipe, model=model, size=size, memory=memory)
    if as_json:
        print_json(_summarize(result))
    else:
        click.echo(str(result))
    result.require_fits()


def _summarize(result: DevicePlan) -> dict[str, Any]:
    return asdict(result) | {
        "estimated": True,
        "verdict": str(result.verdict),
        "resident_bytes": result.resident_bytes,
        "phased_bytes": result.phased_bytes,
        "margin_bytes": result.margin_bytes,
        "missing_bytes": result.missing_bytes,
        "floor_seconds": result.floor_seconds,
    }
