"""What the commands that export weights for other programs share: their options, and how they show a result."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .console import print_json
from .options import json_option, model_option, output_option, recipe_option, verbosity_options

if TYPE_CHECKING:
    from ..export.weights.publishing import WeightExportResult

F = TypeVar("F", bound=Callable[..., Any])


def weight_export_options(function: F) -> F:
    """`--recipe`, `--model`, `--output`, `--json`, `--quiet` and `--verbose`."""
    for option in (
        verbosity_options,
        json_option,
        output_option("Artifact folder.  [default: artifacts/DEVICE]"),
        model_option("A quantized diffusers folder, or an artifact.  [default: the artifact at --output]"),
        recipe_option(required=False, help="A shipped recipe, or a YAML file: names the artifact."),
    ):
        function = option(function)
    return function


component_option = click.option(
    "--component", "components", multiple=True, help="Export only this component; may be repeated."
)


def show_result(result: WeightExportResult, as_json: bool) -> None:
    """Prints a result as a table or as JSON."""
    if as_json:
        print_json({"folder": str(result.folder)} | result.export.model_dump(mode="json"))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("component", "MB", "bits/weight", "tensors", "quantized weights")
    for name, record in result.export.components.items():
        types = ", ".join(f"{count} {kind}" for kind, count in record.types.items())
        difference = f"within {record.max_difference:.2g} steps" if record.max_difference else "equal"
        table.add_row(name, f"{record.bytes / 1e6:.2f}", f"{record.bits_per_weight:.3f}", types, difference)
    console.print(table)
    console.print(f"The weights are in [bold]{result.folder}[/bold].")
