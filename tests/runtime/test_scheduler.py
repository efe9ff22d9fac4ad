"""The schedule held against diffusers' scheduler, driven as the pipeline drives it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.z_image.pipeline_z_image import (
    calculate_shift,
    get_default_z_image_sigmas,
    retrieve_timesteps,
)

from edgepress.common.errors import UserError
from edgepress.runtime.scheduler import make_schedule

CONFIGS: dict[str, dict[str, Any]] = {
    "static": {"shift": 3.0},
    "none": {"shift": 1.0},
    "much": {"shift": 6.5},
    "exponential": {"use_dynamic_shifting": True},
    "linear": {"use_dynamic_shifting": True, "time_shift_type": "linear", "shift": 3.0},
    "other sizes": {"use_dynamic_shifting": True, "base_shift": 0.3, "max_shift": 2.0, "max_image_seq_len": 8192},
    "terminal": {"use_dynamic_shifting": True, "shift_terminal": 0.1},
    "other range": {"shift": 3.0, "num_train_timesteps": 500},
}
given_configs = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def reference(config: dict[str, Any], steps: int, tokens: int) -> Any:
    scheduler = FlowMatchEulerDiscreteScheduler(**config)
    get = scheduler.config.get
    mu = calculate_shift(
        tokens,
        get("base_image_seq_len", 256),
        get("max_image_seq_len", 4096),
        get("base_shift", 0.5),
        get("max_shift", 1.15),
    )
    retrieve_timesteps(scheduler, steps, sigmas=get_default_z_image_sigmas(steps), mu=mu)
    scheduler.set_begin_index(0)
    return scheduler


@given_configs
@pytest.mark.parametrize("tokens", [1, 64, 1024, 3952, 16384])
def test_sigmas_and_timesteps_are_the_schedulers(config: dict[str, Any], tokens: int) -> None:
    for steps in range(1 + ("shift_terminal" in config), 51):
        expected = reference(config, steps, tokens)
        found = make_schedule(dict(expected.config), steps, tokens)
        assert found.sigmas.dtype == found.timesteps.dtype == np.float32
        assert found.sigmas == pytest.approx(expected.sigmas.numpy(), abs=1e-6)
        assert found.timesteps == pytest.approx(expected.timesteps.numpy(), abs=1e-3)


@given_configs
def test_steps_are_the_schedulers(config: dict[str, Any]) -> None:
    """The same velocities lead from the same noise to the same latents."""
    scheduler = reference(config, 9, 1000)
    steps = make_schedule(config, 9, 1000)
    random = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 16, 8, 8, generator=random)
    found = latents.numpy()
    for number, timestep in enumerate(scheduler.timesteps):
        velocity = torch.randn(1, 16, 8, 8, generator=random)
        latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        found = steps.step(found, velocity.numpy(), number)
        assert found.dtype == np.float32
        assert np.abs(found - latents.numpy()).max() < 1e-5


def test_what_a_config_leaves_out_is_the_schedulers_default() -> None:
    expected = FlowMatchEulerDiscreteScheduler()
    retrieve_timesteps(expected, 5, sigmas=get_default_z_image_sigmas(5), mu=1.0)
    assert make_schedule({}, 5, 64).sigmas == pytest.approx(expected.sigmas.numpy(), abs=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        {"use_karras_sigmas": True},
        {"use_beta_sigmas": True},
        {"use_exponential_sigmas": True},
        {"invert_sigmas": True},
        {"stochastic_sampling": True},
        {"_class_name": "EulerDiscreteScheduler"},
    ],
    ids=lambda config: next(iter(config)),
)
def test_what_is_not_known_is_refused_by_its_name(config: dict[str, Any]) -> None:
    named = "EulerDiscreteScheduler" if "_class_name" in config else next(iter(config))
    with pytest.raises(UserError, match=named):
        make_schedule(config, 8, 64)
