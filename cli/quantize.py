"""`edgepress quantize`: presses a pipeline to 4 bits for a device."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..common.progress import progress_bars
from ..pipelines import hub
from ..recipes import loader
from ..recipes import schema as recipes
from ..recipes.schema import QuantizationSettings, Scheme

if TYPE_CHECKING:
    from rich.table import Table

    from ..quantize.pipeline import QuantizeResult
    from ..quantize.solver.block import LayerStats


class ByteSize(click.ParamType[int]):
    """Bytes, given as a number with a unit."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]i?)B", value)
        if not match:
            self.fail(f"{value!r} is no size; write it like 6GiB or 500MB.", param, ctx)
        base = 1024 if match[2].endswith("i") else 1000
        return int(float(match[1]) * base ** (1 + "KMGT".index(match[2][0])))


@click.command()
@click.option("--recipe", "name", required=True, help="A device that a recipe is shipped for, or a YAML file.")
@click.option("--model", help="A diffusers folder, a hub id, or 'demo'.  [default: the recipe's]")
@click.option("--output", type=click.Path(path_type=Path), help="Artifact folder.  [default: artifacts/DEVICE]")
@click.option("--method", type=click.Choice(list(recipes.METHOD_STEPS)), help="Overrides the recipe's method or steps.")
@click.option(
    "--memory", type=ByteSize(), default="6GiB", show_default=True, help="What the run may take, such as 2GiB."
)
@click.option("--force", is_flag=True, help="Replace an artifact that was made from something else.")
@click.option("--restart", is_flag=True, help="Begin anew instead of going on with interrupted work.")
def quantize(
    name: str, model: str | None, output: Path | None, method: str | None, memory: int, force: bool, restart: bool
) -> None:
    """Press a pipeline's weights to 4 bits.

    Interrupted work goes on where it was when the same command is given again.
    """
    recipe = loader.load_recipe(name)
    if method:
        settings = recipe.quantize.model_copy(update={"method": method, "steps": None})
        recipe = recipe.model_copy(update={"quantize": settings})
    if model is not None:
        recipe = recipe.model_copy(update={"model": model})
    source = hub.resolve_pipeline(recipe.model)
    from ..quantize.pipeline import quantize_pipeline

    def warn(sentence: str) -> None:
        click.echo(sentence, err=True)

    with progress_bars() as progress:
        target = output or Path("artifacts") / recipe.device
        result = quantize_pipeline(recipe, source, target, progress, force, restart, memory, warn)
    _print_result(result)


def _print_result(result: QuantizeResult) -> None:
    from rich.console import Console

    console = Console()
    if not result.created:
        console.print(f"{result.output} is up to date; nothing was done (--force presses again).")
    console.print(_size_table(result))
    console.print(_savings_table(result))
    console.print(_layer_table(result))
    for name, scheme in _quantization_settings(result).extra_schemes.items():
        if scheme.quantizes_activations:
            console.print(_activation_table(result, name, scheme))
    for name in result.manifest.fp16_overflows:
        console.print(f"[bold]float16 cannot hold {name}[/bold] in calibration; run this component in bfloat16.")
    if result.seconds:
        console.print(_time_table(result))
    console.print(f"The pressed pipeline is in [bold]{result.output / 'model'}[/bold].")


def _size_table(result: QuantizeResult) -> Table:
    from rich.table import Table

    table = Table("component", "before", "after", "share", title="Size in MB")
    rows = {name: (size["before"], size["after"]) for name, size in result.manifest.sizes.items()}
    rows["all"] = (sum(before for before, _ in rows.values()), sum(after for _, after in rows.values()))
    for name, (before, after) in rows.items():
        table.add_row(name, f"{before / 1e6:.2f}", f"{after / 1e6:.2f}", f"{after / before:.0%}" if before else "")
    return table


def _savings_table(result: QuantizeResult) -> Table:
    from rich.table import Table

    savings = result.manifest.size_savings
    table = Table("saved by", *savings, title="Saved in MB")
    for measure in next(iter(savings.values())):
        saved = [component[measure] for component in savings.values()]
        if any(saved):
            table.add_row(measure, *(f"{size / 1e6:.2f}" for size in saved))
    return table


def _time_table(result: QuantizeResult) -> Table:
    from rich.table import Table

    table = Table("stage", "seconds", title="Time of this run")
    for stage, seconds in result.seconds.items():
        table.add_row(stage, f"{seconds:.1f}")
    return table


def _layer_table(result: QuantizeResult) -> Table:
    from rich.table import Table

    from ..numerics import awq_packing
    from ..quantize.pipeline import get_layer_stats

    manifest = result.manifest
    layers = get_layer_stats(manifest)
    quantization = _quantization_settings(result)
    table = Table("4-bit layers", "value", title=f"Steps: {', '.join(quantization.resolved_steps) or 'rounding alone'}")
    table.add_row("layers quantized", str(len(layers)))
    table.add_row("matrices kept in 16 bits", str(manifest.num_unquantized))
    table.add_row("bits a weight", f"{awq_packing.bits_per_weight(int(quantization.scheme.group_size)):.3f}")
    steps = ("rtn", *quantization.resolved_steps) if layers else ()
    for number, step in enumerate(steps, 1):
        name = "rounding alone" if step == "rtn" else f"after {step}"
        mean = sum(_error_after(layer, steps[:number]) for layer in layers) / len(layers)
        table.add_row(f"mean output error, {name}", f"{mean:.3%}")
    return table


def _quantization_settings(result: QuantizeResult) -> QuantizationSettings:
    return QuantizationSettings.model_validate(result.manifest.recipe["quantize"])


def _activation_table(result: QuantizeResult, name: str, scheme: Scheme) -> Table:
    """A grid whose activations are rounded too: what that costs, and which layers are kept from it."""
    from rich.table import Table

    from ..quantize.pipeline import get_layer_stats

    layers = get_layer_stats(result.manifest, name)
    table = Table("8-bit layers", "value", title=f"{name}: activations in 8 bits, {scheme.activations}")
    table.add_row("layers in 8 bits", str(sum(not layer.stays_float for layer in layers)))
    for step, label in {"rtn": "rounding alone", "smooth": "smoothed", "solved": "as solved"}.items():
        mean = sum(layer.steps[step] for layer in layers) / max(1, len(layers))
        table.add_row(f"mean output error, {label}", f"{mean:.3%}")
    for layer in layers:
        if layer.stays_float:
            table.add_row(f"kept in floats: {layer.layer}", f"{layer.error:.3%}")
    return table


def _error_after(layer: LayerStats, steps: Sequence[str]) -> float:
    """The error after some steps; a layer that skips the last has that of the step before."""
    return next(layer.steps[step] for step in reversed(steps) if step in layer.steps)
