"""What folding is worth to the demo in 8 bits on the RK3588, as rknn-toolkit2 simulates it.

`make bench-rknn-folding`. The toolkit alone against a solution's weights, and against that with the layers in float16
that an export keeps so, all calibrated on the same samples.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import click

from .. import recipe as recipes
from ..export.rknn.folding import DENOISER, Compared, compare_folding
from ..progress import Progress, bars
from ..quantize.press import press
from ..sources import DEMO
from .report import table, write_section

DEVICE = "rk3588"


def compared(folder: Path, progress: Progress) -> dict[str, Compared]:
    recipe = recipes.load(DEVICE)
    assert recipe.rknn is not None
    press(recipe, DEMO, folder / "pressed", progress)
    return compare_folding(DEMO, folder / "pressed", recipe.rknn, folder / "trials", progress)


def section(found: Mapping[str, Compared]) -> str:
    """The body of the section in docs/benchmarks.md."""
    rows = [
        [
            "**the denoiser, all its graphs**" if name == DENOISER else name,
            *(f"{error:.3f}" for error in (one.plain, one.folded, one.mixed)),
            f"{one.mixed / one.plain:.2f}",
        ]
        for name, one in found.items()
    ]
    header = ["part", "toolkit alone", "our weights, folded", "and layers in float16", "over the toolkit alone"]
    return "\n\n".join(
        [
            "## What folding is worth in 8 bits on the RK3588",
            "The demo in w8a8, in rknn-toolkit2's simulator: error of the output over the output's norm, from the "
            "model's own float graph, the worst of three steps. Layers stay in float16 by their measured error.",
            table(header, rows),
        ]
    )


@click.command(help=__doc__)
def main() -> None:
    with tempfile.TemporaryDirectory() as folder, bars() as progress:
        body = section(compared(Path(folder), progress))
    write_section("npu-folding", "make bench-rknn-folding", body)
    click.echo(body)


if __name__ == "__main__":
    main()
