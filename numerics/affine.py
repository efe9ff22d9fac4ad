"""The affine grid: w = (q - z) * s over groups of input channels, with codes of 4 or 8 bits.

Everything here works on plain tensors: no modules, no files. Weights are (out, in) as in `nn.Linear`; codes are
(out, in) uint8; scales and zero points are (out, groups), group g being input channels
g * group_size ... (g + 1) * group_size - 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MIN_SCALE = 2.0**-24  # fp16's smallest subnormal: a group of zeros still gets a scale that is not zero


class QParams(NamedTuple):
    """A grid for each group: scales (out, groups) fp16 values held as float32, zeros (out, groups) uint8.

    Codes run from `lowest` to `highest`.
    """

    scales: Tensor
    zero_points: Tensor
    qmin: int = 0
    qmax: int = 15


class QuantizedWeight(NamedTuple):
    """A quantized weight: codes (out, in) uint8 and the grid that they stand on."""

    codes: Tensor
    qparams: QParams


def choose_qparams(
    low: Tensor, high: Tensor, zero_point: bool = True, bits: int = 4, narrow_range: bool = False
) -> QParams:
    """The grid that covers [low, high] and 0, with scales that fp16 can hold.

    Args:
        low, high: smallest and largest weight of each group, (out, groups).
        zero_point: False puts every zero point in the middle, at 8 (128 with 8 bits), and covers
            -max|w| ... 7/8 max|w| or more.
        narrow: without zero point and without the lowest code: the scale is max|w| / 7 (127).

    The range includes 0, unlike AutoAWQ's: a group of weights in [0.5, 1] would otherwise come back constant.
    """
    low, high = low.float().clamp(max=0), high.float().clamp(min=0)
    highest = 2**bits - 1
    middle = 2 ** (bits - 1)
    if zero_point and not narrow_range:
        scales = _round_to_fp16((high - low) / highest)
        zeros = torch.round(-low / scales).clamp(0, highest)
    else:
        below = middle - 1 if narrow_range else middle
        exact = torch.maximum(-low / below, high / (middle - 1))
        # Narrow scales are rounded down: the largest weight must reach the end, by which readers find the scale.
        scales = _round_to_fp16(exact, round_down=narrow_range)
        zeros = torch.full_like(scales, middle)
    return QParams(scales, zeros.to(torch.uint8), int(narrow_range), highest)


def minmax_qparams(
    weight: Tensor, group_size: int, zero_point: bool = True, bits: int = 4, narrow_range: bool = False
) -> QParams:
    """The min-max grid of a weight (out, in)."""
    groups = to_groups(weight, group_size)
    return choose_qparams(groups.amin(-1), groups.amax(-1), zero_point, bits, narrow_range)


def quantize(weight: Tensor, qparams: QParams) -> QuantizedWeight:
    """The nearest codes of a weight (out, in) on a grid."""
    groups = to_groups(weight, weight.shape[1] // qparams.scales.shape[1]).float()
    codes = torch.round(groups / qparams.scales[..., None]) + qparams.zero_points[..., None]
    return QuantizedWeight(codes.clamp(qparams.qmin, qparams.qmax).to(torch.uint8).reshape(weight.shape), qparams)


def dequantize(quantized: QuantizedWeight) -> Tensor:
    """The weight (out, in) in float32 that the codes stand for."""
    codes, grid = quantized
    groups = to_groups(codes, codes.shape[1] // grid.scales.shape[1]).float()
    return ((groups - grid.zero_points[..., None].float()) * grid.scales[..., None]).reshape(codes.shape)


def to_groups(weight: Tensor, group_size: int) -> Tensor:
    """View (out, in) as (out, groups, group_size).

    Raises:
        ValueError: the group size does not divide the input width.
    """
    if weight.shape[1] % group_size:
        raise ValueError(f"group size {group_size} does not divide the input width {weight.shape[1]}")
    return weight.reshape(weight.shape[0], -1, group_size)


def _round_to_fp16(scales: Tensor, round_down: bool = False) -> Tensor:
    """Scales rounded to fp16, so that what is measured is what is stored; never 0, never infinite."""
    exact = scales.clamp(MIN_SCALE, torch.finfo(torch.float16).max)
    stored = exact.to(torch.float16)
    if round_down:
        stored = torch.where(stored.float() > exact, torch.nextafter(stored, torch.zeros_like(stored)), stored)
    return stored.float()
