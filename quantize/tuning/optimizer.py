"""Adam with a rate for each tensor, whose state is plain tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

BETA1, BETA2 = 0.9, 0.99
EPSILON = 1e-12  # gradients of a mean over all outputs are small
WARMUP_STEPS = 20


@dataclass
class Adam:
    """Adam (Kingma and Ba, arXiv 1412.6980), with a rate for each tensor.

    Attributes:
        parameters: What is trained, by name; changed in place.
        rates: The rate of each.
        moments: Means of gradients.
        squares: Means of squared gradients.
        step: Number of steps taken.
    """

    parameters: Mapping[str, Tensor]
    rates: Mapping[str, float]
    moments: dict[str, Tensor] = field(default_factory=dict)
    squares: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0

    @classmethod
    def create(cls, parameters: Mapping[str, Tensor], rate: float, fixed_rates: Mapping[str, float]) -> Adam:
        """Begins with rates that are a share of each tensor's mean |value|, but for tensors with a fixed one."""
        rates = {name: rate * float(tensor.abs().mean()) for name, tensor in parameters.items()}
        rates |= fixed_rates
        moments, squares = ({name: torch.zeros_like(tensor) for name, tensor in parameters.items()} for _ in range(2))
        return cls(parameters, rates, moments, squares)

    def update(self, gradients: Mapping[str, Tensor], factor: float) -> None:
        """Takes one step.

        Args:
            gradients: By name.
            factor: Of the rates, from the schedule.
        """
        self.step += 1
        scale1, scale2 = 1 - BETA1**self.step, 1 - BETA2**self.step
        for name, parameter in self.parameters.items():
            gradient, moment, square = gradients[name], self.moments[name], self.squares[name]
            moment.mul_(BETA1).add_(gradient, alpha=1 - BETA1)
            square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
            denominator = (square / scale2).sqrt_().add_(EPSILON)
            parameter.addcdiv_(moment, denominator, value=-self.rates[name] * factor / scale1)


def cosine_factor(step: int, total: int) -> float:
    """Returns the factor of the rates in a step: rising linearly in the first steps, then half a cosine down.

    Args:
        step: From 1.
        total: Number of steps.
    """
    warmup = min(WARMUP_STEPS, total // 2)
    if step <= warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - 1 - warmup) / (total - warmup)))
