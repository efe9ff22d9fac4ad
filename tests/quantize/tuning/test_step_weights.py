"""What an error of each step counts: measured by running the quantized denoiser in one step alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgepress.pipelines.sampling import SamplingParams, load_pipeline
from edgepress.prompts.sets import load_prompt_set
from edgepress.quantize.tuning.step_weights import UNIFORM_SHARE, draw_probabilities, measure_step_weights
from edgepress.quantize.tuning.trainable import replicate

SIGMAS = 3


class Biased(nn.Module):
    """A denoiser that is off by a constant."""

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, *args: Any, **kwargs: Any) -> tuple[list[Tensor]]:
        output = self.denoiser(*args, **kwargs)
        return ([sample + 0.01 for sample in (output[0] if isinstance(output, tuple) else output.sample)],)


def test_without_corrections_an_error_counts_as_its_step_is_long(lean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Euler's method adds velocity times step: the squared error of the latents is the velocity's times the step's."""
    pipeline = load_pipeline(lean, torch.float32)
    denoiser = pipeline.transformer
    monkeypatch.setattr(denoiser, "forward", lambda x, *_, **__: ([torch.ones_like(sample) for sample in x],))
    sampling, prompts = SamplingParams(64, 64, SIGMAS, 0.0), load_prompt_set(lean / "prompts" / "calibration.jsonl")
    weights = measure_step_weights(pipeline, "transformer", Biased(denoiser), prompts, sampling, 0)
    sigmas = pipeline.scheduler.sigmas
    expected = (sigmas[:-1] - sigmas[1:]).square()
    assert weights == pytest.approx((expected / expected.mean()).tolist(), rel=1e-3)


def test_the_reference_itself_makes_no_difference(lean: Path) -> None:
    pipeline = load_pipeline(lean, torch.float32)
    sampling, prompts = SamplingParams(64, 64, 2, 0.0), load_prompt_set(lean / "prompts" / "calibration.jsonl")
    same = replicate(pipeline.transformer)
    assert measure_step_weights(pipeline, "transformer", same, prompts, sampling, 0) == [1.0, 1.0]


def test_heavy_steps_are_drawn_often_and_light_ones_now_and_then() -> None:
    probabilities = draw_probabilities([0.0, 1.0, 3.0, 0.0])
    assert sum(probabilities) == pytest.approx(1)
    assert min(probabilities) == pytest.approx(UNIFORM_SHARE / 4)
    assert probabilities[2] > 2 * probabilities[1] > 4 * probabilities[0]
