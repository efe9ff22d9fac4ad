"""Measures what scale folding gains for the demo in w8a8 on the RK3588, in the simulator of rknn-toolkit2.

Run by `make bench-rknn-folding`. The toolkit's own quantization is compared with a solution's weights, and with these
plus the layers in float16 that an export keeps. All are calibrated on the same samples.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import click

from ...common.markdown_table import render_table
from ...common.progress import Progress, progress_bars
from ...pipelines.hub import DEMO_PIPELINE
from ...quantize.pipeline import quantize_pipeline
from ...recipes.loader import load_recipe
from ..common.report import write_section
from .folding_study import DENOISER, FoldingErrors, compare_folding

DEVICE = "rk3588"


def compare_demo(folder: Path, progress: Progress) -> dict[str, FoldingErrors]:
    """Quantizes the demo and compares its parts."""
    recipe = load_recipe(DEVICE)
    assert recipe.rknn is not None
    quantize_pipeline(recipe, DEMO_PIPELINE, folder / "quantized", progress=progress)
    return compare_folding(DEMO_PIPELINE, folder / "quantized", recipe.rknn, folder / "trials", progress)


def render_section(errors: Mapping[str, FoldingErrors]) -> str:
    """Returns the section of docs/benchmarks/rknn.md."""
    rows = [
        [
            "**the denoiser, all its graphs**" if name == DENOISER else name,
            *(f"{error:.3f}" for error in (part.plain, part.folded, part.mixed)),
            f"{part.mixed / part.plain:.2f}",
        ]
        for name, part in errors.items()
    ]
    header = ["part", "toolkit alone", "our weights, folded", "and layers in float16", "relative to the toolkit alone"]
    return "\n\n".join(
        [
            "## What folding is worth in 8 bits on the RK3588",
            "The demo in w8a8, in rknn-toolkit2's simulator: the norm of the output's error against the model's own "
            "float graph, relative to the norm of the output, worst of three steps. Layers stay in float16 according "
            "to their measured error.",
            render_table(header, rows),
        ]
    )


@click.command(help=__doc__)
def main() -> None:
    with tempfile.TemporaryDirectory() as folder, progress_bars() as progress:
        body = render_section(compare_demo(Path(folder), progress))
    write_section("npu-folding", "make bench-rknn-folding", body)
    click.echo(body)


if __name__ == "__main__":
    main()
