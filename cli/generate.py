"""`edgepress generate`: generates images from an exported artifact, without torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from ..common.errors import UserError
from ..common.requirements import requires_extra
from ..common.suggest import suggest_name
from ..recipes.presets import MAX_STEPS
from .command import LOGGER, Command, require_effect
from .console import print_json, show_progress
from .execution_providers import provider_option, require_no_npu, threads_option
from .image_output import LOSSY_FORMATS, ImageOutput, resolve_output
from .options import PATH, json_option, output_option, provenance_option, restart_option, verbosity_options
from .parameter_types import ImageSize, NameChoice, Number, WholeNumber
from .recorded_hashes import require_recorded_hashes, verify_option

if TYPE_CHECKING:
    from ..runtime.batch import BatchSettings
    from ..runtime.generation_request import GenerationRequest
    from ..runtime.image_file import ImageFormat
    from ..runtime.image_metadata import Detail
    from ..runtime.pipeline import Engine, ImagePipeline

SEED_LIMIT = 2**63
FORMATS = ("png", "jpeg", "webp")  # of a batch

UNGUIDED = "there is no --guidance that leads away from it"
ENGINES = ("onnxruntime", "openvino")


@click.command(cls=Command)
@click.argument("artifact", type=PATH)
@click.option("--prompt", metavar="TEXT", help="What the image shows.")
@click.option("--prompts", metavar="FILE|SET", help="Prompts to generate an image of each, into the folder --output.")
@click.option("--preset", metavar="NAME", help="Steps, size and guidance by name, such as fast.")
@click.option("--seed", type=WholeNumber(0, SEED_LIMIT - 1), default=0, show_default=True, help="Seed of the noise.")
@click.option("--steps", type=WholeNumber(1, MAX_STEPS), help="Denoising steps.  [default: the preset's, or 8]")
@click.option("--size", type=ImageSize(), help="Height and width in pixels.  [default: the preset's or the pipeline's]")
@click.option("--guidance", type=Number(0, 1000), help="Scale of guidance; 0: none.  [default: the preset's, or 0]")
@click.option("--negative-prompt", default="", metavar="TEXT", help="What guidance leads away from.")
@click.option(
    "--image",
    "image_file",
    type=PATH,
    metavar="FILE",
    help="An image to start from, also of prompts that name none; the artifact must have the graph that reads it.",
)
@click.option(
    "--strength",
    type=Number(0, 1, min_open=True),
    help="How much of the image to start from is replaced, up to 1.  [default: 0.6]",
)
@click.option(
    "--step-cache",
    type=Number(0, 1),
    default=0.0,
    help="Skip steps whose velocity changes by less than this share, such as 0.1; less time, another image.",
)
@click.option(
    "--tile", type=WholeNumber(min=1), metavar="PIXELS", help="Decode in tiles of this side: less memory, more time."
)
@click.option(
    "--format", "batch_format", type=NameChoice(FORMATS), help="Format of the images of --prompts.  [default: png]"
)
@click.option("--quality", type=WholeNumber(1, 100), default=90, show_default=True, help="Quality of JPEG and WebP.")
@click.option("--low-memory", is_flag=True, help="With --prompts: keep one graph in memory at a time even if all fit.")
@provider_option
@threads_option
@click.option(
    "--engine",
    type=NameChoice(ENGINES),
    default=ENGINES[0],
    show_default=True,
    help="What runs ONNX graphs; openvino on the CPU needs the extra 'openvino'.",
)
@verify_option
@provenance_option
@output_option("The image file, such as out.png; with --prompts a folder.", required=True, metavar="PATH")
@restart_option
@json_option
@verbosity_options
@requires_extra("runtime")
def generate(
    artifact: Path,
    prompt: str | None,
    prompts: str | None,
    preset: str | None,
    seed: int,
    steps: int | None,
    size: tuple[int, int] | None,
    guidance: float | None,
    negative_prompt: str,
    image_file: Path | None,
    strength: float | None,
    step_cache: float,
    tile: int | None,
    batch_format: str | None,
    quality: int,
    low_memory: bool,
    providers: tuple[str, ...],
    threads: int | None,
    engine: str,
    verify: bool,
    provenance: Detail,
    output: Path,
    restart: bool,
    as_json: bool,
) -> None:
    """Generate images from the ONNX graphs or the RKNN parts of an artifact.

    The same seed gives the same noise as in torch. With --prompts, images are named by the prompts' ids, and the same
    command goes on where it stopped. A single image keeps one graph in memory at a time.
    """
    if (prompt is None) == (prompts is None):
        raise UserError("Give either --prompt or --prompts.")
    if prompts is None and (batch_format or low_memory or restart):
        raise UserError("--format, --low-memory and --restart are for --prompts. Leave them out.")
    if image_file is None and prompts is None:
        require_effect("--strength", strength is None, "there is no --image to start from")
    target = resolve_output(output, quality) if prompts is None else None
    written = target.image_format if target else (batch_format or FORMATS[0]).upper()
    require_effect("--quality", written in LOSSY_FORMATS, f"{written} files lose nothing")
    from ..runtime.image_file import read_image_file
    from ..runtime.onnx.sessions import CPU_PROVIDERS
    from ..runtime.pipeline import ImagePipeline
    from ..runtime.rknn.exported import is_rknn_artifact

    if providers and engine != ENGINES[0]:
        raise UserError("--provider is for ONNX Runtime. Leave it out, or leave out --engine.")
    if verify:
        require_recorded_hashes(artifact)
    if providers or engine != ENGINES[0]:
        require_no_npu(artifact, "--provider" if providers else "--engine")
    require_effect("--engine", not is_rknn_artifact(artifact), "parts for an NPU have their own")
    keep_loaded = False if low_memory or prompts is None else None
    pipeline = ImagePipeline(artifact, keep_loaded, providers or CPU_PROVIDERS, cast("Engine", engine), threads)
    settings = _resolve_preset(artifact, preset, steps, size, guidance)
    if prompts is None:
        require_effect("--negative-prompt", bool(settings.guidance), UNGUIDED)
    settings = replace(settings, tile_size=tile, step_cache=step_cache)
    request = replace(settings, prompt=prompt or "", seed=seed, negative_prompt=negative_prompt)
    if image_file is not None:
        request = replace(request, image=read_image_file(image_file, "Give an image file as --image."))
    if strength is not None:
        request = replace(request, strength=strength)
    if target is None:
        assert prompts is not None
        from ..runtime.batch import BatchSettings

        image_format = cast("ImageFormat", batch_format or FORMATS[0])
        batch = BatchSettings(request, image_format, quality, provenance)
        _generate_batch(pipeline, prompts, batch, output, restart, as_json)
        return
    with show_progress() as progress:
        image = pipeline.generate(request, progress)
    target.save(image, **_describe_origin(pipeline, request, target, provenance))
    if as_json:
        size = (image.height, image.width)
        print_json({"image": str(output), "prompt": prompt, "seed": seed, "steps": request.steps, "size": size})
    else:
        click.echo(f"Generated {output}", err=target.is_standard_output)


def _resolve_preset(
    artifact: Path, name: str | None, steps: int | None, size: tuple[int, int] | None, guidance: float | None
) -> GenerationRequest:
    """Settings of a preset, if one is named, with those that options give instead."""
    from ..runtime.generation_request import GenerationRequest
    from ..runtime.presets import load_presets

    settings = GenerationRequest("")
    if name is not None:
        presets = load_presets(artifact)
        if name not in presets:
            hint = suggest_name(name, list(presets)) if presets else "the artifact has none. Leave it out."
            raise UserError(f"Unknown preset '{name}'; {hint}")
        is_used = None in (steps, size, guidance)
        require_effect("--preset", is_used, "--steps, --size and --guidance replace all that it says")
        preset = presets[name]
        settings = replace(settings, steps=preset.steps, size=preset.size, guidance=preset.guidance)
    return replace(
        settings,
        steps=settings.steps if steps is None else steps,
        size=settings.size if size is None else size,
        guidance=settings.guidance if guidance is None else guidance,
    )


def _generate_batch(
    pipeline: ImagePipeline, prompts: str, settings: BatchSettings, folder: Path, restart: bool, as_json: bool
) -> None:
    from ..prompts.sets import load_prompt_set
    from ..runtime.batch import generate_batch

    loaded = load_prompt_set(prompts, allow_images=True)
    starts_from_image = settings.request.image is not None or any(prompt.image for prompt in loaded)
    require_effect("--strength", starts_from_image, "no prompt has an image to start from")
    own_guidance = all(prompt.guidance is not None for prompt in loaded)
    require_effect("--guidance", not own_guidance, "every prompt has its own")
    guided = [prompt for prompt in loaded if prompt.choose_guidance(settings.request.guidance)]
    is_used = any(prompt.negative_prompt is None for prompt in guided)
    require_effect("--negative-prompt", is_used, "every prompt has its own" if guided else UNGUIDED)
    with show_progress() as progress:
        result = generate_batch(pipeline, loaded, settings, folder, restart, progress)
    if as_json:
        print_json({"images": [str(file) for file in result.files], "generated": result.num_generated})
        return
    earlier = len(result.files) - result.num_generated
    click.echo(f"Generated {result.num_generated} images in {folder}{f'; {earlier} were there' if earlier else ''}")


def _describe_origin(
    pipeline: ImagePipeline, request: GenerationRequest, target: ImageOutput, detail: Detail
) -> dict[str, Any]:
    """The arguments of `Image.save` that store how the image was generated; says so where the format cannot."""
    from ..runtime.image_metadata import ImageOrigin, build_save_options, can_hold_origin
    from ..storage.outdated_results import digest_published

    if detail != "none" and not can_hold_origin(target.image_format):
        LOGGER.warning("%s files do not say how an image was generated. Use PNG, JPEG or WebP.", target.image_format)
    digest = digest_published(pipeline.folder) or ""
    quality = target.quality if target.image_format in LOSSY_FORMATS else None
    origin = ImageOrigin.from_request(request, pipeline.pipeline_class, digest, pipeline.engine, quality)
    return build_save_options(target.image_format, origin, detail)
