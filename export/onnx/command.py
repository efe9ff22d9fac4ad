"""`edgepress export onnx`: graphs and weights for ONNX Runtime and for what else reads ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from ... import recipe as recipes
from ... import sources
from ...errors import UserError
from ...options import PictureSize
from ...progress import bars
from ...recipe import Export

if TYPE_CHECKING:
    from .export import Exported
    from .parity import Parity

NAMES = {"exact": "graphs", "exported": "graphs, in 8-bit integers"}


def _one_of(key: str) -> click.Choice[str]:
    return click.Choice(get_args(Export.model_fields[key].annotation))


@click.command()
@click.option("--recipe", "name", help="A device that a recipe is shipped for, or a YAML file.")
@click.option("--model", help="A diffusers folder, an artifact, or 'demo'.  [default: the artifact at --output]")
@click.option("--output", type=click.Path(path_type=Path), help="Artifact folder.  [default: artifacts/DEVICE]")
@click.option("--precision", type=_one_of("precision"), help="Overrides the recipe's.")
@click.option("--flavour", type=_one_of("flavour"), help="Overrides the recipe's.")
@click.option("--activations", type=_one_of("activations"), help="Of w8a8; overrides the recipe's.")
@click.option("--opset", type=int, help="Overrides the recipe's.")
@click.option("--size", "sizes", type=PictureSize(), multiple=True, help="Of pictures to check; can be given again.")
@click.option("--shapes", type=_one_of("shapes"), help="Overrides the recipe's; fixed ones are those of the sizes.")
@click.option("--with", "graphs", multiple=True, metavar="GRAPH", help="A further graph, such as vae_encoder.")
@click.option("--no-check", is_flag=True, help="Do not hold the graphs against torch, which takes the memory of both.")
def onnx(
    name: str | None,
    model: str | None,
    output: Path | None,
    sizes: tuple[tuple[int, int], ...],
    graphs: tuple[str, ...],
    no_check: bool,
    **asked: Any,
) -> None:
    """Export a pipeline to ONNX graphs, with its weights in safetensors beside them."""
    recipe = recipes.load(name) if name else None
    if recipe is None and (model is None or output is None):
        raise UserError("Give --recipe, or both --model and --output.")
    target = output or Path("artifacts") / (recipe.device if recipe else "")
    settings = (recipe.export if recipe else Export()).model_dump()
    settings |= {key: value for key, value in asked.items() if value is not None}
    settings |= {"graphs": graphs} if graphs else {}
    from .export import export

    with bars() as progress:
        source = _source(model) if model else target
        wanted = Export.model_validate(settings)
        exported = export(source, target, wanted, sizes or wanted.sizes, progress, not no_check)
    _show(exported)


def _source(model: str) -> Path:
    """A folder as it is, since an artifact is one too; what is none is a name, and so is `demo`."""
    return Path(model) if model != "demo" and Path(model).is_dir() else sources.resolve(model)


def _show(exported: Exported) -> None:
    from rich.console import Console

    console = Console()
    for name, parity in exported.parity.items():
        _show_parity(console, NAMES[name], parity)
    console.print(f"The graphs are in [bold]{exported.folder}[/bold].")
    if exported.without_script:
        console.print(exported.without_script)


def _show_parity(console: Any, title: str, parity: Parity) -> None:
    from rich.table import Table

    table = Table("graph", "largest error", "of the largest value", title=f"Torch and the {title}")
    for name, error in parity.graphs.items():
        table.add_row(name, f"{error.largest:.2g}", f"{error.relative:.2g}")
    console.print(table)
    psnr = "equal." if parity.psnr is None else f"{parity.psnr:.1f} dB PSNR."
    console.print("The picture: " + (psnr if parity.painted else "not painted, as nothing here runs this pipeline."))
