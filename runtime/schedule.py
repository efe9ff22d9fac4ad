"""A denoising schedule, whichever scheduler it is of."""

from __future__ import annotations

from dataclasses import dataclass

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

    def step(self, latents: Latents, velocity: Latents, index: int) -> Latents:
        """Returns the latents after step `index`: x + (sigma' - sigma) v."""
        output: Latents = latents + (self.sigmas[index + 1] - self.sigmas[index]) * velocity
        return output
