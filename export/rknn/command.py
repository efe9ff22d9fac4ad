"""`edgepress export rknn`: parts for the NPUs of Rockchip's boards, simulated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from ... import recipe as recipes
from ... import sources
from ...errors import UserError
from ...progress import bars
from ...recipe import Rknn

if TYPE_CHECKING:
    from .export import Exported


def _one_of(key: str) -> click.Choice[str]:
    return click.Choice(get_args(Rknn.model_fields[key].annotation))


@click.command()
@click.option("--recipe", "name", required=True, help="A device that a recipe is shipped for, or a YAML file.")
@click.option("--model", help="A diffusers folder, an artifact, or 'demo'.  [default: the recipe's]")
@click.option("--output", type=click.Path(path_type=Path), help="Artifact folder.  [default: artifacts/DEVICE]")
@click.option("--component", "components", multiple=True, help="Export only this one; can be given again.")
@click.option("--precision", type=_one_of("precision"), help="Overrides the recipe's.")
@click.option("--timeout", type=float, default=3600, show_default=True, help="Seconds that a part may take to build.")
def rknn(
    name: str,
    model: str | None,
    output: Path | None,
    components: tuple[str, ...],
    precision: str | None,
    timeout: float,
) -> None:
    """Export a pipeline to RKNN parts, built and simulated by rknn-toolkit2."""
    recipe = recipes.load(name)
    if recipe.rknn is None:
        raise UserError(
            f"The recipe of {recipe.device} has no section rknn; add one, such as rknn: {{target: rk3588}}."
        )
    settings = recipe.rknn.model_dump() | ({"precision": precision} if precision else {})
    from .export import export

    with bars() as progress:
        source = sources.resolve(model or recipe.model) if not _is_artifact(model) else Path(str(model))
        target = output or Path("artifacts") / recipe.device
        exported = export(source, target, Rknn.model_validate(settings), components, progress, timeout)
    _show(exported)


def _is_artifact(model: str | None) -> bool:
    return model is not None and (Path(model) / "model").is_dir()


def _show(exported: Exported) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("part", "on the NPU", "simulated error", "cosine", "memory", "build", title="RKNN parts, simulated")
    for name, part in exported.parts.items():
        memory = f"{(part.report.weights + part.report.internal) / 2**20:.1f} MiB"
        error = f"{part.relative:.2g}"
        table.add_row(name, f"{len(part.report.layers)}", error, f"{part.cosine:.5f}", memory, f"{part.seconds:.0f} s")
    console.print(table)
    for painter, psnr in exported.picture.items():
        console.print(f"The {painter} picture: " + ("equal to torch's." if psnr is None else f"{psnr:.1f} dB PSNR."))
    console.print(f"The parts are in [bold]{exported.folder}[/bold]; no board has verified them.")
