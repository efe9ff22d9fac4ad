"""Loads diffusers pipelines and generates images, with noise that depends only on prompt id and seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.errors import UserError, summarize_error
from ..common.requirements import reject_failed_import
from ..models.base.host import load_host
from ..models.base.prompt_tokens import get_longest_format
from ..models.registry import load_families
from ..prompts.prompt import Prompt, describe_missing_guidance, prompt_seed, require_guidance
from ..prompts.truncation import warn_once
from ..recipes.schema import GenerationSettings
from ..runtime.scheduler_config import require_two_ends
from ..storage.files import read_json_object
from ..storage.weight_files import find_weight_folders, select_weight_files
from .byte_order_marks import hide_byte_order_marks
from .call_arguments import build_arguments, get_images, list_calls, takes_guidance
from .hub import read_pipeline_class
from .preflight import read_configs
from .prompt_limits import find_truncations, load_pipeline_host

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

AUTO_BFLOAT16_BYTES = 10**9  # weights of this size and more are bfloat16 with `dtype: auto`
PIXELS_PER_BATCH = 2**17  # 8 images of the demo, or 1 of 512 x 512 and above


@dataclass(frozen=True)
class SamplingParams:
    """How images are generated.

    Attributes:
        height: Height in pixels.
        width: Width in pixels.
        steps: Number of denoising steps.
        guidance: Guidance scale.
        negative_prompt: What guidance leads away from, for prompts that have none of their own.
    """

    height: int
    width: int
    steps: int
    guidance: float
    negative_prompt: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The parameters as JSON; what was added in later releases is left out where it says nothing."""
        return {key: value for key, value in asdict(self).items() if value != ""}

    @property
    def batch_size(self) -> int:
        """Images per batch. It depends on their size only, so that all runs and candidates form the same batches."""
        return max(1, PIXELS_PER_BATCH // (self.height * self.width))


def read_native_size(pipeline: Path) -> int:
    """Reads the native image size of a pipeline folder, in pixels.

    That is its denoiser's `sample_size`, in latents, times what the VAE enlarges, as diffusers computes it, or else the
    VAE's, which a pipeline may have from another one of a different size, or else what its family's host says.

    Raises:
        UserError: Neither config has it.
    """
    config = pipeline / "vae" / "config.json"
    vae = read_json_object(config) if config.exists() else {}
    stages = _count_vae_stages(vae)
    for file in sorted(pipeline.glob("*/config.json")) if stages else ():
        size: Any = read_json_object(file).get("sample_size")
        if file != config and _is_size(size):
            return int(size) << stages
    native: Any = vae.get("sample_size")
    if _is_size(native):
        return int(native)
    family = load_families().get(read_pipeline_class(pipeline))
    if family is not None and family.host:
        return load_host(family, read_configs(pipeline)).native_resolution
    raise UserError(f"{config} has no sample_size. Set the size in the recipe (size: [H, W]).")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _count_vae_stages(vae: Mapping[str, Any]) -> int:
    """How often a VAE halves the sides of an image, by its config; 0 if that is unknown."""
    for key, surplus in (("encoder_block_out_channels", 1), ("block_out_channels", 1), ("temperal_downsample", 0)):
        if isinstance(vae.get(key), list):
            return max(0, len(vae[key]) - surplus)
    return 0


def resolve_sampling(settings: GenerationSettings, pipeline: Path) -> SamplingParams:
    """The sampling parameters of a recipe's section for a pipeline folder, whose native size replaces `native`."""
    height, width = (read_native_size(pipeline),) * 2 if settings.size == "native" else settings.size
    return SamplingParams(height, width, settings.steps, settings.guidance, settings.negative_prompt)


def resolve_dtype(dtype: str, pipeline: Path) -> str:
    """The dtype that `auto` means for a pipeline folder: float32 for weights under 1 GB, else bfloat16.

    Args:
        dtype: `auto`, or a dtype that is returned as it is.
        pipeline: The pipeline's folder.
    """
    if dtype != "auto":
        return dtype
    files = [file for folder in find_weight_folders(pipeline) for file in select_weight_files(folder).files]
    weights = sum(file.stat().st_size for file in files)
    return "float32" if weights < AUTO_BFLOAT16_BYTES else "bfloat16"


def load_pipeline(folder: Path, dtype: torch.dtype, loras: Sequence[str] = ()) -> Any:
    """Loads a pipeline folder, quantized or not, on the CPU and casts its weights to `dtype`.

    Args:
        folder: The pipeline's folder.
        dtype: The dtype of the weights.
        loras: LoRAs to merge into the weights of a pipeline that is not quantized, as `PATH` or `PATH:WEIGHT`.

    Raises:
        UserError: diffusers cannot load the folder, or a LoRA is not for this pipeline.
    """
    if not loras:
        return load_pipeline_with(folder, dtype, {})
    from .component_weights import load_merged_components

    return load_pipeline_with(folder, dtype, load_merged_components(folder, dtype, loras))


def load_pipeline_with(folder: Path, dtype: torch.dtype, components: dict[str, Any]) -> Any:
    """Loads a pipeline folder as `load_pipeline` does, but with some components given.

    Args:
        folder: The pipeline's folder.
        dtype: The dtype of the weights that are loaded.
        components: Components by name, which are not loaded. Those that diffusers would not load as edgepress reads
            them are loaded and added.

    Raises:
        UserError: diffusers cannot load the folder.
    """
    from diffusers import DiffusionPipeline

    from .component_weights import load_unusual_components
    from .hf_quantizers import register_quantizers
    from .quantization_packages import import_registering_packages

    register_quantizers()
    import_registering_packages(folder)
    try:
        components = load_unusual_components(folder, dtype, components) | components
        with _disable_progress_bars(), hide_byte_order_marks(folder) as readable:
            pipeline = DiffusionPipeline.from_pretrained(readable, dtype=dtype, use_safetensors=True, **components)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reject_failed_import(error)
        raise UserError(
            f"Cannot load the pipeline {folder} ({summarize_error(error)}). Check it with 'edgepress info {folder}', "
            "or give another."
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@contextmanager
def _disable_progress_bars() -> Iterator[None]:
    """Disables the progress bars of diffusers and transformers, which would interfere with edgepress's own."""
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
    pipeline: Any,
    prompts: Sequence[Prompt],
    sampling: SamplingParams,
    seed: int = 0,
    output_type: str = "pil",
    warn: Callable[[str], None] = warn_once,
) -> list[Image]:
    """Generates one image per prompt, all in one batch.

    Prompts are truncated where the pipeline does it, or where its position tables end, as the exported graphs do. Those
    that are guided otherwise than the ones before them are a batch of their own, as `batched` splits them.

    Args:
        pipeline: A loaded diffusers pipeline.
        prompts: The prompts.
        sampling: Size, steps and guidance.
        seed: Selects the noise, together with each prompt's id.
        output_type: `pil` for images, or `latent` for the latents before decoding.
        warn: Called with a sentence for each prompt that is truncated, and if the model needs guidance and gets none.

    Raises:
        UserError: The pipeline rejects the size or another parameter, or takes no guidance or no negative prompt.
    """
    batches = batched(prompts, len(prompts))
    return [image for batch in batches for image in _generate_batch(pipeline, batch, sampling, seed, output_type, warn)]


def _generate_batch(
    pipeline: Any,
    prompts: Sequence[Prompt],
    sampling: SamplingParams,
    seed: int,
    output_type: str,
    warn: Callable[[str], None],
) -> list[Image]:
    import torch

    require_two_ends(getattr(getattr(pipeline, "scheduler", None), "config", {}), sampling.steps)
    generators = [torch.Generator().manual_seed(prompt_seed(prompt.id, seed)) for prompt in prompts]
    try:
        options = _resolve_limits(pipeline, prompts, sampling, warn)
        arguments = build_arguments(pipeline, prompts, sampling) | {"generator": generators}
        calls = list_calls(pipeline, arguments)
        with torch.no_grad():
            outputs = [get_images(pipeline(output_type=output_type, **call, **options)) for call in calls]
    except ValueError as error:
        if output_type == "latent" and "output_type" in str(error):
            raise UserError(
                f"The class {type(pipeline).__name__} returns images and no latents, which calibration and validation "
                f"ask for: {error}. Use another pipeline class of the model, or another model."
            ) from error
        raise UserError(
            f"The pipeline rejects images of {sampling.height}x{sampling.width} in {sampling.steps} steps with "
            f"guidance {prompts[0].choose_guidance(sampling.guidance):g}: {error}. Change them in the recipe."
        ) from error
    return [image for images in outputs for image in images]


def _resolve_limits(
    pipeline: Any, prompts: Sequence[Prompt], sampling: SamplingParams, warn: Callable[[str], None]
) -> dict[str, Any]:
    """Checks guidance, size and the lengths of prompts; returns the pipeline's arguments that truncate long prompts.

    Short prompts get none, since they are padded to that length, which changes the rounding of their images.
    """
    host = load_pipeline_host(pipeline)
    is_guided = takes_guidance(pipeline) if host is None else host.takes_guidance
    require_guidance(prompts, is_guided, type(pipeline).__name__)
    if host is None:
        return {}
    host.latent_shape(sampling.height, sampling.width)
    if host.needs_guidance and not prompts[0].choose_guidance(sampling.guidance):
        warn(describe_missing_guidance(type(pipeline).__name__))
    notices = [notice for notice in find_truncations(pipeline, host, [prompt.prompt for prompt in prompts]) if notice]
    for notice in notices:
        warn(notice)
    longest = get_longest_format(host.prompt_formats)
    return {longest.length_argument: longest.max_tokens} if notices and longest.length_argument else {}


def batched(prompts: Sequence[Prompt], size: int) -> Iterator[Sequence[Prompt]]:
    """Splits prompts into batches of at most `size`, in order.

    Prompts of a batch have the same guidance, since a pipeline takes one scale for a batch. All or none have a negative
    prompt of their own that is empty: alone, some pipelines do not encode it.
    """
    for _, group in groupby(prompts, key=_describe_guidance):
        alike = list(group)
        for start in range(0, len(alike), size):
            yield alike[start : start + size]


def _describe_guidance(prompt: Prompt) -> tuple[float | None, bool | None]:
    return prompt.guidance, None if prompt.negative_prompt is None else not prompt.negative_prompt
