"""A denoising schedule, whichever scheduler it is of."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Latents = NDArray[np.float32]


@dataclass(frozen=True)
class Schedule:
    """A denoising schedule of flow matching.

    Attributes:
        sigmas: Noise levels, (steps + 1,); the last one is 0, or almost.
        timesteps: Timesteps of the denoiser, (steps,).
    """

    sigmas: NDArray[np.float32]
    timesteps: NDArray[np.float32]

    @property
    def noise_scale(self) -> np.float32:
        """The standard deviation of the noise that denoising begins with."""
        return np.float32(1)

    def scale_input(self, latents: Latents, index: int) -> Latents:  # noqa: ARG002  other schedules depend on it
        """Returns the latents as the denoiser takes them in step `index`."""
        return latents

    def add_noise(self, latents: Latents, noise: Latents) -> Latents:
        """Returns latents with the noise that they have before the first step: (1 - sigma) x + sigma n."""
        output: Latents = self.sigmas[0] * noise + (np.float32(1) - self.sigmas[0]) * latents
        return output

    def step(self, latents: Latents, velocity: Latents, index: int) -> Latents:
        """Returns the latents after step `index`: x + (sigma' - sigma) v."""
        output: Latents = latents + (self.sigmas[index + 1] - self.sigmas[index]) * velocity
        return output


def skip_steps(schedule: Schedule, strength: float, floors_steps: bool = False) -> Schedule:
    """Returns the part of a schedule that is done from an image, as the pipelines of diffusers choose it.

    Args:
        schedule: A schedule.
        strength: How much of it is done, above 0 to 1; at least its last step is.
        floors_steps: Whether the number of steps that are done is rounded down; otherwise that of skipped ones is.
    """
    steps = len(schedule.timesteps)
    skipped = min(steps - int(steps * strength) if floors_steps else int(steps - steps * strength), steps - 1)
    return replace(schedule, sigmas=schedule.sigmas[skipped:], timesteps=schedule.timesteps[skipped:])
