"""Activations in 8 bits as devices round them, and what that and a rounded weight cost a linear's outputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ...recipes.schema import Scheme
from .rounding import round_to_nearest

QMAX = 127  # the code -128 is not used: the range is symmetric
MIN_SCALE = 1e-30  # zeros alone still get a scale that is not zero

ActivationMode = Literal["float", "dynamic", "static"]


def fake_quantize_per_token(x: Tensor) -> Tensor:
    """Tokens (..., channels), each rounded to multiples of its largest |x| over 127."""
    scales = x.abs().amax(-1, keepdim=True).clamp(min=MIN_SCALE) / QMAX
    return torch.round(x / scales) * scales


def fake_quantize_per_tensor(x: Tensor, scale: float) -> Tensor:
    """Values rounded to multiples of a scale, up to 127 of it."""
    return torch.round(x / scale).clamp(-QMAX, QMAX) * scale


@dataclass(frozen=True)
class CalibrationActivations:
    """What some linears read.

    tokens: some of it, (n, in) float32. largest: the largest |x| of each channel over all tokens, (in,). how: on a
    scale of each token (`dynamic`), on one for all tokens (`static`), or not at all.
    """

    tokens: Tensor
    abs_max: Tensor
    mode: ActivationMode

    @property
    def scale(self) -> float:
        """The static scale, under which no token of the calibration is cut off."""
        return max(float(self.abs_max.max()), MIN_SCALE) / QMAX

    @cached_property
    def fake_quantized(self) -> Tensor:
        """The tokens as a device multiplies with them, (n, in)."""
        if self.mode == "float":
            return self.tokens
        return (
            fake_quantize_per_token(self.tokens)
            if self.mode == "dynamic"
            else fake_quantize_per_tensor(self.tokens, self.scale)
        )

    def divide_by(self, scale: Tensor) -> CalibrationActivations:
        """The same with every channel divided by its scale, (in,)."""
        return CalibrationActivations(self.tokens / scale, self.abs_max / scale, self.mode)

    def output_error(self, weight: Tensor, rounded: Tensor) -> float:
        """The power that rounding a weight (out, in) and its inputs costs, as a share of the outputs' power."""
        exact = self.tokens @ weight.T
        power = _sum_of_squares(exact)
        return _sum_of_squares(self.fake_quantized @ rounded.T - exact) / power if power else 0.0

    def rtn_error(self, weight: Tensor, scheme: Scheme) -> float:
        """The same where the weight is rounded to the nearest."""
        return self.output_error(weight, round_to_nearest(weight, scheme))


def _sum_of_squares(values: Tensor) -> float:
    """The sum of squares of (n, out); added in one order by any number of threads."""
    return float(values.square().sum(0, dtype=torch.float64).sum())
