"""What a diffusers pipeline is called with: every class has its own names for the same few settings."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..common.errors import UserError
from ..prompts.prompt import Prompt

if TYPE_CHECKING:
    from .sampling import SamplingParams

# Pipelines of two stages take the settings of each.
STEP_NAMES = ("num_inference_steps", "prior_num_inference_steps", "decoder_num_inference_steps")
GUIDANCE_NAMES = ("guidance_scale", "prior_guidance_scale", "decoder_guidance_scale", "distilled_guidance_scale")
SECOND_PASS = "true_cfg_scale"  # the guidance scale of classes that may have a distilled one as well
# Would generate another size than was asked for, and resize the image.
SIZE_BINNING = "use_resolution_binning"
# Would write another prompt, with a text encoder that generates hundreds of tokens; images of two models would then
# differ by their prompts.
PROMPT_REWRITING = "enable_prompt_rewrite"
NO_TEXT = " "  # some classes guide only where there is a negative prompt, if only a space
GUIDANCE_SCHEDULE = "guidance_schedule"  # a scale for each step, which a single one replaces


def build_arguments(pipeline: Any, prompts: Sequence[Prompt], sampling: SamplingParams) -> dict[str, Any]:
    """Builds the arguments of a pipeline's call, except for noise, the kind of output, and limits of length.

    Args:
        pipeline: A loaded diffusers pipeline.
        prompts: The prompts of a batch, which all have the same guidance.
        sampling: Size, steps, guidance and negative prompt.

    Raises:
        UserError: There is a negative prompt, and the pipeline takes none.
    """
    parameters = inspect.signature(type(pipeline).__call__).parameters
    arguments: dict[str, Any] = {"prompt": [prompt.prompt for prompt in prompts]}
    sampling = replace(sampling, guidance=prompts[0].choose_guidance(sampling.guidance))
    arguments |= {"height": sampling.height, "width": sampling.width}
    arguments |= dict.fromkeys(STEP_NAMES, sampling.steps)
    arguments |= _build_guidance(pipeline, parameters, sampling.guidance)
    arguments |= _build_negative_prompts(pipeline, parameters, prompts, sampling)
    arguments |= {SIZE_BINNING: False, PROMPT_REWRITING: False, GUIDANCE_SCHEDULE: None}
    return {name: value for name, value in arguments.items() if name in parameters}


def takes_guidance(pipeline: Any) -> bool:
    """Whether a pipeline has an argument that holds a guidance scale."""
    return not inspect.signature(type(pipeline).__call__).parameters.keys().isdisjoint((*GUIDANCE_NAMES, SECOND_PASS))


def takes_one_prompt(pipeline: Any) -> bool:
    """Whether a pipeline generates the image of a single prompt only, by the annotations of its call and its check."""
    methods = [getattr(type(pipeline), name, None) for name in ("__call__", "check_inputs")]
    signatures = [inspect.signature(method).parameters for method in methods if method is not None]
    annotations = [str(names["prompt"].annotation).lower() for names in signatures if "prompt" in names]
    return any("str" in annotation and "list" not in annotation for annotation in annotations)


def list_calls(pipeline: Any, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Lists the arguments of each call that a batch takes: of one, or of one for each prompt.

    Args:
        pipeline: A loaded diffusers pipeline.
        arguments: The arguments of the batch, where lists have an entry for each prompt.
    """
    if not takes_one_prompt(pipeline):
        return [dict(arguments)]
    lists = {name: value for name, value in arguments.items() if isinstance(value, list)}
    return [{**arguments, **dict(zip(lists, values, strict=True))} for values in zip(*lists.values(), strict=True)]


def get_images(output: Any) -> Any:
    """Returns the images, or latents, that a pipeline returned."""
    return output.images if hasattr(output, "images") else output.image


def _build_guidance(pipeline: Any, parameters: Mapping[str, inspect.Parameter], guidance: float) -> dict[str, Any]:
    """Builds the arguments that hold the guidance scale.

    Most pipelines have one. Where `guidance_scale` is that of a distilled model, and may be left out, or does not
    exist, it is `true_cfg_scale` that needs a second pass.
    """
    if not _needs_second_pass(parameters):
        return dict.fromkeys(GUIDANCE_NAMES, guidance)
    config = getattr(getattr(pipeline, "transformer", None), "config", {})
    is_distilled = "guidance_scale" in parameters and bool(config.get("guidance_embeds", False))
    return {"guidance_scale": guidance} if is_distilled else {SECOND_PASS: guidance}


def _build_negative_prompts(
    pipeline: Any, parameters: Mapping[str, inspect.Parameter], prompts: Sequence[Prompt], sampling: SamplingParams
) -> dict[str, Any]:
    """Builds the argument that holds negative prompts, where any prompt has one or guidance needs one."""
    texts = [prompt.choose_negative_prompt(sampling.negative_prompt) for prompt in prompts]
    if any(texts) and "negative_prompt" not in parameters:
        raise UserError(
            f"{type(pipeline).__name__} takes no negative prompt. Remove negative_prompt from the recipe and the "
            "prompts."
        )
    if _needs_second_pass(parameters) and sampling.guidance > 1:
        return {"negative_prompt": [text or NO_TEXT for text in texts]}
    return {"negative_prompt": texts} if any(texts) else {}


def _needs_second_pass(parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Whether `true_cfg_scale` is what guides: `guidance_scale` may be left out, or there is none."""
    scale = parameters.get("guidance_scale")
    return SECOND_PASS in parameters and (scale is None or scale.default is None)
