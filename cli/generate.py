"""`edgepress generate`: paints a picture from an exported artifact, without torch."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..common.errors import UserError
from ..common.progress import progress_bars
from .options import ImageSize

if TYPE_CHECKING:
    from PIL.Image import Image

SEED_LIMIT = 2**63
TEST_SIZE = (16, 16)  # pixels of the picture that a format is tried with


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--prompt", required=True, metavar="TEXT", help="What to paint.")
@click.option("--seed", type=click.IntRange(0, SEED_LIMIT - 1), default=0, show_default=True, help="Of the noise.")
@click.option("--steps", type=click.IntRange(min=1), default=8, show_default=True, help="Denoising steps.")
@click.option("--size", type=ImageSize(), help="Height and width in pixels.  [default: the pipeline's own]")
@click.option("--tile", type=int, metavar="PIXELS", help="Decode in tiles of this side: less memory, more time.")
@click.option("--provider", "providers", multiple=True, metavar="NAME", help="Of ONNX Runtime; may be repeated.  [CPU]")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FILE", help="Such as out.png.")
def generate(
    artifact: Path,
    prompt: str,
    seed: int,
    steps: int,
    size: tuple[int, int] | None,
    tile: int | None,
    providers: tuple[str, ...],
    output: Path,
) -> None:
    """Paint a picture from the ONNX graphs or the RKNN parts of an artifact.

    The same seed gives the noise that it gives in torch. One graph is in memory at a time.
    """
    image_format = _resolve_format(output)
    from ..runtime.onnx.sessions import CPU_PROVIDERS
    from ..runtime.pipeline import GenerationRequest, ImagePipeline

    pipeline = ImagePipeline(artifact, keep_loaded=False, providers=providers or CPU_PROVIDERS)
    with progress_bars() as progress:
        try:
            image = pipeline.generate(GenerationRequest(prompt, seed, steps, size, tile), progress, _warn)
        except MemoryError as error:
            raise UserError("There is too little memory for the picture; give a smaller --size, or --tile.") from error
    _save(image, output, image_format)
    click.echo(f"painted {output}")


def _warn(sentence: str) -> None:
    click.echo(sentence, err=True)


def _resolve_format(output: Path) -> str:
    """The picture format that a file's name asks for; the file must be one that can be written."""
    from PIL import Image

    image_format = Image.registered_extensions().get(output.suffix.lower(), "")
    if not _can_save(image_format):
        raise UserError(f"{output} names no picture format that can be written; end it in .png.")
    folder = output.parent
    if output.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"{output} cannot be written; give a file in a folder that is there and may be written to.")
    return image_format


def _can_save(image_format: str) -> bool:
    """Whether pictures can be saved in a format, which is tried: some are read alone, or hold no colours."""
    from PIL import Image

    try:
        Image.new("RGB", TEST_SIZE).save(BytesIO(), image_format)
    except (KeyError, OSError, ValueError):
        return False
    return True


def _save(image: Image, output: Path, image_format: str) -> None:
    """Under a temporary name first, so that a cut run leaves no half picture."""
    temporary = output.with_name(output.name + ".new")
    try:
        image.save(temporary, image_format)
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)
