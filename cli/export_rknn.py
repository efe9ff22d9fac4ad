"""`edgepress export rknn`: parts for the NPUs of Rockchip boards, built and simulated."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from ..api import functions as api
from ..recipes.rknn import RknnSettings
from .command import Command, require_effect
from .console import print_json, show_progress
from .options import json_option, model_option, output_option, recipe_option, verbosity_options
from .parameter_types import NameChoice, Seconds

if TYPE_CHECKING:
    from ..export.rknn.building.builder import BuiltPart
    from ..export.rknn.exporter import RknnExportResult

PRECISIONS = get_args(RknnSettings.model_fields["precision"].annotation)


@click.command(cls=Command)
@recipe_option()
@model_option("A diffusers folder, an artifact, a hub id, or 'demo'.  [default: the recipe's]")
@output_option("Artifact folder.  [default: artifacts/DEVICE]")
@click.option("--component", "components", multiple=True, help="Export only this component; may be repeated.")
@click.option("--precision", type=NameChoice(PRECISIONS), help="Precision of the parts; overrides the recipe.")
@click.option(
    "--timeout", type=Seconds(), default=3600, show_default=True, help="Seconds that building a part may take."
)
@click.option("--plan", "only_plan", is_flag=True, help="Build nothing: show the parts, and whether they fit.")
@json_option
@verbosity_options
def rknn(
    recipe: str, model: str | None, output: Path | None, timeout: float, only_plan: bool, as_json: bool, **options: Any
) -> None:
    """Export a pipeline to RKNN parts, built and simulated by rknn-toolkit2."""
    if only_plan:
        for name in ("--component", "--output", "--timeout"):
            require_effect(name, False, "--plan is about the whole pipeline, and builds nothing")
        plan = api.plan_rknn(recipe, model=model, precision=options["precision"])
        if as_json:
            click.echo(json.dumps(asdict(plan), default=str, ensure_ascii=False, indent=2))
        else:
            click.echo(str(plan))
        plan.require_any_fits()
        return
    with show_progress() as progress:
        result = api.export_rknn(recipe, model=model, output=output, timeout_s=timeout, progress=progress, **options)
    if as_json:
        print_json(_summarize(result))
    else:
        _print_table(result)


def _summarize(result: RknnExportResult) -> dict[str, Any]:
    return {
        "folder": str(result.folder),
        "image_psnr": dict(result.image_psnr),
        "parts": {
            name: {
                "precision": part.precision,
                "npu_layers": len(part.measurement.build_log.layers),
                "relative_error": part.measurement.relative_error,
                "cosine": part.measurement.cosine,
                "memory_bytes": _memory_bytes(part),
                "build_seconds": part.measurement.build_seconds,
            }
            for name, part in result.parts.items()
        },
    }


def _print_table(result: RknnExportResult) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    header = ("part", "precision", "on the NPU", "simulated error", "cosine", "memory", "build")
    table = Table(*header, title="RKNN parts, simulated")
    for name, part in result.parts.items():
        measurement = part.measurement
        layers, memory = f"{len(measurement.build_log.layers)}", f"{_memory_bytes(part) / 2**20:.1f} MiB"
        error, cosine = f"{measurement.relative_error:.2g}", f"{measurement.cosine:.5f}"
        table.add_row(name, part.precision, layers, error, cosine, memory, f"{measurement.build_seconds:.0f} s")
    console.print(table)
    for backend, psnr in result.image_psnr.items():
        console.print(f"The {backend} image: " + ("equal to torch's." if psnr is None else f"{psnr:.1f} dB PSNR."))
    console.print(f"The parts are in [bold]{result.folder}[/bold]. No board has verified them.")


def _memory_bytes(part: BuiltPart) -> int:
    log = part.measurement.build_log
    return log.weight_bytes + log.internal_bytes
