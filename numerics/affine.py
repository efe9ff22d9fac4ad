"""Affine quantization of weights: w = (q - zero_point) * scale, with one scale and zero point per group.

Every function works on plain tensors. A weight is (out, in), as in `nn.Linear`, and so are its codes (uint8). Scales
and zero points are (out, groups); group g holds the input channels g * group_size ... (g + 1) * group_size - 1.

All functions are elementwise or reduce within a group, so they accept any memory layout and keep it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .quant_spec import QuantSpec

MIN_SCALE = 2.0**-24  # fp16's smallest subnormal, so that a group of zeros has a scale other than zero
PRECISE_SCALE = 2.0**-18  # below, fp16 has fewer than 7 bits
MAX_IMPRECISE_SHARE = 0.01  # of squared scales


class QParams(NamedTuple):
    """Quantization parameters of a weight.

    Attributes:
        scales: (out, groups) float32 that fp16 holds exactly.
        zero_points: (out, groups) uint8.
        qmin: The lowest code in use.
        qmax: The highest code in use.
    """

    scales: Tensor
    zero_points: Tensor
    qmin: int = 0
    qmax: int = 15


class QuantizedWeight(NamedTuple):
    """A quantized weight.

    Attributes:
        codes: (out, in) uint8.
        qparams: The parameters that turn the codes back into values.
    """

    codes: Tensor
    qparams: QParams


def choose_qparams(low: Tensor, high: Tensor, spec: QuantSpec) -> QParams:
    """Chooses the parameters that cover [low, high] and 0.

    Unlike AutoAWQ's, the range always includes 0: without it, a group of weights in [0.5, 1] would become constant.

    Args:
        low: Smallest value of each group, of any shape; usually (out, groups).
        high: Largest value of each group, of the same shape.
        spec: Symmetric formats cover at least [-max|w|, 7/8 max|w|], or [-max|w|, max|w|] with a narrow range.
    """
    low, high = low.float().clamp(max=0), high.float().clamp(min=0)
    qmax = 2**spec.bits - 1
    middle = 2 ** (spec.bits - 1)
    if spec.symmetric:
        below = middle - 1 if spec.narrow_range else middle
        exact = torch.maximum(-low / below, high / (middle - 1))
        # Readers of a narrow range recover the scale from the largest weight, which must therefore reach the last code.
        scales = _round_to_fp16(exact, round_down=spec.narrow_range)
        zero_points = torch.full_like(scales, middle)
    else:
        scales = _round_to_fp16((high - low) / qmax)
        zero_points = torch.round(-low / scales).clamp(0, qmax)
    return QParams(scales, zero_points.to(torch.uint8), int(spec.narrow_range), qmax)


def scales_fit_fp16(exact: Tensor, shift: int = 0) -> bool:
    """Whether fp16 holds the scales of a weight, but for those so small that they hardly count.

    Args:
        exact: The scales before rounding, of any shape.
        shift: The scales are divided by 2 to this power when they are stored.
    """
    largest = float(exact.max()) if exact.numel() else 0.0
    if largest == 0:
        return True
    power = (exact.float() / largest).square()
    imprecise = float(power[exact < PRECISE_SCALE * 2.0**shift].sum() / power.sum())
    return largest <= torch.finfo(torch.float16).max * 2.0**shift and imprecise <= MAX_IMPRECISE_SHARE


def minmax_qparams(weight: Tensor, spec: QuantSpec) -> QParams:
    """Chooses the parameters that cover each group of a weight (out, in) from its minimum to its maximum.

    Raises:
        ValueError: The group size does not divide the input width.
    """
    groups = to_groups(weight, spec.group_size)
    return choose_qparams(groups.amin(-1), groups.amax(-1), spec)


def quantize(weight: Tensor, qparams: QParams) -> QuantizedWeight:
    """Rounds a weight (out, in) to the nearest codes."""
    groups = to_groups(weight, weight.shape[1] // qparams.scales.shape[1]).float()
    codes = torch.round(groups / qparams.scales[..., None]) + qparams.zero_points[..., None]
    return QuantizedWeight(codes.clamp_(qparams.qmin, qparams.qmax).to(torch.uint8).reshape(weight.shape), qparams)


def dequantize(quantized: QuantizedWeight) -> Tensor:
    """Returns the values (out, in) float32 that the codes stand for."""
    codes, qparams = quantized
    groups = to_groups(codes, codes.shape[1] // qparams.scales.shape[1]).float()
    return groups.sub_(qparams.zero_points[..., None]).mul_(qparams.scales[..., None]).reshape(codes.shape)


def round_to_nearest(weight: Tensor, spec: QuantSpec) -> Tensor:
    """Quantizes a weight (out, in) with min-max parameters and dequantize it: what RTN makes of it, in float32."""
    return dequantize(quantize(weight, minmax_qparams(weight, spec)))


def to_groups(weight: Tensor, group_size: int) -> Tensor:
    """Views (out, in) as (out, groups, group_size).

    Raises:
        ValueError: The group size does not divide the input width.
    """
    if weight.shape[1] % group_size:
        raise ValueError(f"group size {group_size} does not divide the input width {weight.shape[1]}")
    return weight.reshape(weight.shape[0], -1, group_size)


def _round_to_fp16(scales: Tensor, round_down: bool = False) -> Tensor:
    """Rounds scales to fp16, so that what is measured is what is stored. Never returns 0 or infinity."""
    exact = scales.clamp(MIN_SCALE, torch.finfo(torch.float16).max)
    rounded = exact.to(torch.float16)
    if round_down:
        rounded = torch.where(rounded.float() > exact, torch.nextafter(rounded, torch.zeros_like(rounded)), rounded)
    return rounded.float()
