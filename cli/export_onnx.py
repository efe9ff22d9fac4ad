"""`edgepress export onnx`: graphs and weights for ONNX Runtime and for what else reads ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from ..common.errors import UserError
from ..common.progress import progress_bars
from ..pipelines import hub
from ..recipes import loader
from ..recipes.schema import ExportSettings
from .options import ImageSize

if TYPE_CHECKING:
    from ..export.onnx.exporter import ExportResult
    from ..export.verification.parity import Parity

PARITY_TITLES = {"exact": "graphs", "exported": "graphs, in 8-bit integers"}


def _make_choice(key: str) -> click.Choice[str]:
    return click.Choice(get_args(ExportSettings.model_fields[key].annotation))


@click.command()
@click.option("--recipe", "name", help="A device that a recipe is shipped for, or a YAML file.")
@click.option("--model", help="A diffusers folder, an artifact, or 'demo'.  [default: the artifact at --output]")
@click.option("--output", type=click.Path(path_type=Path), help="Artifact folder.  [default: artifacts/DEVICE]")
@click.option("--precision", type=_make_choice("precision"), help="Overrides the recipe's.")
@click.option("--format", "--flavour", "format", type=_make_choice("format"), help="Overrides the recipe's.")
@click.option("--activations", type=_make_choice("activations"), help="Of w8a8; overrides the recipe's.")
@click.option("--opset", type=int, help="Overrides the recipe's.")
@click.option("--size", "sizes", type=ImageSize(), multiple=True, help="Of pictures to check; can be given again.")
@click.option(
    "--shapes", type=_make_choice("shapes"), help="Overrides the recipe's; fixed ones are those of the sizes."
)
@click.option("--with", "graphs", multiple=True, metavar="GRAPH", help="A further graph, such as vae_encoder.")
@click.option("--no-check", is_flag=True, help="Do not hold the graphs against torch, which takes the memory of both.")
def onnx(
    name: str | None,
    model: str | None,
    output: Path | None,
    sizes: tuple[tuple[int, int], ...],
    graphs: tuple[str, ...],
    no_check: bool,
    **overrides: Any,
) -> None:
    """Export a pipeline to ONNX graphs, with its weights in safetensors beside them."""
    recipe = loader.load_recipe(name) if name else None
    if recipe is None and (model is None or output is None):
        raise UserError("Give --recipe, or both --model and --output.")
    target = output or Path("artifacts") / (recipe.device if recipe else "")
    settings = (recipe.export if recipe else ExportSettings()).model_dump()
    settings |= {key: value for key, value in overrides.items() if value is not None}
    settings |= {"extra_graphs": graphs} if graphs else {}
    from ..export.onnx.exporter import export_onnx

    with progress_bars() as progress:
        source = _resolve_source(model) if model else target
        export_settings = ExportSettings.model_validate(settings)
        result = export_onnx(source, target, export_settings, sizes or export_settings.sizes, progress, not no_check)
    _print_result(result)


def _resolve_source(model: str) -> Path:
    """A folder as it is, since an artifact is one too; what is none is a name, and so is `demo`."""
    return Path(model) if model != "demo" and Path(model).is_dir() else hub.resolve_pipeline(model)


def _print_result(result: ExportResult) -> None:
    from rich.console import Console

    console = Console()
    for name, parity in result.parity.items():
        _print_parity(console, PARITY_TITLES[name], parity)
    console.print(f"The graphs are in [bold]{result.folder}[/bold].")
    if result.tensorrt_unsupported_reason:
        console.print(result.tensorrt_unsupported_reason)


def _print_parity(console: Any, title: str, parity: Parity) -> None:
    from rich.table import Table

    table = Table("graph", "largest error", "of the largest value", title=f"Torch and the {title}")
    for name, error in parity.graphs.items():
        table.add_row(name, f"{error.max_abs:.2g}", f"{error.relative:.2g}")
    console.print(table)
    psnr = "equal." if parity.psnr is None else f"{parity.psnr:.1f} dB PSNR."
    console.print(
        "The picture: " + (psnr if parity.image_compared else "not painted, as nothing here runs this pipeline.")
    )
