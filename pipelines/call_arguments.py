"""What a diffusers pipeline is called with: every class has its own names for the same few settings."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..common.errors import UserError
from ..prompts.prompt import Prompt

if TYPE_CHECKING:
    from .sampling import SamplingParams

# Pipelines of two stages take the settings of each.
STEP_NAMES = ("num_inference_steps", "prior_num_inference_steps", "decoder_num_inference_steps")
GUIDANCE_NAMES = ("guidance_scale", "prior_guidance_scale", "decoder_guidance_scale", "distilled_guidance_scale")
# Would generate another size than was asked for, and resize the image.
SIZE_BINNING = "use_resolution_binning"


def build_arguments(pipeline: Any, prompts: Sequence[Prompt], sampling: SamplingParams) -> dict[str, Any]:
    """Builds the arguments of a pipeline's call, except for noise, the kind of output, and limits of length.

    Args:
        pipeline: A loaded diffusers pipeline.
        prompts: The prompts of a batch.
        sampling: Size, steps, guidance and negative prompt.

    Raises:
        UserError: There is a negative prompt, and the pipeline takes none.
    """
    parameters = inspect.signature(type(pipeline).__call__).parameters
    arguments: dict[str, Any] = {"prompt": [prompt.prompt for prompt in prompts]}
    arguments |= {"height": sampling.height, "width": sampling.width}
    arguments |= dict.fromkeys(STEP_NAMES, sampling.steps)
    arguments |= _build_guidance(pipeline, parameters, sampling.guidance)
    arguments |= _build_negative_prompts(pipeline, parameters, prompts, sampling)
    arguments[SIZE_BINNING] = False
    return {name: value for name, value in arguments.items() if name in parameters}


def get_images(output: Any) -> Any:
    """Returns the images, or latents, that a pipeline returned."""
    return output.images if hasattr(output, "images") else output.image


def _build_guidance(pipeline: Any, parameters: Mapping[str, inspect.Parameter], guidance: float) -> dict[str, Any]:
    """Builds the arguments that hold the guidance scale.

    Most pipelines have one. Where `guidance_scale` is that of a distilled model, and may be left out, it is
    `true_cfg_scale` that needs a second pass.
    """
    if not _has_optional_distillation(parameters):
        return dict.fromkeys(GUIDANCE_NAMES, guidance)
    config = getattr(getattr(pipeline, "transformer", None), "config", {})
    is_distilled = bool(config.get("guidance_embeds", False))
    return {"guidance_scale": guidance} if is_distilled else {"true_cfg_scale": guidance}


def _build_negative_prompts(
    pipeline: Any, parameters: Mapping[str, inspect.Parameter], prompts: Sequence[Prompt], sampling: SamplingParams
) -> dict[str, Any]:
    """Builds the argument that holds negative prompts, where any prompt has one or guidance needs one."""
    texts = [
        sampling.negative_prompt if prompt.negative_prompt is None else prompt.negative_prompt for prompt in prompts
    ]
    if any(texts) and "negative_prompt" not in parameters:
        raise UserError(
            f"{type(pipeline).__name__} takes no negative prompt. Remove negative_prompt from the recipe and the "
            "prompts."
        )
    # Some classes guide only where there is a negative prompt, if only a space.
    needs_text = _has_optional_distillation(parameters) and sampling.guidance > 1
    if any(texts):
        return {"negative_prompt": texts}
    return {"negative_prompt": [" "] * len(prompts)} if needs_text else {}


def _has_optional_distillation(parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Whether `guidance_scale` may be left out, and `true_cfg_scale` is what guides."""
    return "true_cfg_scale" in parameters and parameters["guidance_scale"].default is None
