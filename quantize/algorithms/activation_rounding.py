"""8-bit activations as devices round them, and what rounding them and a weight costs in a linear's outputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ...numerics.affine import round_to_nearest
from ...numerics.quant_spec import QuantSpec

QMAX = 127  # the code -128 is not used: the range is symmetric
MIN_SCALE = 1e-30  # so that zeros have a scale other than zero

ActivationMode = Literal["none", "dynamic", "static"]


def fake_quantize_per_token(x: Tensor) -> Tensor:
    """Rounds tokens (..., channels) to multiples of 1/127 of each token's largest |x|."""
    scales = x.abs().amax(-1, keepdim=True).clamp(min=MIN_SCALE) / QMAX
    return torch.round(x / scales) * scales


def fake_quantize_per_tensor(x: Tensor, scale: float) -> Tensor:
    """Rounds values to multiples of a scale, clipped to 127 times the scale."""
    return torch.round(x / scale).clamp(-QMAX, QMAX) * scale


@dataclass(frozen=True)
class CalibrationActivations:
    """The input that one or more linears read, as calibration recorded it.

    Attributes:
        tokens: A sample, (n, in) float32.
        abs_max: Largest |x| of each channel over all tokens, (in,).
        mode: `dynamic` rounds with a scale per token, `static` with one scale for all tokens, `none` does not round.
    """

    tokens: Tensor
    abs_max: Tensor
    mode: ActivationMode

    @property
    def scale(self) -> float:
        """The static scale, which clips no token of the calibration."""
        return max(float(self.abs_max.max()), MIN_SCALE) / QMAX

    @cached_property
    def fake_quantized(self) -> Tensor:
        """The tokens as a device multiplies with them, (n, in)."""
        if self.mode == "none":
            return self.tokens
        if self.mode == "dynamic":
            return fake_quantize_per_token(self.tokens)
        return fake_quantize_per_tensor(self.tokens, self.scale)

    def divide_by(self, scale: Tensor) -> CalibrationActivations:
        """Returns the same activations with every channel divided by its scale, (in,)."""
        return CalibrationActivations(self.tokens / scale, self.abs_max / scale, self.mode)

    def output_error(self, weight: Tensor, quantized: Tensor) -> float:
        """Returns the squared output error of rounding the weight and its inputs, relative to the squared output.

        Args:
            weight: The original weight, (out, in).
            quantized: The weight that its codes stand for, (out, in).
        """
        exact = self.tokens @ weight.T
        power = _sum_of_squares(exact)
        return _sum_of_squares(self.fake_quantized @ quantized.T - exact) / power if power else 0.0

    def rtn_error(self, weight: Tensor, spec: QuantSpec) -> float:
        """Returns the output error of a weight (out, in) that is rounded to the nearest codes."""
        return self.output_error(weight, round_to_nearest(weight, spec))


def _sum_of_squares(values: Tensor) -> float:
    """Sums the squares of (n, out), in the same order with any number of threads."""
    return float(values.square().sum(0, dtype=torch.float64).sum())
