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
@click.option(
    "--plan", "only_plan", is_flag=True, help="Build nothing: show the parts, and whether the board holds them."
)
def rknn(
    name: str,
    model: str | None,
    output: Path | None,
    components: tuple[str, ...],
    precision: str | None,
    timeout: float,
    only_plan: bool,
) -> None:
    """Export a pipeline to RKNN parts, built and simulated by rknn-toolkit2."""
    recipe = recipes.load(name)
    if recipe.rknn is None:
        raise UserError(
            f"The recipe of {recipe.device} has no section rknn; add one, such as rknn: {{target: rk3588}}."
        )
    if only_plan:
        _show_plan(model or recipe.model, recipe)
        return
    settings = Rknn.model_validate(recipe.rknn.model_dump() | ({"precision": precision} if precision else {}))
    from .export import export

    with bars() as progress:
        source = _source(model or recipe.model)
        if not components:
            _check_fits(source, recipe.model_copy(update={"rknn": settings}))
        target = output or Path("artifacts") / recipe.device
        exported = export(source, target, settings, components, progress, timeout)
    _show(exported)


def _check_fits(source: Path, recipe: recipes.Recipe) -> None:
    """Raises UserError where there is no toolkit, or the board cannot hold what is to be exported."""
    from ...runtime.rknn.toolkit import interpreter
    from ..onnx.model import find
    from .plan import plan

    interpreter()
    plan(find(source), recipe).check()


def _show_plan(model: str, recipe: recipes.Recipe) -> None:
    """Raises UserError, after all is shown, where the board can hold the pipeline in no way."""
    from ..onnx.model import find
    from .plan import plan
    from .plan_text import told

    found = plan(find(_source(model)), recipe)
    click.echo(told(found))
    found.check_any()


def _source(model: str) -> Path:
    return Path(model) if _is_artifact(model) else sources.resolve(model)


def _is_artifact(model: str | None) -> bool:
    return model is not None and (Path(model) / "model").is_dir()


def _show(exported: Exported) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    header = ("part", "precision", "on the NPU", "simulated error", "cosine", "memory", "build")
    table = Table(*header, title="RKNN parts, simulated")
    for name, part in exported.parts.items():
        found = part.measured
        memory = f"{(found.report.weights + found.report.internal) / 2**20:.1f} MiB"
        table.add_row(
            *(name, part.precision, f"{len(found.report.layers)}", f"{found.relative:.2g}", f"{found.cosine:.5f}"),
            *(memory, f"{found.seconds:.0f} s"),
        )
    console.print(table)
    for painter, psnr in exported.picture.items():
        console.print(f"The {painter} picture: " + ("equal to torch's." if psnr is None else f"{psnr:.1f} dB PSNR."))
    console.print(f"The parts are in [bold]{exported.folder}[/bold]; no board has verified them.")
