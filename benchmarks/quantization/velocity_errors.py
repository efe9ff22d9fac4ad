"""The errors of a quantized denoiser's velocities, each computed from the latents of the original pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any

from ...pipelines.sampling import SamplingParams, generate_images
from ...prompts.prompt import Prompt
from ...quantize.drift import DriftMeter

Call = tuple[Prompt, SamplingParams]


def record_velocities(pipeline: Any, denoisers: Sequence[str], calls: Sequence[Call]) -> list[list[Any]]:
    """Generates images; returns for each what its denoisers returned, call by call.

    Args:
        pipeline: A pipeline of diffusers.
        denoisers: Names of its denoisers.
        calls: The prompts and settings.
    """
    recorded: list[list[Any]] = []
    for prompt, sampling in calls:
        outputs: list[Any] = []

        def record(compute: Callable[..., Any], *args: Any, _outputs: list[Any] = outputs, **kwargs: Any) -> Any:
            output = compute(*args, **kwargs)
            _outputs.append(deepcopy(output))  # a pipeline may change what it gets
            return output

        with _replace_forward(pipeline, denoisers, record):
            generate_images(pipeline, [prompt], sampling, output_type="latent")
        recorded.append(outputs)
    return recorded


def measure_velocity_errors(
    pipeline: Any, denoisers: Sequence[str], calls: Sequence[Call], recorded: Sequence[Sequence[Any]]
) -> list[float]:
    """Returns the squared error of each image's velocities, relative to those of the original.

    Args:
        pipeline: A quantized pipeline.
        denoisers: Names of its denoisers.
        calls: The prompts and settings.
        recorded: What the original's denoisers returned.
    """
    errors = []
    for (prompt, sampling), outputs in zip(calls, recorded, strict=True):
        meter = DriftMeter(deepcopy(outputs))
        with _replace_forward(pipeline, denoisers, meter.forward):
            generate_images(pipeline, [prompt], sampling, output_type="latent")
        errors.append(meter.error / meter.power if meter.power else meter.error)
    return errors


@contextmanager
def _replace_forward(pipeline: Any, denoisers: Sequence[str], forward: Callable[..., Any]) -> Iterator[None]:
    """Passes calls of denoisers to a function, as its first argument what would have computed them."""
    models = [model for name in denoisers if (model := getattr(pipeline, name)) is not None]
    originals = [model.forward for model in models]
    for model in models:
        model.forward = partial(forward, model.forward)
    try:
        yield
    finally:
        for model, original in zip(models, originals, strict=True):
            model.forward = original
