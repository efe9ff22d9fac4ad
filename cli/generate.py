"""`edgepress generate`: generates an image from an exported artifact, without torch."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..common.errors import UserError
from ..common.requirements import requires_extra
from ..recipes.presets import MAX_STEPS
from ..storage.preflight import check_results_folder
from .console import print_json, show_progress
from .options import FOLDER, LOGGER, Command, ImageSize, json_option, output_option, verbosity_options

if TYPE_CHECKING:
    from PIL.Image import Image

SEED_LIMIT = 2**63
TEST_SIZE = (16, 16)  # pixels of the image that a file format is tried with


@click.command(cls=Command)
@click.argument("artifact", type=FOLDER)
@click.option("--prompt", required=True, metavar="TEXT", help="What the image shows.")
@click.option("--seed", type=click.IntRange(0, SEED_LIMIT - 1), default=0, show_default=True, help="Seed of the noise.")
@click.option("--steps", type=click.IntRange(1, MAX_STEPS), default=8, show_default=True, help="Denoising steps.")
@click.option("--size", type=ImageSize(), help="Height and width in pixels.  [default: the pipeline's]")
@click.option("--tile", type=int, metavar="PIXELS", help="Decode in tiles of this side: less memory, more time.")
@click.option(
    "--provider",
    "providers",
    multiple=True,
    metavar="NAME",
    help="ONNX Runtime execution provider, such as CUDA; may be repeated.  [default: CPU]",
)
@click.option(
    "--verify",
    is_flag=True,
    help="First compare every file of the artifact with its SHA-256, as evaluate and bench do.",
)
@output_option("The image file, such as out.png.", required=True, metavar="FILE")
@json_option
@verbosity_options
@requires_extra("runtime")
def generate(
    artifact: Path,
    prompt: str,
    seed: int,
    steps: int,
    size: tuple[int, int] | None,
    tile: int | None,
    providers: tuple[str, ...],
    verify: bool,
    output: Path,
    as_json: bool,
) -> None:
    """Generate an image from the ONNX graphs or the RKNN parts of an artifact.

    The same seed gives the same noise as in torch. One graph is in memory at a time.
    """
    image_format = _resolve_format(output)
    from ..runtime.onnx.sessions import CPU_PROVIDERS
    from ..runtime.pipeline import GenerationRequest, ImagePipeline

    if verify:
        _verify(artifact)
    pipeline = ImagePipeline(artifact, keep_loaded=False, providers=providers or CPU_PROVIDERS)
    request = GenerationRequest(prompt, seed, steps, size, tile)
    with show_progress() as progress:
        image = pipeline.generate(request, progress)
    _save(image, output, image_format)
    if as_json:
        size = (image.height, image.width)
        print_json({"image": str(output), "prompt": prompt, "seed": seed, "steps": steps, "size": size})
    else:
        click.echo(f"Generated {output}")


def _verify(artifact: Path) -> None:
    """Checks the hashes of an export; says so where it has none."""
    from ..runtime.verification import verify_export

    with show_progress() as progress:
        notice = verify_export(artifact, progress)
    if notice:
        LOGGER.warning("%s", notice)


def _resolve_format(output: Path) -> str:
    """The image format that a file's name asks for; the file must be one that can be written."""
    from PIL import Image

    image_format = Image.registered_extensions().get(output.suffix.lower(), "")
    if not _can_save(image_format):
        raise UserError(f"{output} names no image format that can be written. End it in .png.")
    folder = output.parent
    if output.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"{output} cannot be written. Give a file in an existing folder with write permission.")
    check_results_folder(folder)
    return image_format


def _can_save(image_format: str) -> bool:
    """Whether images can be saved in a format, which is tried: some can only be read, or hold no colors."""
    from PIL import Image

    try:
        Image.new("RGB", TEST_SIZE).save(BytesIO(), image_format)
    except (KeyError, OSError, ValueError):
        return False
    return True


def _save(image: Image, output: Path, image_format: str) -> None:
    """Saves in one piece, so that an interrupted run leaves no half image."""
    from ..storage.atomic_file import atomic_write

    atomic_write(output, lambda temporary: image.save(temporary, image_format))
