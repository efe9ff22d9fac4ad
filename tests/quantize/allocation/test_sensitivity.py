"""Drifts to first order are those of small steps along the errors, whether blocks stay on disk or not."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from edgepress.pipelines.sampling import SamplingParams, generate_images, load_pipeline
from edgepress.prompts.prompt import Prompt
from edgepress.quantize.allocation.sensitivity import SensitivityMeasurement
from edgepress.quantize.plan import build_plan
from edgepress.quantize.tuning.calls import record_calls
from edgepress.recipes.schema import QuantizationSettings

SAMPLING = SamplingParams(32, 32, 2, 0.0)
PROMPTS = [Prompt(id=f"prompt {number}", prompt="a red sign", language="en", lines=("A",)) for number in range(40)]
STEP = 1e-3  # of the weights that finite differences are taken over


def errors_of(plan):
    """A random error for every linear that is quantized, by component and path."""
    generator = torch.Generator().manual_seed(0)
    return {
        (part.name, linear): torch.randn(part.checkpoint.shape(f"{linear}.weight"), generator=generator) * 0.01
        for part in plan.components
        for block in part.blocks
        for linear in block.linears
    }


def measure(plan, errors, prompts, streams):
    measurement = SensitivityMeasurement(
        plan, SAMPLING, torch.float32, lambda part, linear: {"random": errors[part.name, linear]}
    )
    return list(measurement.iterate(prompts, streams))


def call_with_latents(forward, calls, _, *args, **kwargs):
    """Calls a transformer with the latents of the reference; what the text encoder gave is the caller's."""
    return forward(next(calls)["x"], *args, **kwargs)


def differentiate(pipeline, component, linear, error, prompts):
    """|J D|^2 of the velocities of every prompt, from two runs of the pipeline with the weight moved along D."""
    weight = getattr(pipeline, component).get_submodule(linear).weight
    total = 0.0
    for prompt in prompts:
        with record_calls(pipeline.transformer) as calls:
            generate_images(pipeline, [prompt], SAMPLING, output_type="latent")
        moved = []
        for sign in (1, -1):
            with torch.no_grad():
                weight += sign * STEP * error
            outputs = iter([call.arguments for call in calls])
            with record_calls(pipeline.transformer) as again:
                compute = partial(call_with_latents, pipeline.transformer.forward, outputs)
                pipeline.transformer.forward = compute
                generate_images(pipeline, [prompt], SAMPLING, output_type="latent")
            with torch.no_grad():
                weight -= sign * STEP * error
            moved.append([call.output for call in again])
        pairs = zip(*moved, strict=True)
        total += sum(float(((up - down) / (2 * STEP)).double().square().sum()) for up, down in pairs)
    return total


@pytest.fixture(scope="module")
def plan(tiny: Path):
    return build_plan(tiny, QuantizationSettings(method="rtn"))


def test_drifts_are_those_of_finite_differences(lean):
    """With one block of the transformer, since 40 images are needed."""
    plan = build_plan(lean, QuantizationSettings(method="rtn"))
    errors, pipeline = errors_of(plan), load_pipeline(lean, torch.float32)
    images = measure(plan, errors, PROMPTS, streams=False)
    for component in ("text_encoder", "transformer"):
        linear = next(linear for part, linear in errors if part == component)
        expected = differentiate(pipeline, component, linear, errors[component, linear], PROMPTS[:4]) / 4
        estimates = torch.tensor([image.drifts[f"{component}.{linear}"]["random"] for image in images])
        # The square of a normal variable has twice the square of its mean as variance.
        deviation = float(estimates.mean()) * (2 / len(estimates)) ** 0.5
        assert float(estimates.mean()) == pytest.approx(expected, abs=4 * deviation)


def test_every_linear_has_a_drift_and_the_power_is_that_of_the_velocities(tiny, plan):
    errors, pipeline = errors_of(plan), load_pipeline(tiny, torch.float32)
    (image,) = measure(plan, errors, PROMPTS[:1], streams=False)
    assert set(image.drifts) == {f"{component}.{linear}" for component, linear in errors}
    assert all(drift["random"] > 0 for drift in image.drifts.values())
    with record_calls(pipeline.transformer) as calls:
        generate_images(pipeline, PROMPTS[:1], SAMPLING, output_type="latent")
    assert image.power == pytest.approx(sum(float(call.output.square().sum()) for call in calls), rel=1e-5)


def test_weights_that_are_read_again_give_the_same(plan):
    errors = errors_of(plan)
    in_memory, streamed = (measure(plan, errors, PROMPTS[:2], streams) for streams in (False, True))
    assert in_memory == streamed
