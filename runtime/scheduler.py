"""The denoising schedule of a flow-matching pipeline: sigmas, timesteps, and Euler steps along the velocity.

The values are those of FlowMatchEulerDiscreteScheduler of diffusers when a pipeline passes it the sigmas 1 to 1/steps
and, for dynamic shifting, mu.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.errors import UserError
from ..recipes.presets import MAX_STEPS
from .scheduler_config import compute_shift, read_scheduler_config


@dataclass(frozen=True)
class Schedule:
    """A denoising schedule.

    Attributes:
        sigmas: Noise levels, (steps + 1,); the last one is 0.
        timesteps: Timesteps of the denoiser, (steps,).
    """

    sigmas: NDArray[np.float32]
    timesteps: NDArray[np.float32]

    def step(self, latents: NDArray[np.float32], velocity: NDArray[np.float32], index: int) -> NDArray[np.float32]:
        """Returns the latents after step `index`: x + (sigma' - sigma) v."""
        output: NDArray[np.float32] = latents + (self.sigmas[index + 1] - self.sigmas[index]) * velocity
        return output


def make_schedule(config: Mapping[str, Any], steps: int, image_tokens: int) -> Schedule:
    """Makes a schedule.

    Args:
        config: Config of the scheduler.
        steps: Number of denoising steps.
        image_tokens: Number of image tokens, for dynamic shifting.

    Raises:
        UserError: The config names another scheduler, an unsupported option or an invalid value, or there are too many
            steps.
    """
    settings = read_scheduler_config(config)
    if not 1 <= steps <= MAX_STEPS:
        raise UserError(f"Invalid number of steps {steps}: it must be 1 to {MAX_STEPS}. Choose fewer.")
    sigmas = np.linspace(1, 1 / steps, steps, dtype=np.float32)
    shift = compute_shift(settings, image_tokens) if settings.use_dynamic_shifting else settings.shift
    sigmas = _shift_sigmas(sigmas, shift)
    if settings.shift_terminal:
        sigmas = 1 - (1 - sigmas) * ((1 - settings.shift_terminal) / (1 - sigmas[-1]))
    sigmas = sigmas.astype(np.float32)
    return Schedule(np.append(sigmas, np.float32(0)), sigmas * np.float32(settings.num_train_timesteps))


def _shift_sigmas(sigmas: NDArray[np.float32], shift: float) -> NDArray[np.float32]:
    return np.float32(shift) * sigmas / (1 + np.float32(shift - 1) * sigmas)
