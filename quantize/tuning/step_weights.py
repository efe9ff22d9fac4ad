"""How much the error of each denoising step counts in the final image, measured with the quantized denoiser itself.

Later steps correct much of what earlier ones do wrong, and what the last step does wrong nobody corrects. On the demo,
an error of the last step's velocity counts 17 times as much as the same error one step before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...pipelines.sampling import SamplingParams, generate_images
from ...prompts.prompt import Prompt
from .calls import DenoiserCall, record_calls, stack_output, to_float32

MAX_GROUPS = 8  # of neighbouring calls, which are measured together
UNIFORM_SHARE = 0.25  # of the samples that are drawn whatever their step


def measure_step_weights(
    pipeline: Any, denoiser: str, quantized: nn.Module, prompts: Sequence[Prompt], sampling: SamplingParams, seed: int
) -> list[float]:
    """Measures the weight of each of a denoiser's calls for an image, on average 1.

    It is the mean squared error of the final latents if the quantized denoiser computes this call alone, over that of
    the velocity. Over images the mean is geometric, as in PSNR: a single image that turns into another one would
    decide an arithmetic mean.

    Args:
        pipeline: The reference. Its denoiser is as it was afterwards.
        denoiser: Name of the denoiser.
        quantized: The quantized denoiser.
        prompts: The prompts of one batch of images.
        sampling: How images are generated.
        seed: Of their noise.
    """
    module = getattr(pipeline, denoiser)
    with record_calls(module) as calls:
        exact = _generate(pipeline, prompts, sampling, seed)
    errors = [_velocity_error(quantized, call) for call in calls]
    size = -(-len(calls) // MAX_GROUPS)
    weights: list[float] = []
    for start in range(0, len(calls), size):
        group = range(start, min(start + size, len(calls)))
        forward = module.forward
        module.forward = _Switch(forward, quantized.forward, group)
        try:
            changed = _generate(pipeline, prompts, sampling, seed)
        finally:
            module.forward = forward
        velocity_error = sum(errors[call] for call in group)
        image_error = _geometric_mean((changed - exact).square().flatten(1).mean(1))
        weight = image_error / velocity_error if velocity_error else 0.0
        weights += [weight] * len(group)
    mean = sum(weights) / len(weights)
    return [weight / mean for weight in weights] if mean else [1.0] * len(weights)


def _geometric_mean(values: Tensor) -> float:
    return float(values.double().log().mean().exp())


def draw_probabilities(weights: Sequence[float]) -> list[float]:
    """Returns how often samples of each step are drawn: mostly by weight, and all of them now and then."""
    total = sum(weights)
    return [(1 - UNIFORM_SHARE) * weight / total + UNIFORM_SHARE / len(weights) for weight in weights]


class _Switch:
    """Calls the quantized denoiser in some calls and the reference in the others."""

    def __init__(self, reference: Any, quantized: Any, group: range) -> None:
        self._reference, self._quantized, self._group, self._count = reference, quantized, group, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        forward = self._quantized if self._count in self._group else self._reference
        self._count += 1
        return forward(*args, **kwargs)


@torch.no_grad()
def _generate(pipeline: Any, prompts: Sequence[Prompt], sampling: SamplingParams, seed: int) -> Tensor:
    images: list[Any] = list(generate_images(pipeline, prompts, sampling, seed, output_type="latent"))
    return torch.stack([torch.as_tensor(image).float() for image in images])


@torch.no_grad()
def _velocity_error(quantized: nn.Module, call: DenoiserCall) -> float:
    output = stack_output(quantized(**to_float32(call.arguments)))
    return float((output.float() - call.output.float()).square().mean())
