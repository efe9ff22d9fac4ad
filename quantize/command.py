"""`edgepress quantize`: presses a pipeline to 4 bits for a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import recipe as recipes
from .. import sources
from ..progress import bars

if TYPE_CHECKING:
    from rich.table import Table

    from .press import Pressed


@click.command()
@click.option("--recipe", "name", required=True, help="A device that a recipe is shipped for, or a YAML file.")
@click.option("--model", help="A diffusers folder, a hub id, or 'demo'.  [default: the recipe's]")
@click.option("--output", type=click.Path(path_type=Path), help="Artifact folder.  [default: artifacts/DEVICE]")
@click.option("--method", type=click.Choice(["rtn", "awq"]), help="Overrides the recipe's method.")
@click.option("--force", is_flag=True, help="Replace an artifact that was made from something else.")
def quantize(name: str, model: str | None, output: Path | None, method: str | None, force: bool) -> None:
    """Press a pipeline's weights to 4 bits.

    Interrupted work goes on where it was when the same command is given again.
    """
    recipe = recipes.load(name)
    if method:
        changed = recipe.quantize.model_copy(update={"method": method})
        recipe = recipe.model_copy(update={"quantize": changed})
    if model:
        recipe = recipe.model_copy(update={"model": model})
    source = sources.resolve(recipe.model)
    from .press import press

    with bars() as progress:
        pressed = press(recipe, source, output or Path("artifacts") / recipe.device, progress, force)
    _show(pressed)


def _show(pressed: Pressed) -> None:
    from rich.console import Console

    console = Console()
    if not pressed.fresh:
        console.print(f"{pressed.output} is up to date; nothing was done (--force presses again).")
    console.print(_size_table(pressed))
    console.print(_layer_table(pressed))
    console.print(f"The pressed pipeline is in [bold]{pressed.output / 'model'}[/bold].")


def _size_table(pressed: Pressed) -> Table:
    from rich.table import Table

    table = Table("component", "before", "after", "share", title="Size in MB")
    rows = {name: (size["before"], size["after"]) for name, size in pressed.manifest.sizes.items()}
    rows["all"] = (sum(before for before, _ in rows.values()), sum(after for _, after in rows.values()))
    for name, (before, after) in rows.items():
        table.add_row(name, f"{before / 1e6:.2f}", f"{after / 1e6:.2f}", f"{after / before:.0%}" if before else "")
    return table


def _layer_table(pressed: Pressed) -> Table:
    from rich.table import Table

    from .. import int4
    from .press import layer_reports

    manifest = pressed.manifest
    layers = layer_reports(manifest)
    scheme = manifest.recipe["quantize"]["scheme"]
    table = Table("4-bit layers", "value", title=f"Method {manifest.recipe['quantize']['method']}")
    table.add_row("layers quantized", str(len(layers)))
    table.add_row("matrices kept as they were", str(manifest.kept))
    table.add_row("bits a weight", f"{int4.bits_per_weight(scheme['group_size']):.3f}")
    table.add_row("mean output error, rounding alone", f"{_mean([layer.rtn_error for layer in layers]):.3%}")
    table.add_row("mean output error, as pressed", f"{_mean([layer.error for layer in layers]):.3%}")
    return table


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
