"""`edgepress quantize`: presses a pipeline to 4 bits for a device."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import recipe as recipes
from .. import sources
from ..progress import bars
from ..recipe import Quantization, Scheme

if TYPE_CHECKING:
    from rich.table import Table

    from .press import Pressed
    from .solve import LayerReport


class Size(click.ParamType[int]):
    """Bytes, given as a number with a unit."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]i?)B", value)
        if not found:
            self.fail(f"{value!r} is no size; write it like 6GiB or 500MB.", param, ctx)
        base = 1024 if found[2].endswith("i") else 1000
        return int(float(found[1]) * base ** (1 + "KMGT".index(found[2][0])))


@click.command()
@click.option("--recipe", "name", required=True, help="A device that a recipe is shipped for, or a YAML file.")
@click.option("--model", help="A diffusers folder, a hub id, or 'demo'.  [default: the recipe's]")
@click.option("--output", type=click.Path(path_type=Path), help="Artifact folder.  [default: artifacts/DEVICE]")
@click.option("--method", type=click.Choice(list(recipes.METHODS)), help="Overrides the recipe's method or steps.")
@click.option("--memory", type=Size(), default="6GiB", show_default=True, help="What the run may take, such as 2GiB.")
@click.option("--force", is_flag=True, help="Replace an artifact that was made from something else.")
@click.option("--restart", is_flag=True, help="Begin anew instead of going on with interrupted work.")
def quantize(
    name: str, model: str | None, output: Path | None, method: str | None, memory: int, force: bool, restart: bool
) -> None:
    """Press a pipeline's weights to 4 bits.

    Interrupted work goes on where it was when the same command is given again.
    """
    recipe = recipes.load(name)
    if method:
        changed = recipe.quantize.model_copy(update={"method": method, "steps": None})
        recipe = recipe.model_copy(update={"quantize": changed})
    if model is not None:
        recipe = recipe.model_copy(update={"model": model})
    source = sources.resolve(recipe.model)
    from .press import press

    def tell(sentence: str) -> None:
        click.echo(sentence, err=True)

    with bars() as progress:
        target = output or Path("artifacts") / recipe.device
        pressed = press(recipe, source, target, progress, force, restart, memory, tell)
    _show(pressed)


def _show(pressed: Pressed) -> None:
    from rich.console import Console

    console = Console()
    if not pressed.fresh:
        console.print(f"{pressed.output} is up to date; nothing was done (--force presses again).")
    console.print(_size_table(pressed))
    console.print(_savings_table(pressed))
    console.print(_layer_table(pressed))
    for name, scheme in _quantization(pressed).also.items():
        if scheme.rounds_activations:
            console.print(_rounding_table(pressed, name, scheme))
    for name in pressed.manifest.overflowing:
        console.print(f"[bold]float16 cannot hold {name}[/bold] in calibration; run this component in bfloat16.")
    if pressed.seconds:
        console.print(_time_table(pressed))
    console.print(f"The pressed pipeline is in [bold]{pressed.output / 'model'}[/bold].")


def _size_table(pressed: Pressed) -> Table:
    from rich.table import Table

    table = Table("component", "before", "after", "share", title="Size in MB")
    rows = {name: (size["before"], size["after"]) for name, size in pressed.manifest.sizes.items()}
    rows["all"] = (sum(before for before, _ in rows.values()), sum(after for _, after in rows.values()))
    for name, (before, after) in rows.items():
        table.add_row(name, f"{before / 1e6:.2f}", f"{after / 1e6:.2f}", f"{after / before:.0%}" if before else "")
    return table


def _savings_table(pressed: Pressed) -> Table:
    from rich.table import Table

    savings = pressed.manifest.savings
    table = Table("saved by", *savings, title="Saved in MB")
    for measure in next(iter(savings.values())):
        saved = [component[measure] for component in savings.values()]
        if any(saved):
            table.add_row(measure, *(f"{size / 1e6:.2f}" for size in saved))
    return table


def _time_table(pressed: Pressed) -> Table:
    from rich.table import Table

    table = Table("stage", "seconds", title="Time of this run")
    for stage, seconds in pressed.seconds.items():
        table.add_row(stage, f"{seconds:.1f}")
    return table


def _layer_table(pressed: Pressed) -> Table:
    from rich.table import Table

    from .. import int4
    from .press import layer_reports

    manifest = pressed.manifest
    layers = layer_reports(manifest)
    quantization = _quantization(pressed)
    table = Table("4-bit layers", "value", title=f"Steps: {', '.join(quantization.rungs) or 'rounding alone'}")
    table.add_row("layers quantized", str(len(layers)))
    table.add_row("matrices kept in 16 bits", str(manifest.kept))
    table.add_row("bits a weight", f"{int4.bits_per_weight(int(quantization.scheme.group_size)):.3f}")
    steps = ("rtn", *quantization.rungs) if layers else ()
    for number, step in enumerate(steps, 1):
        name = "rounding alone" if step == "rtn" else f"after {step}"
        mean = sum(_after(layer, steps[:number]) for layer in layers) / len(layers)
        table.add_row(f"mean output error, {name}", f"{mean:.3%}")
    return table


def _quantization(pressed: Pressed) -> Quantization:
    return Quantization.model_validate(pressed.manifest.recipe["quantize"])


def _rounding_table(pressed: Pressed, name: str, scheme: Scheme) -> Table:
    """A grid whose activations are rounded too: what that costs, and which layers are kept from it."""
    from rich.table import Table

    from .press import layer_reports

    layers = layer_reports(pressed.manifest, name)
    table = Table("8-bit layers", "value", title=f"{name}: activations in 8 bits, {scheme.activations}")
    table.add_row("layers in 8 bits", str(sum(not layer.kept for layer in layers)))
    for step, said in {"rtn": "rounding alone", "smooth": "smoothed", "solved": "as solved"}.items():
        mean = sum(layer.steps[step] for layer in layers) / max(1, len(layers))
        table.add_row(f"mean output error, {said}", f"{mean:.3%}")
    for layer in layers:
        if layer.kept:
            table.add_row(f"kept in floats: {layer.layer}", f"{layer.error:.3%}")
    return table


def _after(layer: LayerReport, steps: Sequence[str]) -> float:
    """The error after some steps; a layer that skips the last has that of the step before."""
    return next(layer.steps[step] for step in reversed(steps) if step in layer.steps)
