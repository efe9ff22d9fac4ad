"""Activations in 8 bits as devices round them, and what that and a rounded weight cost a linear's outputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ..recipe import Scheme
from .awq import round_to_nearest

LARGEST = 127  # the code -128 is not used: the range is symmetric
SMALLEST = 1e-30  # zeros alone still get a scale that is not zero

Rounding = Literal["float", "dynamic", "static"]


def per_token(x: Tensor) -> Tensor:
    """Tokens (..., channels), each rounded to multiples of its largest |x| over 127."""
    scales = x.abs().amax(-1, keepdim=True).clamp(min=SMALLEST) / LARGEST
    return torch.round(x / scales) * scales


def per_tensor(x: Tensor, scale: float) -> Tensor:
    """Values rounded to multiples of a scale, up to 127 of it."""
    return torch.round(x / scale).clamp(-LARGEST, LARGEST) * scale


@dataclass(frozen=True)
class Activations:
    """What some linears read.

    tokens: some of it, (n, in) float32. largest: the largest |x| of each channel over all tokens, (in,). how: on a
    scale of each token (`dynamic`), on one for all tokens (`static`), or not at all.
    """

    tokens: Tensor
    largest: Tensor
    how: Rounding

    @property
    def scale(self) -> float:
        """The static scale, under which no token of the calibration is cut off."""
        return max(float(self.largest.max()), SMALLEST) / LARGEST

    @cached_property
    def rounded(self) -> Tensor:
        """The tokens as a device multiplies with them, (n, in)."""
        if self.how == "float":
            return self.tokens
        return per_token(self.tokens) if self.how == "dynamic" else per_tensor(self.tokens, self.scale)

    def divided(self, scale: Tensor) -> Activations:
        """The same with every channel divided by its scale, (in,)."""
        return Activations(self.tokens / scale, self.largest / scale, self.how)

    def error(self, weight: Tensor, rounded: Tensor) -> float:
        """The power that rounding a weight (out, in) and its inputs costs, as a share of the outputs' power."""
        exact = self.tokens @ weight.T
        power = _power(exact)
        return _power(self.rounded @ rounded.T - exact) / power if power else 0.0

    def rounding_error(self, weight: Tensor, scheme: Scheme) -> float:
        """The same where the weight is rounded to the nearest."""
        return self.error(weight, round_to_nearest(weight, scheme))


def _power(values: Tensor) -> float:
    """The sum of squares of (n, out); added in one order by any number of threads."""
    return float(values.square().sum(0, dtype=torch.float64).sum())
