"""Runs a diffusers pipeline on prompts, with noise that depends on nothing but prompt id and seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.errors import UserError
from ..prompts.prompt import Prompt
from ..recipes.schema import GenerationSettings

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

AUTO_BFLOAT16_BYTES = 10**9  # bytes of weights from which `dtype: auto` means bfloat16
PIXELS_PER_BATCH = 2**17  # eight demo pictures, or one of 512 x 512 and above


@dataclass(frozen=True)
class SamplingParams:
    """How pictures are made: size in pixels, denoising steps, guidance scale."""

    height: int
    width: int
    steps: int
    guidance: float

    @property
    def batch_size(self) -> int:
        """Pictures made together; it depends on the size alone, so that reruns and variants make the same batches."""
        return max(1, PIXELS_PER_BATCH // (self.height * self.width))


def read_native_size(pipeline: Path) -> int:
    """The side in pixels that a pipeline folder was made for, from its VAE's `sample_size`."""
    config = pipeline / "vae" / "config.json"
    try:
        return int(json.loads(config.read_text("utf-8"))["sample_size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{config} names no sample_size; give the size in the recipe (size: [H, W]).") from error


def resolve_sampling(settings: GenerationSettings, pipeline: Path) -> SamplingParams:
    """How a section of the recipe wants pictures made; `native` is the size that the pipeline was made for."""
    height, width = (read_native_size(pipeline),) * 2 if settings.size == "native" else settings.size
    return SamplingParams(height=height, width=width, steps=settings.steps, guidance=settings.guidance)


def resolve_dtype(dtype: str, pipeline: Path) -> str:
    """What the reference computes in: as asked, or with `auto` float32 for weights under 1 GB and bfloat16 above."""
    if dtype != "auto":
        return dtype
    weights = sum(file.stat().st_size for file in pipeline.glob("*/*.safetensors"))
    return "float32" if weights < AUTO_BFLOAT16_BYTES else "bfloat16"


def prompt_seed(prompt_id: str, seed: int) -> int:
    """A 63-bit seed for the CPU generator, the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{prompt_id}:{seed}".encode()).digest()[:8], "big") >> 1


def load_pipeline(folder: Path, dtype: torch.dtype) -> Any:
    """The diffusers pipeline of a folder, on the CPU, weights cast to `dtype`; pressed folders load too.

    Raises:
        UserError: the folder is no pipeline that diffusers can load.
    """
    return load_pipeline_with(folder, dtype, {})


def load_pipeline_with(folder: Path, dtype: torch.dtype, components: dict[str, Any]) -> Any:
    """The pipeline of a folder with some parts given, the others loaded as `load_pipeline` does."""
    from diffusers import DiffusionPipeline

    from .. import loading  # noqa: F401  registers the INT4 loader

    try:
        with _disable_progress_bars():
            pipeline = DiffusionPipeline.from_pretrained(folder, dtype=dtype, use_safetensors=True, **components)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"The pipeline {folder} cannot be loaded: {reason}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@contextmanager
def _disable_progress_bars() -> Iterator[None]:
    """Keeps diffusers and transformers from drawing progress bars across ours."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    enabled = [log for log in (diffusers_logging, transformers_logging) if log.is_progress_bar_enabled()]
    for log in enabled:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in enabled:
            log.enable_progress_bar()


def generate_images(
    pipeline: Any, prompts: Sequence[Prompt], sampling: SamplingParams, seed: int = 0, output_type: str = "pil"
) -> list[Image]:
    """One picture a prompt, all in one batch; with the output `latent`, what the decoder would be given.

    Raises:
        UserError: the pipeline refuses the size or another setting.
    """
    import torch

    generators = [torch.Generator().manual_seed(prompt_seed(prompt.id, seed)) for prompt in prompts]
    try:
        with torch.no_grad():
            images = pipeline(
                [prompt.prompt for prompt in prompts],
                height=sampling.height,
                width=sampling.width,
                num_inference_steps=sampling.steps,
                guidance_scale=sampling.guidance,
                generator=generators,
                output_type=output_type,
            ).images
    except ValueError as error:
        raise UserError(f"The pipeline refuses {sampling}: {error}") from error
    return list(images)


def batched(prompts: Sequence[Prompt], size: int) -> Iterator[Sequence[Prompt]]:
    for start in range(0, len(prompts), size):
        yield prompts[start : start + size]
