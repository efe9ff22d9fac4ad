"""An image from graphs, where the velocity is known: Euler steps end where the integral says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepress.export.verification.image_parity import ReferenceImage, generate_with_graphs
from edgepress.models.base.host import run_first_outputs
from edgepress.models.base.prompt_tokens import PromptTokens
from edgepress.runtime.schedule import Schedule

TIMESTEPS = np.array([1000.0, 750.0, 500.0, 250.0], np.float32)
LATENTS = np.arange(6, dtype=np.float32).reshape(1, 2, 3)


class LinearHost:
    """Its velocity depends on the timestep, and on the prompt that it has encoded."""

    def __init__(self, slope: float) -> None:
        self.slope, self.timesteps = slope, list[float]()

    def encode_prompt(self, run: Any, tokens: Any) -> Any:  # noqa: ARG002
        return float(tokens["tokenizer"].ids.sum())

    def predict_velocity(self, run: Any, latents: Any, timestep: float, prompt: float) -> Any:  # noqa: ARG002
        self.timesteps.append(timestep)
        return np.full_like(latents, prompt + self.slope * timestep)

    def decode_latents(self, run: Any, latents: Any) -> Any:  # noqa: ARG002
        return latents


def generate(host: Any, ids: list[int], sigmas: np.ndarray) -> np.ndarray:
    tokens, schedule = {"tokenizer": PromptTokens(np.array(ids))}, Schedule(sigmas, TIMESTEPS)
    reference = ReferenceImage(np.zeros((1, 1, 3), np.uint8), host, tokens, LATENTS, schedule)
    return generate_with_graphs(reference, run_first_outputs(lambda *_: np.zeros(1, np.float32)))


@pytest.mark.slow
@given(st.lists(st.floats(0, 1, width=32), min_size=5, max_size=5), st.integers(-3, 3))
def test_a_constant_velocity_is_independent_of_the_schedule_between_its_ends(values: list[float], ids: int) -> None:
    """The steps' differences add up to the difference of the ends."""
    sigmas = np.sort(np.array(values, np.float32))[::-1]
    image = generate(LinearHost(0.0), [ids, 1], sigmas)
    np.testing.assert_allclose(image, LATENTS + (ids + 1) * (sigmas[-1] - sigmas[0]), atol=1e-5)


def test_each_step_has_the_velocity_of_its_timestep() -> None:
    host = LinearHost(0.01)
    sigmas = np.array([1, 0.8, 0.6, 0.1, 0], np.float32)
    # velocities 10, 7.5, 5 and 2.5 over steps of 0.2, 0.2, 0.5 and 0.1: 2 + 1.5 + 2.5 + 0.25
    np.testing.assert_allclose(generate(host, [0], sigmas), LATENTS - 6.25, atol=1e-5)
    assert host.timesteps == TIMESTEPS.tolist()
