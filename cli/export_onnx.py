"""`edgepress export onnx`: graphs and weights for ONNX Runtime and other readers of ONNX."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from ..api import functions as api
from ..recipes.schema import ExportSettings
from .command import Command, accept_old_names
from .console import print_json, show_progress
from .options import ignore_plan_option, json_option, model_option, output_option, recipe_option, verbosity_options
from .parameter_types import ImageSize, NameChoice, WholeNumber

if TYPE_CHECKING:
    from ..export.onnx.exporter import ExportResult


def _make_choice(key: str) -> NameChoice:
    return NameChoice(get_args(ExportSettings.model_fields[key].annotation))


@accept_old_names({"--flavour": "--format", "--with": "--extra-graph", "--force": "--ignore-plan"})
@click.command(cls=Command)
@recipe_option(required=False)
@model_option("A diffusers folder, an artifact, a hub id, or 'demo'.  [default: the artifact at --output]")
@output_option("Artifact folder.  [default: artifacts/DEVICE]")
@click.option("--precision", type=_make_choice("precision"), help="Precision of the graphs; overrides the recipe.")
@click.option(
    "--format", type=_make_choice("format"), help="How quantized weights are expressed; overrides the recipe."
)
@click.option(
    "--activations", type=_make_choice("activations"), help="Activation scales of w8a8; overrides the recipe."
)
@click.option("--opset", type=WholeNumber(min=1), help="ONNX opset version; overrides the recipe.")
@click.option("--size", "sizes", type=ImageSize(), multiple=True, help="Image size to verify; may be repeated.")
@click.option(
    "--shapes",
    type=_make_choice("shapes"),
    help="Shapes of the graphs' inputs; overrides the recipe. Fixed ones are those of --size.",
)
@click.option("--extra-graph", "extra_graphs", multiple=True, metavar="GRAPH", help="Such as vae_encoder; repeatable.")
@click.option("--no-check", is_flag=True, help="Skip the comparison with torch, which needs the memory of both.")
@ignore_plan_option
@json_option
@verbosity_options
def onnx(
    recipe: str | None,
    model: str | None,
    output: Path | None,
    extra_graphs: tuple[str, ...],
    no_check: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Export a pipeline to ONNX graphs, with its weights in safetensors next to them.

    Without --recipe, give --output, the artifact to export; --model names another pipeline for it.
    """
    with show_progress() as progress:
        result = api.export_onnx(
            recipe,
            model=model,
            output=output,
            verify=not no_check,
            extra_graphs=extra_graphs or None,
            progress=progress,
            **settings,
        )
    if as_json:
        print_json(_summarize(result))
    else:
        _print_tables(result)


def _summarize(result: ExportResult) -> dict[str, Any]:
    return {
        "folder": str(result.folder),
        "graphs": [file.name for file in result.graph_files],
        "parity": {name: asdict(parity) for name, parity in result.parity.items()},
    }


def _print_tables(result: ExportResult) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..export.onnx.exporter import PARITY_TITLES

    console = Console()
    for name, parity in result.parity.items():
        table = Table("graph", "largest error", "relative", title=PARITY_TITLES[name])
        for graph, error in parity.graphs.items():
            table.add_row(graph, f"{error.max_abs:.2g}", f"{error.relative:.2g}")
        console.print(table)
        if parity.fp16_sums:
            console.print(f"Where sums are in float16, as on arm64 CPUs: {parity.fp16_summary}.")
        psnr = "equal to torch's." if parity.psnr is None else f"{parity.psnr:.1f} dB PSNR."
        no_image = "not compared, since edgepress cannot generate images with this pipeline."
        console.print(f"The image: {psnr if parity.image_compared else no_image}")
    console.print(f"The graphs are in [bold]{result.folder}[/bold].")
