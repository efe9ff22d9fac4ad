"""Paints batches of prompts: diffusers pipelines with torch, exported graphs and parts with the runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...common.errors import UserError
from ...pipelines.sampling import SamplingParams, generate_images, load_pipeline, prompt_seed
from ...prompts.prompt import Prompt
from ..images.types import ImageArray
from .candidates import ImageSource

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class PromptBatch:
    """Prompts that are painted together."""

    prompts: tuple[Prompt, ...]
    seed: int


class GeneratedImage(NamedTuple):
    """A picture, whether any of its pixels was no number (those are black), and what was cut of its prompt."""

    image: ImageArray
    has_nan: bool
    truncation_notice: str = ""


GenerateBatch = Callable[[PromptBatch], Sequence[GeneratedImage]]


def get_batch_size(source: ImageSource, sampling: SamplingParams) -> int:
    """How many pictures a side paints together."""
    return sampling.batch_size if source.kind == "diffusers" else 1


def detect_engine(source: ImageSource) -> str | None:
    """What runs a side's parts for an NPU here, by name and version, as their pictures depend on it.

    Raises:
        UserError: no runtime of a board is here, nor the toolkit with its simulator.
    """
    return _detect_npu_engine() if source.kind == "rknn" else None


@cache
def _detect_npu_engine() -> str:
    from importlib.metadata import version

    from ...runtime.rknn.npu import has_npu_runtime
    from ...runtime.rknn.toolkit import Toolkit

    if has_npu_runtime():
        return f"on the board by rknn-toolkit-lite2 {version('rknn-toolkit-lite2')}"
    with Toolkit() as toolkit:
        return f"simulated by rknn-toolkit2 {toolkit.call('hello').answer['toolkit']}"


def make_generator(source: ImageSource, sampling: SamplingParams, dtype: str) -> GenerateBatch:
    """What paints as a side does, from noise that depends on prompt id and seed alone.

    Raises:
        UserError: the side cannot be loaded, or cannot paint so.
    """
    return (
        _make_pipeline_generator(source.folder, sampling, dtype)
        if source.kind == "diffusers"
        else _make_export_generator(source.folder, sampling)
    )


def _make_pipeline_generator(folder: Path, sampling: SamplingParams, dtype: str) -> GenerateBatch:
    import torch

    pipeline = load_pipeline(folder, getattr(torch, dtype))

    def paint(batch: PromptBatch) -> list[GeneratedImage]:
        images: Any = generate_images(pipeline, batch.prompts, sampling, batch.seed, output_type="np")
        return [_to_uint8(image) for image in images]

    return paint


def _to_uint8(image: npt.NDArray[np.float32]) -> GeneratedImage:
    """0 ... 1 rounded as diffusers does it."""
    broken = np.isnan(image)
    return GeneratedImage((np.where(broken, 0, image) * 255).round().astype(np.uint8), bool(broken.any()))


def _make_export_generator(folder: Path, sampling: SamplingParams) -> GenerateBatch:
    from ...runtime.pipeline import GenerationRequest, ImagePipeline

    if sampling.guidance:
        raise UserError(f"{folder}: exported graphs paint without guidance; set evaluation.guidance to 0.")
    painter = ImagePipeline(folder)
    size = (sampling.height, sampling.width)

    def paint(batch: PromptBatch) -> list[GeneratedImage]:
        wishes = [
            GenerationRequest(one.prompt, prompt_seed(one.id, batch.seed), sampling.steps, size)
            for one in batch.prompts
        ]
        return [_generate_checked(partial(painter.generate, wish)) for wish in wishes]

    return paint


def _generate_checked(paint: Callable[..., Image]) -> GeneratedImage:
    """The picture; where NaN is made into a byte, numpy calls the operation invalid."""
    invalid: list[str] = []
    told: list[str] = []
    with np.errstate(invalid="call", call=lambda kind, _: invalid.append(kind)):
        picture = np.asarray(paint(tell=told.append))
    return GeneratedImage(picture, bool(invalid), " ".join(told))
