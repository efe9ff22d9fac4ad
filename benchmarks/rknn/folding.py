"""What folding is worth to the demo in 8 bits on the RK3588, as rknn-toolkit2 simulates it.

`make bench-rknn-folding`. The toolkit alone against a solution's weights, and against that with the layers in float16
that an export keeps so, all calibrated on the same samples.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import click

from ...common.progress import Progress, progress_bars
from ...pipelines.hub import DEMO_PIPELINE
from ...quantize.pipeline import quantize_pipeline
from ...recipes import loader
from ..common.report import render_table, write_section
from .folding_study import DENOISER, FoldingErrors, compare_folding

DEVICE = "rk3588"


def compare_demo(folder: Path, progress: Progress) -> dict[str, FoldingErrors]:
    recipe = loader.load_recipe(DEVICE)
    assert recipe.rknn is not None
    quantize_pipeline(recipe, DEMO_PIPELINE, folder / "pressed", progress=progress)
    return compare_folding(DEMO_PIPELINE, folder / "pressed", recipe.rknn, folder / "trials", progress)


def render_section(errors: Mapping[str, FoldingErrors]) -> str:
    """The body of the section in docs/benchmarks.md."""
    rows = [
        [
            "**the denoiser, all its graphs**" if name == DENOISER else name,
            *(f"{error:.3f}" for error in (one.plain, one.folded, one.mixed)),
            f"{one.mixed / one.plain:.2f}",
        ]
        for name, one in errors.items()
    ]
    header = ["part", "toolkit alone", "our weights, folded", "and layers in float16", "over the toolkit alone"]
    return "\n\n".join(
        [
            "## What folding is worth in 8 bits on the RK3588",
            "The demo in w8a8, in rknn-toolkit2's simulator: error of the output over the output's norm, from the "
            "model's own float graph, the worst of three steps. Layers stay in float16 by their measured error.",
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
