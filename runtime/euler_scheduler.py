"""The denoising schedule of pipelines that predict noise: that of EulerDiscreteScheduler of diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .schedule import Latents, Schedule
from .scheduler_config import EulerConfig, read_euler_config


@dataclass(frozen=True)
class EulerSchedule(Schedule):
    """A denoising schedule whose latents grow with the noise.

    Attributes:
        prediction: What the denoiser predicts: `epsilon` is the noise, `v_prediction` a mixture, `sample` the latents.
        starts_between: Whether the first timestep lies before the last one that the model knows.
    """

    prediction: str = "epsilon"
    starts_between: bool = False

    @property
    def noise_scale(self) -> np.float32:
        """The standard deviation of the noise that denoising begins with."""
        largest = self.sigmas.max()
        return np.float32(np.sqrt(largest**2 + 1) if self.starts_between else largest)

    def scale_input(self, latents: Latents, index: int) -> Latents:
        """Returns the latents as the denoiser takes them in step `index`: of variance 1."""
        output: Latents = latents / np.sqrt(self.sigmas[index] ** 2 + 1)
        return output

    def add_noise(self, latents: Latents, noise: Latents) -> Latents:
        """Returns latents with the noise that they have before the first step: x + sigma n."""
        output: Latents = latents + self.sigmas[0] * noise
        return output

    def step(self, latents: Latents, velocity: Latents, index: int) -> Latents:
        """Returns the latents after step `index`, on the line through them and the latents that are predicted."""
        sigma = self.sigmas[index]
        if self.prediction == "epsilon":
            predicted = latents - sigma * velocity
        elif self.prediction == "v_prediction":
            predicted = velocity * (-sigma / np.sqrt(sigma**2 + 1)) + latents / (sigma**2 + 1)
        else:
            predicted = velocity
        output: Latents = latents + (latents - predicted) / sigma * (self.sigmas[index + 1] - sigma)
        return output


def make_euler_schedule(config: Mapping[str, Any], steps: int) -> EulerSchedule:
    """Makes a schedule.

    Args:
        config: Config of the scheduler.
        steps: Number of denoising steps.

    Raises:
        UserError: The config names another scheduler, an unsupported option or an invalid value.
    """
    settings = read_euler_config(config)
    known = _compute_sigmas(settings)
    timesteps = _space_timesteps(settings, steps)
    sigmas = np.interp(timesteps, np.arange(len(known)), known)
    last = known[0] if settings.final_sigmas_type == "sigma_min" else np.float32(0)
    return EulerSchedule(
        np.append(sigmas, last).astype(np.float32),
        timesteps,
        settings.prediction_type,
        settings.timestep_spacing == "leading",
    )


def _compute_sigmas(settings: EulerConfig) -> NDArray[np.float32]:
    """Computes the noise level of every timestep that the model knows."""
    power = 2 if settings.beta_schedule == "scaled_linear" else 1
    first, last = settings.beta_start ** (1 / power), settings.beta_end ** (1 / power)
    betas = np.linspace(first, last, settings.num_train_timesteps).astype(np.float32) ** power
    remaining = np.cumprod((1 - betas).astype(np.float64)).astype(np.float32)
    sigmas: NDArray[np.float32] = np.sqrt((1 - remaining) / remaining)
    return sigmas


def _space_timesteps(settings: EulerConfig, steps: int) -> NDArray[np.float32]:
    count = settings.num_train_timesteps
    if settings.timestep_spacing == "linspace":
        return np.linspace(0, count - 1, steps, dtype=np.float32)[::-1].copy()
    if settings.timestep_spacing == "leading":
        return (np.arange(steps) * (count // steps))[::-1].astype(np.float32) + np.float32(settings.steps_offset)
    return np.arange(count, 0, -count / steps).round().astype(np.float32) - 1
