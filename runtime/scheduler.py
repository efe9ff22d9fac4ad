"""The denoising schedule of a flow-matching pipeline: sigmas, timesteps, and Euler steps along the velocity.

The values are those of FlowMatchEulerDiscreteScheduler of diffusers, used as the pipeline uses it. Pipelines that
predict noise have the schedule of `euler_scheduler`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..common.errors import UserError
from ..models.base.default_host import DefaultHost
from ..recipes.presets import MAX_STEPS
from .euler_scheduler import make_euler_schedule
from .schedule import Schedule
from .scheduler_config import EULER, SchedulerConfig, compute_shift, read_scheduler_config, require_two_ends


class SchedulerUser(Protocol):
    """What of a `Host` the schedule depends on."""

    scheduler_class: str
    passes_sigmas: bool

    def compute_mu(self, image_tokens: int, steps: int) -> float | None:
        """Returns the shift that the pipeline gives its scheduler; None: the one that the scheduler's config says."""


def make_schedule(
    config: Mapping[str, Any], steps: int, image_tokens: int, user: SchedulerUser | None = None
) -> Schedule:
    """Makes a schedule.

    Args:
        config: Config of the scheduler.
        steps: Number of denoising steps.
        image_tokens: Number of image tokens, for dynamic shifting.
        user: The host of the pipeline; None: a pipeline that does what most do.

    Raises:
        UserError: The config names another scheduler, an unsupported option or an invalid value, or there are too many
            steps.
    """
    user = user or DefaultHost()
    if not 1 <= steps <= MAX_STEPS:
        raise UserError(f"Invalid number of steps {steps}. Give a whole number from 1 to {MAX_STEPS}.")
    if user.scheduler_class == EULER:
        return make_euler_schedule(config, steps)
    settings = read_scheduler_config(config)
    require_two_ends(config, steps)
    is_dynamic = settings.use_dynamic_shifting
    mu = user.compute_mu(image_tokens, steps) if is_dynamic else None
    shift = compute_shift(settings, image_tokens, mu) if is_dynamic else settings.shift
    sigmas = np.linspace(1, 1 / steps, steps, dtype=np.float32) if user.passes_sigmas else _space(settings, steps)
    sigmas = _shift_sigmas(sigmas, shift)
    if settings.shift_terminal:
        sigmas = 1 - (1 - sigmas) * ((1 - settings.shift_terminal) / (1 - sigmas[-1]))
    sigmas = sigmas.astype(np.float32)
    return Schedule(np.append(sigmas, np.float32(0)), sigmas * np.float32(settings.num_train_timesteps))


def _space(settings: SchedulerConfig, steps: int) -> NDArray[np.floating[Any]]:
    """Spaces sigmas evenly between the largest and the smallest that the scheduler has, which a static shift moved."""
    ends = np.array([1, 1 / settings.num_train_timesteps], np.float32)
    if not settings.use_dynamic_shifting:
        ends = _shift_sigmas(ends, settings.shift)
    largest, smallest = (float(end) for end in ends)
    return np.linspace(largest, smallest, steps)


def _shift_sigmas(sigmas: NDArray[Any], shift: float) -> NDArray[Any]:
    return np.float32(shift) * sigmas / (1 + np.float32(shift - 1) * sigmas)
