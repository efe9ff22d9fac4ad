"""`edgepress export rknn`: parts for the NPUs of Rockchip's boards, simulated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from ..common.errors import UserError
from ..common.progress import progress_bars
from ..pipelines import hub
from ..recipes import loader
from ..recipes import schema as recipes
from ..recipes.schema import RknnSettings

if TYPE_CHECKING:
    from ..export.rknn.exporter import RknnExportResult


def _make_choice(key: str) -> click.Choice[str]:
    return click.Choice(get_args(RknnSettings.model_fields[key].annotation))


@click.command()
@click.option("--recipe", "name", required=True, help="A device that a recipe is shipped for, or a YAML file.")
@click.option("--model", help="A diffusers folder, an artifact, or 'demo'.  [default: the recipe's]")
@click.option("--output", type=click.Path(path_type=Path), help="Artifact folder.  [default: artifacts/DEVICE]")
@click.option("--component", "components", multiple=True, help="Export only this one; can be given again.")
@click.option("--precision", type=_make_choice("precision"), help="Overrides the recipe's.")
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
    recipe = loader.load_recipe(name)
    if recipe.rknn is None:
        raise UserError(
            f"The recipe of {recipe.device} has no section rknn; add one, such as rknn: {{target: rk3588}}."
        )
    if only_plan:
        _print_plan(model or recipe.model, recipe)
        return
    settings = RknnSettings.model_validate(recipe.rknn.model_dump() | ({"precision": precision} if precision else {}))
    from ..export.rknn.exporter import export_rknn

    with progress_bars() as progress:
        source = _resolve_source(model or recipe.model)
        if not components:
            _check_board_memory(source, recipe.model_copy(update={"rknn": settings}))
        target = output or Path("artifacts") / recipe.device
        result = export_rknn(source, target, settings, components, progress, timeout)
    _print_result(result)


def _check_board_memory(source: Path, recipe: recipes.Recipe) -> None:
    """Raises UserError where there is no toolkit, or the board cannot hold what is to be exported."""
    from ..export.graph.source_model import open_source
    from ..export.rknn.planning.memory_plan import make_memory_plan
    from ..runtime.rknn.toolkit import find_interpreter

    find_interpreter()
    make_memory_plan(open_source(source), recipe).require_recipe_fits()


def _print_plan(model: str, recipe: recipes.Recipe) -> None:
    """Raises UserError, after all is shown, where the board can hold the pipeline in no way."""
    from ..export.graph.source_model import open_source
    from ..export.rknn.planning.memory_plan import make_memory_plan
    from ..export.rknn.planning.plan_report import render_plan

    memory_plan = make_memory_plan(open_source(_resolve_source(model)), recipe)
    click.echo(render_plan(memory_plan))
    memory_plan.require_any_fits()


def _resolve_source(model: str) -> Path:
    return Path(model) if _is_artifact(model) else hub.resolve_pipeline(model)


def _is_artifact(model: str | None) -> bool:
    return model is not None and (Path(model) / "model").is_dir()


def _print_result(result: RknnExportResult) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    header = ("part", "precision", "on the NPU", "simulated error", "cosine", "memory", "build")
    table = Table(*header, title="RKNN parts, simulated")
    for name, part in result.parts.items():
        measurement = part.measurement
        memory = f"{(measurement.build_log.weight_bytes + measurement.build_log.internal_bytes) / 2**20:.1f} MiB"
        table.add_row(
            *(
                name,
                part.precision,
                f"{len(measurement.build_log.layers)}",
                f"{measurement.relative_error:.2g}",
                f"{measurement.cosine:.5f}",
            ),
            *(memory, f"{measurement.build_seconds:.0f} s"),
        )
    console.print(table)
    for backend, psnr in result.image_psnr.items():
        console.print(f"The {backend} picture: " + ("equal to torch's." if psnr is None else f"{psnr:.1f} dB PSNR."))
    console.print(f"The parts are in [bold]{result.folder}[/bold]; no board has verified them.")
