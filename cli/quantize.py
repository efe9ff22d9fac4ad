"""`edgepress quantize`: quantizes a pipeline to 4 bits for a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..api import functions as api
from ..recipes.schema import METHOD_STEPS
from .command import Command, accept_old_names
from .console import print_json, show_progress
from .options import (
    PATH,
    force_option,
    ignore_plan_option,
    json_option,
    model_option,
    output_option,
    ray_option,
    recipe_option,
    restart_option,
    verbosity_options,
)
from .parameter_types import BudgetText, ByteSize, DeviceName, NameChoice, TuneTime

if TYPE_CHECKING:
    from ..quantize.result import QuantizeResult


@accept_old_names({"--memory": "--max-memory"})
@click.command(cls=Command)
@recipe_option()
@model_option("A diffusers folder, a hub id, or 'demo'.  [default: the recipe's]")
@output_option("Artifact folder.  [default: artifacts/DEVICE]")
@click.option("--method", type=NameChoice(list(METHOD_STEPS)), help="Method; overrides the recipe's method or steps.")
@click.option(
    "--tune",
    type=TuneTime(),
    help="Train what stays in floating point to the reference, without a byte more; overrides the recipe's.",
)
@click.option(
    "--budget",
    type=BudgetText(),
    help="Mixed precision: bits per weight, such as 4.5bpw, or the size of all components, such as 3.6GB.",
)
@click.option(
    "--lora",
    "loras",
    metavar="PATH[:WEIGHT]",
    multiple=True,
    help="A LoRA to merge into the weights first; repeatable.  [default: the recipe's]",
)
@click.option(
    "--reuse",
    type=PATH,
    metavar="ARTIFACT",
    multiple=True,
    help="An artifact whose text encoder is taken as it is, if its weights were the same (SHA-256); repeatable.",
)
@click.option(
    "--max-memory", type=ByteSize(), default="6GiB", show_default=True, help="What the run may use, such as 2GiB."
)
@click.option(
    "--device",
    type=DeviceName(),
    default="cpu",
    show_default=True,
    help="Where PyTorch calibrates, solves and tunes; auto is a GPU if there is one. GPUs are not verified.",
)
@force_option("Replace an artifact made from something else, with its exports.")
@ignore_plan_option
@restart_option
@ray_option
@json_option
@verbosity_options
def quantize(recipe: str, output: Path | None, as_json: bool, **options: Any) -> None:
    """Quantize a pipeline's weights to 4 bits.

    Interrupted work resumes when the same command is given again.
    """
    with show_progress() as progress:
        result = api.quantize(recipe, output=output, progress=progress, **options)
    if as_json:
        print_json(_summarize(result))
    else:
        _print_tables(result)


def _summarize(result: QuantizeResult) -> dict[str, Any]:
    return {
        "output": str(result.output),
        "model": str(result.model),
        "created": result.created,
        "seconds": result.seconds,
        "manifest": result.manifest.model_dump(mode="json"),
    }


def _print_tables(result: QuantizeResult) -> None:
    from rich.console import Console

    from .quantize_tables import build_tables

    console = Console()
    if not result.created:
        console.print(f"{result.output} is up to date; nothing was done. --restart quantizes again.")
    for table in build_tables(result):
        console.print(table)
    for name in result.manifest.fp16_overflows:
        console.print(f"[bold]float16 cannot hold {name}[/bold] in calibration. Run this component in bfloat16.")
    console.print(f"The quantized pipeline is in [bold]{result.model}[/bold].")
