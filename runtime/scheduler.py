"""The denoising schedule of a flow-matching pipeline: sigmas, timesteps, and Euler steps along the velocity.

The values are those of FlowMatchEulerDiscreteScheduler of diffusers when a pipeline passes it the sigmas 1 to 1/steps
and, for dynamic shifting, mu.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.errors import UserError
from ..recipes.schema import MAX_STEPS

SCHEDULER_CLASS = "FlowMatchEulerDiscreteScheduler"
# Options of the scheduler's config that no supported pipeline was published with.
UNSUPPORTED_OPTIONS = (
    "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "invert_sigmas", "stochastic_sampling",
)  # fmt: skip


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
        UserError: The config names another scheduler, or an unsupported option, or there are too many steps.
    """
    _check_config(config)
    if not 1 <= steps <= MAX_STEPS:
        raise UserError(f"Invalid number of steps {steps}: it must be 1 to {MAX_STEPS}. Choose fewer.")
    sigmas = np.linspace(1, 1 / steps, steps, dtype=np.float32)
    if config.get("use_dynamic_shifting", False):
        sigmas = _shift_sigmas(sigmas, _compute_shift(config, image_tokens))
    else:
        sigmas = _shift_sigmas(sigmas, config.get("shift", 1.0))
    if config.get("shift_terminal"):
        sigmas = 1 - (1 - sigmas) * ((1 - config["shift_terminal"]) / (1 - sigmas[-1]))
    sigmas = sigmas.astype(np.float32)
    return Schedule(np.append(sigmas, np.float32(0)), sigmas * np.float32(config.get("num_train_timesteps", 1000)))


def _shift_sigmas(sigmas: NDArray[np.float32], shift: float) -> NDArray[np.float32]:
    return np.float32(shift) * sigmas / (1 + np.float32(shift - 1) * sigmas)


def _compute_shift(config: Mapping[str, Any], image_tokens: int) -> float:
    """Returns the shift of an image: e^mu or mu, where mu is linear in the number of image tokens."""
    base_shift, max_shift = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    base_tokens, max_tokens = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    mu = base_shift + (max_shift - base_shift) * (image_tokens - base_tokens) / (max_tokens - base_tokens)
    return math.exp(mu) if config.get("time_shift_type", "exponential") == "exponential" else float(mu)


def _check_config(config: Mapping[str, Any]) -> None:
    name = config.get("_class_name", SCHEDULER_CLASS)
    options = [key for key in UNSUPPORTED_OPTIONS if config.get(key)]
    if name != SCHEDULER_CLASS or options:
        what = f"option {', '.join(options)}" if options else str(name)
        raise UserError(f"Unsupported scheduler {what}. Generate images with diffusers instead.")
