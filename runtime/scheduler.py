"""The denoising steps of a flow-matching pipeline: sigmas, timesteps, and Euler's step along the velocity.

The numbers are those of diffusers' FlowMatchEulerDiscreteScheduler when a pipeline gives it the sigmas 1 ... 1/steps
and, for shifting by the picture's size, mu.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.errors import UserError

# Ways to space the sigmas that no pipeline here was published with.
UNSUPPORTED_OPTIONS = (
    "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "invert_sigmas", "stochastic_sampling",
)  # fmt: skip


@dataclass(frozen=True)
class Schedule:
    """sigmas (steps + 1,), the last one 0, and timesteps (steps,); float32."""

    sigmas: NDArray[np.float32]
    timesteps: NDArray[np.float32]

    def step(self, latents: NDArray[np.float32], velocity: NDArray[np.float32], number: int) -> NDArray[np.float32]:
        """The latents after step `number`: x + (σ' - σ) v."""
        following: NDArray[np.float32] = latents + (self.sigmas[number + 1] - self.sigmas[number]) * velocity
        return following


def make_schedule(config: Mapping[str, Any], steps: int, image_tokens: int) -> Schedule:
    """The schedule that a scheduler's config gives for a picture of so many tokens.

    Raises:
        UserError: the config asks for a spacing that is not known here.
    """
    _check_config(config)
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
    """The shift of a picture: e^mu or mu, where mu is linear in the number of tokens."""
    base, most = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    mu = base + (most - base) * (image_tokens - few) / (many - few)
    return math.exp(mu) if config.get("time_shift_type", "exponential") == "exponential" else float(mu)


def _check_config(config: Mapping[str, Any]) -> None:
    name = config.get("_class_name", "FlowMatchEulerDiscreteScheduler")
    unsupported = [key for key in UNSUPPORTED_OPTIONS if config.get(key)]
    if name != "FlowMatchEulerDiscreteScheduler" or unsupported:
        what = ", ".join(unsupported) or name
        raise UserError(f"The scheduler's config asks for {what}, which the runtime cannot do; paint with diffusers.")
