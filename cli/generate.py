"""`edgepress generate`: generates an image from an exported artifact, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..common.requirements import requires_extra
from ..recipes.presets import MAX_STEPS
from .console import print_json, show_progress
from .execution_providers import require_no_npu
from .image_output import resolve_output
from .options import FOLDER, LOGGER, Command, ImageSize, json_option, output_option, verbosity_options

if TYPE_CHECKING:
    from ..runtime.image_metadata import Detail
    from ..runtime.pipeline import GenerationRequest, ImagePipeline

SEED_LIMIT = 2**63


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
@click.option(
    "--provenance",
    type=click.Choice(("hash", "prompt", "none")),
    default="hash",
    show_default=True,
    help="What the file says: the artifact, seed, steps and the prompt's hash, or the prompt itself, or nothing.",
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
    provenance: Detail,
    output: Path,
    as_json: bool,
) -> None:
    """Generate an image from the ONNX graphs or the RKNN parts of an artifact.

    The same seed gives the same noise as in torch. One graph is in memory at a time.
    """
    target = resolve_output(output)
    from ..runtime.onnx.sessions import CPU_PROVIDERS
    from ..runtime.pipeline import GenerationRequest, ImagePipeline

    if verify:
        _verify(artifact)
    if providers:
        require_no_npu(artifact)
    pipeline = ImagePipeline(artifact, keep_loaded=False, providers=providers or CPU_PROVIDERS)
    request = GenerationRequest(prompt, seed, steps, size, tile)
    with show_progress() as progress:
        image = pipeline.generate(request, progress)
    target.save(image, **_describe_origin(pipeline, request, target.image_format, provenance))
    if as_json:
        size = (image.height, image.width)
        print_json({"image": str(output), "prompt": prompt, "seed": seed, "steps": steps, "size": size})
    else:
        click.echo(f"Generated {output}", err=target.is_standard_output)


def _verify(artifact: Path) -> None:
    """Checks the hashes of an export; says so where it has none."""
    from ..runtime.verification import verify_export

    with show_progress() as progress:
        notice = verify_export(artifact, progress)
    if notice:
        LOGGER.warning("%s", notice)


def _describe_origin(
    pipeline: ImagePipeline, request: GenerationRequest, image_format: str, detail: Detail
) -> dict[str, Any]:
    """The arguments of `Image.save` that store how the image was generated; says so where the format cannot."""
    from ..runtime.image_metadata import ImageOrigin, build_save_options, can_hold_origin
    from ..storage.outdated_results import digest_published

    if detail != "none" and not can_hold_origin(image_format):
        LOGGER.warning("%s files do not say how an image was generated. Use PNG, JPEG or WebP.", image_format)
    digest = digest_published(pipeline.folder) or ""
    origin = ImageOrigin(request.prompt, request.seed, request.steps, pipeline.pipeline_class, digest)
    return build_save_options(image_format, origin, detail)
