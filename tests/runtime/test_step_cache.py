"""Velocities that are reused: against sums by hand, and in whole images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.small_artifact import write_small_artifact

from edgepress.common.errors import UserError
from edgepress.runtime.generation_request import GenerationRequest
from edgepress.runtime.pipeline import ImagePipeline
from edgepress.runtime.step_cache import StepCache


def run_steps(threshold: float, slope: float, positions: list[float]) -> list[bool]:
    """Which steps are computed for latents at these positions, where the velocity is 1 + slope * position."""
    cache, computed = StepCache(threshold), list[bool]()
    for index, position in enumerate(positions):
        calls = 0

        def predict(position: float = position) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
            nonlocal calls
            calls += 1
            return np.full(3, 1 + slope * position, np.float32)

        cache.get_velocity(np.full(3, position, np.float32), index == len(positions) - 1, predict)
        computed.append(calls == 1)
    assert cache.num_reused == computed.count(False)
    return computed


def test_changes_add_up_until_they_reach_the_threshold() -> None:
    """The velocity grows by 0.1 a step, from 1.1 after the second one: 9 % of it, then 18 %, then 27 %."""
    positions = [float(n) for n in range(8)]
    assert run_steps(0.2, 0.1, positions)[:5] == [True, True, False, False, True]
    assert run_steps(0.05, 0.1, positions) == [True] * 8
    assert run_steps(0, 0.0, positions) == [True] * 8  # off
    assert run_steps(0.01, 0.0, positions) == [True, True, False, False, False, False, False, True]  # the last one is


@pytest.fixture
def pipeline(tmp_path: Path) -> ImagePipeline:
    (tmp_path / "onnx").mkdir()
    write_small_artifact(tmp_path)
    return ImagePipeline(tmp_path)


def test_images_skip_steps_if_they_may(pipeline: ImagePipeline) -> None:
    """The velocity of this artifact is its latents, so it changes as they do."""
    exact = pipeline.generate(GenerationRequest("a", steps=8))
    assert pipeline.num_reused_steps == 0
    cached = pipeline.generate(GenerationRequest("a", steps=8, step_cache=0.9))
    assert 1 <= pipeline.num_reused_steps <= 5
    assert cached != exact
    with pytest.raises(UserError, match=r"Invalid step cache 2: it must be a number from 0 to 1, such as 0"):
        pipeline.generate(GenerationRequest("a", step_cache=2))


def test_a_cache_that_can_skip_no_step_is_refused(pipeline: ImagePipeline) -> None:
    pipeline.check_request(GenerationRequest("a", steps=4, step_cache=0.1))
    for check in (pipeline.check_request, pipeline.generate):
        with pytest.raises(UserError, match=r"The step cache has no effect: .* and there are 3 in all"):
            check(GenerationRequest("a", steps=3, step_cache=0.1))
