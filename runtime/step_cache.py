"""A step cache: denoising steps whose velocity would hardly change take that of an earlier step.

Graphs are whole, so the decision rests on what surrounds them: how much the velocity changed for each change of the
latents between the last two steps that were computed, times how much the latents have changed since, in sums of
magnitudes. That criterion is EasyCache's (Zhou et al., 2025, arXiv:2507.02860); TeaCache (arXiv:2411.19108) adds up
such changes too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..common.errors import UserError

Array = NDArray[np.float32]

MIN_STEPS = 4  # of which one can take an earlier velocity: the first two and the last are computed


def check_step_cache(threshold: float, num_steps: int) -> None:
    """Checks that a step cache can have an effect.

    Args:
        threshold: That of the cache; 0 for none.
        num_steps: Number of steps that are done; from an image these are fewer than were requested.

    Raises:
        UserError: Every step is computed anyway.
    """
    if threshold and num_steps < MIN_STEPS:
        raise UserError(
            "The step cache has no effect: the first two steps and the last are always computed, and there are "
            f"{num_steps} in all. Leave it out, or choose more steps."
        )


@dataclass
class StepCache:
    """Velocities of one image, of which some are reused.

    Attributes:
        threshold: Largest relative change of the velocity, as predicted and added up since it was computed; 0 reuses
            none.
        num_reused: Steps so far that took an earlier velocity.
    """

    threshold: float
    num_reused: int = 0
    _inputs: list[Array] = field(default_factory=list)  # latents of the last two computed steps
    _velocities: list[Array] = field(default_factory=list)  # and their velocities
    _previous: Array | None = None  # latents of the last step, computed or not
    _change: float = 0.0  # predicted since the last computed step

    def get_velocity(self, latents: Array, is_last: bool, predict: Callable[[], Array]) -> Array:
        """Returns the velocity of a step.

        Args:
            latents: The latents before the step.
            is_last: Whether it is the last step, which is always computed.
            predict: Computes the velocity.
        """
        if self.threshold and not is_last and self._predicts_small_change(latents):
            self.num_reused += 1
            velocity = self._velocities[-1]
        else:
            velocity = predict()
            self._inputs = [*self._inputs[-1:], latents]
            self._velocities = [*self._velocities[-1:], velocity]
            self._change = 0.0
        self._previous = latents
        return velocity

    def _predicts_small_change(self, latents: Array) -> bool:
        if len(self._velocities) < 2 or self._previous is None:
            return False
        moved = _sum_magnitudes(self._inputs[1] - self._inputs[0])
        rate = _sum_magnitudes(self._velocities[1] - self._velocities[0]) / moved if moved else np.inf
        self._change += rate * _sum_magnitudes(latents - self._previous) / _sum_magnitudes(self._velocities[1])
        return self._change < self.threshold


def _sum_magnitudes(values: Array) -> float:
    return float(np.abs(values).sum(dtype=np.float64)) or float(np.finfo(np.float32).tiny)
