"""Generates batches of images: diffusers pipelines run in torch, exported graphs in the runtime, or a server does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...pipelines.component_files import load_component_file
from ...pipelines.hub import read_pipeline_class
from ...pipelines.optimum_pipelines import load_optimum_pipeline, require_optimum
from ...pipelines.prompt_limits import find_truncations, load_pipeline_host
from ...pipelines.sampling import SamplingParams, generate_images, load_pipeline, load_pipeline_with
from ...prompts.prompt import Prompt, prompt_seed, require_guidance
from ..images.types import ImageArray
from .candidates import ImageSource
from .server import ImageServer, connect

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class PromptBatch:
    """Prompts whose images are generated together, with the same seed."""

    prompts: tuple[Prompt, ...]
    seed: int


class GeneratedImage(NamedTuple):
    """A generated image.

    Attributes:
        image: The image; NaN pixels are black.
        has_nan: Whether any pixel was NaN.
        truncation_notice: A sentence that says which part of the prompt was not used, or an empty string.
    """

    image: ImageArray
    has_nan: bool
    truncation_notice: str = ""


GenerateBatch = Callable[[PromptBatch], Sequence[GeneratedImage]]


def get_batch_size(source: ImageSource, sampling: SamplingParams) -> int:
    """Returns how many images a source generates together."""
    return sampling.batch_size if source.kind in ("diffusers", "optimum") else 1


def detect_engine(source: ImageSource) -> str | None:
    """Returns name and version of what runs an RKNN export on this machine, because its images depend on it.

    Returns None for other sources.

    Raises:
        UserError: Neither the NPU runtime of a board nor the toolkit with its simulator is installed.
    """
    return _detect_npu_engine() if source.kind == "rknn" else None


def make_generator(source: ImageSource, sampling: SamplingParams, dtype: str) -> GenerateBatch:
    """Loads a source, and returns a function that generates images with it.

    The initial noise depends on prompt id and seed only.

    Args:
        source: A diffusers pipeline, an ONNX or RKNN export, or a server.
        sampling: Image size, number of steps and guidance scale.
        dtype: Compute dtype of a diffusers pipeline.

    Raises:
        UserError: The source cannot be loaded or reached, or does not support the sampling parameters.
    """
    if source.kind in ("diffusers", "optimum"):
        return _make_pipeline_generator(source, sampling, dtype)
    if source.kind == "server":
        return _make_server_generator(connect(source.url), sampling)
    return _make_export_generator(source.folder, sampling)


def find_memory_reader(source: ImageSource) -> Callable[[], int | None] | None:
    """What reads the memory of the process that generates a source's images; None if it is this process."""
    return connect(source.url).read_memory if source.kind == "server" else None


def import_libraries(source: ImageSource) -> None:
    """Imports what a pipeline runs in, so that its memory is measured without that of libraries."""
    if source.kind == "optimum":
        require_optimum(source.folder)
    elif source.kind == "diffusers":
        import diffusers

        getattr(diffusers, read_pipeline_class(source.folder), None)  # imports the modules of the class


@cache
def _detect_npu_engine() -> str:
    from importlib.metadata import version

    from ...runtime.rknn.npu import has_npu_runtime
    from ...runtime.rknn.toolkit import Toolkit

    if has_npu_runtime():
        return f"on the board by rknn-toolkit-lite2 {version('rknn-toolkit-lite2')}"
    with Toolkit() as toolkit:
        return f"simulated by rknn-toolkit2 {toolkit.call('version').answer['toolkit']}"


def _make_pipeline_generator(source: ImageSource, sampling: SamplingParams, dtype: str) -> GenerateBatch:
    import torch

    compute_dtype = getattr(torch, dtype)
    if source.kind == "optimum":
        pipeline = load_optimum_pipeline(source.folder)
    elif source.files:
        replaced = {file.component: load_component_file(source.folder, file, compute_dtype) for file in source.files}
        pipeline = load_pipeline_with(source.folder, compute_dtype, replaced)
    else:
        pipeline = load_pipeline(source.folder, compute_dtype, source.loras)
    host = load_pipeline_host(pipeline)

    def generate(batch: PromptBatch) -> list[GeneratedImage]:
        notices = find_truncations(pipeline, host, [prompt.prompt for prompt in batch.prompts]) if host else []
        images: Any = generate_images(
            pipeline, batch.prompts, sampling, batch.seed, output_type="np", warn=lambda _: None
        )
        return [_to_uint8(image, notice) for image, notice in zip(images, notices or repeat(""), strict=False)]

    return generate


def _make_server_generator(server: ImageServer, sampling: SamplingParams) -> GenerateBatch:
    def generate(batch: PromptBatch) -> list[GeneratedImage]:
        images = [server.generate(prompt, batch.seed, sampling) for prompt in batch.prompts]
        return [GeneratedImage(generated.image, False, generated.notice) for generated in images]

    return generate


def _to_uint8(image: npt.NDArray[np.float32], truncation_notice: str) -> GeneratedImage:
    """Converts pixels in 0..1 to 8 bits, rounding as diffusers does."""
    is_nan = np.isnan(image)
    return GeneratedImage(
        (np.where(is_nan, 0, image) * 255).round().astype(np.uint8), bool(is_nan.any()), truncation_notice
    )


def _make_export_generator(folder: Path, sampling: SamplingParams) -> GenerateBatch:
    from ...runtime.generation_request import GenerationRequest
    from ...runtime.pipeline import ImagePipeline

    pipeline = ImagePipeline(folder, threads=0)  # this machine need not be the device
    request = GenerationRequest(
        "",
        steps=sampling.steps,
        size=(sampling.height, sampling.width),
        require_finite=False,
    )

    def make_request(prompt: Prompt, seed: int) -> GenerationRequest:
        guidance = prompt.choose_guidance(sampling.guidance)
        negative = prompt.choose_negative_prompt(sampling.negative_prompt)
        return replace(
            request,
            prompt=prompt.prompt,
            seed=prompt_seed(prompt.id, seed),
            guidance=guidance,
            # Otherwise diffusers ignores it too, or has refused it.
            negative_prompt=negative if pipeline.takes_negative_prompt(guidance) else "",
        )

    def generate(batch: PromptBatch) -> list[GeneratedImage]:
        require_guidance(batch.prompts, pipeline.takes_guidance, pipeline.pipeline_class)
        requests = [make_request(prompt, batch.seed) for prompt in batch.prompts]
        return [_generate_checked(partial(pipeline.generate, request)) for request in requests]

    return generate


def _generate_checked(generate: Callable[..., Image]) -> GeneratedImage:
    """Generates an image, and detects NaN: numpy reports an invalid operation where NaN is converted to a byte."""
    invalid: list[str] = []
    notices: list[str] = []
    with np.errstate(invalid="call", call=lambda kind, _: invalid.append(kind)):
        image = np.asarray(generate(warn=notices.append))
    return GeneratedImage(image, bool(invalid), " ".join(notices))
