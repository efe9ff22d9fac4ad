"""The schedule against the scheduler of diffusers, used as the pipeline uses it."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
)
from diffusers.pipelines.z_image.pipeline_z_image import (
    calculate_shift,
    get_default_z_image_sigmas,
    retrieve_timesteps,
)

from edgepress.common.errors import UserError
from edgepress.models.base.default_host import DefaultHost
from edgepress.runtime.schedule import skip_steps
from edgepress.runtime.scheduler import make_schedule
from edgepress.runtime.scheduler_config import (
    EULER,
    FLOW_MATCHING,
    SCHEMAS,
    UNSUPPORTED_OPTIONS,
    find_misspelt_options,
)

CONFIGS: dict[str, dict[str, Any]] = {
    "static": {"shift": 3.0},
    "none": {"shift": 1.0},
    "large": {"shift": 6.5},
    "exponential": {"use_dynamic_shifting": True},
    "linear": {"use_dynamic_shifting": True, "time_shift_type": "linear", "shift": 3.0},
    "token limits": {"use_dynamic_shifting": True, "base_shift": 0.3, "max_shift": 2.0, "max_image_seq_len": 8192},
    "terminal": {"use_dynamic_shifting": True, "shift_terminal": 0.1},
    "500 timesteps": {"shift": 3.0, "num_train_timesteps": 500},
}
parametrize_configs = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def make_reference(config: dict[str, Any], steps: int, tokens: int) -> Any:
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


@parametrize_configs
@pytest.mark.parametrize("tokens", [1, 64, 1024, 3952, 16384])
def test_sigmas_and_timesteps_equal_diffusers(config: dict[str, Any], tokens: int) -> None:
    for steps in range(1 + ("shift_terminal" in config), 51):
        expected = make_reference(config, steps, tokens)
        schedule = make_schedule(dict(expected.config), steps, tokens)
        assert schedule.sigmas.dtype == schedule.timesteps.dtype == np.float32
        assert schedule.sigmas == pytest.approx(expected.sigmas.numpy(), abs=1e-6)
        assert schedule.timesteps == pytest.approx(expected.timesteps.numpy(), abs=1e-3)


@parametrize_configs
def test_steps_equal_diffusers(config: dict[str, Any]) -> None:
    """From the same noise, the same velocities lead to the same latents."""
    scheduler = make_reference(config, 9, 1000)
    schedule = make_schedule(config, 9, 1000)
    generator = torch.Generator().manual_seed(0)
    expected = torch.randn(1, 16, 8, 8, generator=generator)
    latents = expected.numpy()
    for index, timestep in enumerate(scheduler.timesteps):
        velocity = torch.randn(1, 16, 8, 8, generator=generator)
        expected = scheduler.step(velocity, timestep, expected, return_dict=False)[0]
        latents = schedule.step(latents, velocity.numpy(), index)
        assert latents.dtype == np.float32
        assert np.abs(latents - expected.numpy()).max() < 1e-5


def test_missing_options_have_the_defaults_of_diffusers() -> None:
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
def test_unsupported_option_is_named(config: dict[str, Any]) -> None:
    name = "EulerDiscreteScheduler" if "_class_name" in config else next(iter(config))
    with pytest.raises(UserError, match=f"Unsupported scheduler .*{name}"):
        make_schedule(config, 8, 64)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"shift": None}, "shift = null: it must be a number"),
        ({"shift": float("nan")}, "shift = nan"),
        ({"shift": 0}, "shift = 0: it must be greater than 0"),
        ({"num_train_timesteps": "many"}, "num_train_timesteps = 'many'"),
        ({"use_dynamic_shifting": True, "max_image_seq_len": 256}, "max_image_seq_len = 256"),
        ({"use_dynamic_shifting": True, "max_image_seq_len": 257, "max_shift": 10}, "give no shift"),
        ({"time_shift_type": "cubic"}, "time_shift_type = 'cubic'"),
        ({"_class_name": "\n"}, r"Unsupported scheduler '\n'"),
    ],
)
def test_an_invalid_value_is_named(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError) as raised:
        make_schedule(config, 8, 16384)
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("schema", "scheduler"), [(FLOW_MATCHING, FlowMatchEulerDiscreteScheduler), (EULER, EulerDiscreteScheduler)]
)
def test_every_option_of_the_library_is_known(schema: str, scheduler: type) -> None:
    options = set(inspect.signature(scheduler.__init__).parameters) - {"self", "sigma_min", "sigma_max"}
    assert options == {*SCHEMAS[schema].model_fields, *UNSUPPORTED_OPTIONS[schema]}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"_class_name": FLOW_MATCHING, "shfit": 3}, {"shfit": "shift"}),
        ({"_class_name": FLOW_MATCHING, "shfit": 3, "shift": 3}, {}),  # one that is there is not meant
        ({"_class_name": EULER, "beta_strat": 1, "_diffusers_version": "0.1"}, {"beta_strat": "beta_start"}),
        ({"_class_name": EULER, "clip_sample": False}, {}),
        ({"_class_name": "Unknown", "shfit": 3}, {}),
        ({"shfit": 3}, {}),
    ],
)
def test_misspelt_options(config: dict[str, Any], expected: dict[str, str]) -> None:
    assert find_misspelt_options(config) == expected


# ---------------------------------------------------------------- pipelines that use their scheduler in another way


class OwnSigmas(DefaultHost):
    passes_sigmas = False


class NoiseHost(DefaultHost):
    scheduler_class = "EulerDiscreteScheduler"
    floors_image_steps = True


@pytest.mark.parametrize("config", [{"shift": 3.0}, {"shift": 1.0}, {"use_dynamic_shifting": True}])
def test_sigmas_that_the_scheduler_chooses_equal_diffusers(config: dict[str, Any]) -> None:
    for steps in (1, 2, 7, 28):
        expected = FlowMatchEulerDiscreteScheduler(**config)
        expected.set_timesteps(steps, mu=calculate_shift(1000) if config.get("use_dynamic_shifting") else None)
        schedule = make_schedule(dict(expected.config), steps, 1000, OwnSigmas())
        assert schedule.sigmas == pytest.approx(expected.sigmas.numpy(), abs=1e-6)
        assert schedule.timesteps == pytest.approx(expected.timesteps.numpy(), abs=1e-3)


def test_a_single_step_cannot_end_at_a_terminal_sigma() -> None:
    with pytest.raises(UserError, match=r"Invalid number of steps 1: .*at least 2\. Choose more"):
        make_schedule({"shift_terminal": 0.02}, 1, 64)


@pytest.mark.parametrize("steps", [-1, 0, 10_001])
def test_a_number_of_steps_out_of_range_is_refused_with_the_range(steps: int) -> None:
    with pytest.raises(UserError, match=rf"^Invalid number of steps {steps}\. Give a whole number from 1 to 10000\.$"):
        make_schedule({}, steps, 64)


EULER_CONFIGS: list[dict[str, Any]] = [
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "timestep_spacing": "leading"}
    | {"steps_offset": 1},
    {"timestep_spacing": "trailing", "beta_schedule": "scaled_linear"},
    {"timestep_spacing": "linspace", "prediction_type": "v_prediction"},
    {"prediction_type": "sample", "final_sigmas_type": "sigma_min", "num_train_timesteps": 500},
]


@pytest.mark.parametrize("config", EULER_CONFIGS)
def test_schedules_of_noise_equal_diffusers(config: dict[str, Any]) -> None:
    for steps in (1, 4, 25):
        expected: Any = EulerDiscreteScheduler(**config)
        expected.set_timesteps(steps)
        schedule = make_schedule(dict(expected.config), steps, 0, NoiseHost())
        assert schedule.sigmas == pytest.approx(expected.sigmas.numpy(), rel=1e-4, abs=1e-6)
        assert schedule.timesteps == pytest.approx(expected.timesteps.numpy(), abs=1e-3)
        assert schedule.noise_scale == pytest.approx(float(expected.init_noise_sigma), rel=1e-4)
        generator = torch.Generator().manual_seed(0)
        latents = torch.randn(1, 4, 8, 8, generator=generator) * expected.init_noise_sigma
        actual = latents.numpy()
        for index, timestep in enumerate(expected.timesteps):
            output = torch.randn(1, 4, 8, 8, generator=generator)
            scaled = expected.scale_model_input(latents, timestep)
            np.testing.assert_allclose(schedule.scale_input(actual, index), scaled, rtol=1e-3, atol=1e-4)
            latents = expected.step(output, timestep, latents).prev_sample
            actual = schedule.step(actual, output.numpy(), index)
            np.testing.assert_allclose(actual, latents, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("strength", [0.05, 0.3, 0.5, 0.58, 0.7, 1.0])
@pytest.mark.parametrize("steps", [1, 5, 50])
@pytest.mark.parametrize("pipeline", [StableDiffusion3Img2ImgPipeline, StableDiffusionXLImg2ImgPipeline])
def test_an_image_leaves_the_steps_and_gets_the_noise_of_diffusers(pipeline: Any, steps: int, strength: float) -> None:
    is_noise = pipeline is StableDiffusionXLImg2ImgPipeline
    scheduler: Any = EulerDiscreteScheduler(**EULER_CONFIGS[0]) if is_noise else FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(steps)
    user = NoiseHost() if is_noise else OwnSigmas()
    schedule = skip_steps(make_schedule(dict(scheduler.config), steps, 0, user), strength, user.floors_image_steps)
    timesteps, count = pipeline.get_timesteps(SimpleNamespace(scheduler=scheduler), steps, strength, "cpu")
    if not count:  # diffusers would fail, as no step is left
        assert len(schedule.timesteps) == 1
        return
    assert schedule.timesteps == pytest.approx(timesteps.numpy(), abs=1e-3)
    latents, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    if is_noise:
        expected = scheduler.add_noise(latents, noise, timesteps[:1])
    else:
        expected = scheduler.scale_noise(latents, timesteps[:1], noise)
    np.testing.assert_allclose(schedule.add_noise(latents.numpy(), noise.numpy()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "EulerAncestralDiscreteScheduler"}, "Unsupported scheduler 'EulerAncestralDiscreteScheduler'"),
        ({"use_karras_sigmas": True}, "Unsupported scheduler option use_karras_sigmas"),
        ({"beta_schedule": "squaredcos_cap_v2"}, "Invalid scheduler config: beta_schedule"),
    ],
)
def test_unsupported_schedules_of_noise_are_refused_by_name(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_schedule(config, 4, 0, NoiseHost())
