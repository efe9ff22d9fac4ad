"""The affine grid: w = (q - z) * s over groups of input channels, with codes of 4 or 8 bits.

Everything here works on plain tensors: no modules, no files. Weights are (out, in) as in `nn.Linear`; codes are
(out, in) uint8; scales and zero points are (out, groups), group g being input channels
g * group_size ... (g + 1) * group_size - 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SMALLEST_SCALE = 2.0**-24  # fp16's smallest subnormal: a group of zeros still gets a scale that is not zero


class Grid(NamedTuple):
    """A grid for each group: scales (out, groups) fp16 values held as float32, zeros (out, groups) uint8.

    Codes run from `lowest` to `highest`.
    """

    scales: Tensor
    zeros: Tensor
    lowest: int = 0
    highest: int = 15


class Codes(NamedTuple):
    """A quantized weight: codes (out, in) uint8 and the grid that they stand on."""

    codes: Tensor
    grid: Grid


def grid_of(low: Tensor, high: Tensor, zero_point: bool = True, bits: int = 4, narrow: bool = False) -> Grid:
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
    if zero_point and not narrow:
        scales = _storable((high - low) / highest)
        zeros = torch.round(-low / scales).clamp(0, highest)
    else:
        below = middle - 1 if narrow else middle
        exact = torch.maximum(-low / below, high / (middle - 1))
        # Narrow scales are rounded down: the largest weight must reach the end, by which readers find the scale.
        scales = _storable(exact, down=narrow)
        zeros = torch.full_like(scales, middle)
    return Grid(scales, zeros.to(torch.uint8), int(narrow), highest)


def grid_for(weight: Tensor, group_size: int, zero_point: bool = True, bits: int = 4, narrow: bool = False) -> Grid:
    """The min-max grid of a weight (out, in)."""
    groups = grouped(weight, group_size)
    return grid_of(groups.amin(-1), groups.amax(-1), zero_point, bits, narrow)


def quantize(weight: Tensor, grid: Grid) -> Codes:
    """The nearest codes of a weight (out, in) on a grid."""
    groups = grouped(weight, weight.shape[1] // grid.scales.shape[1]).float()
    codes = torch.round(groups / grid.scales[..., None]) + grid.zeros[..., None]
    return Codes(codes.clamp(grid.lowest, grid.highest).to(torch.uint8).reshape(weight.shape), grid)


def dequantize(quantized: Codes) -> Tensor:
    """The weight (out, in) in float32 that the codes stand for."""
    codes, grid = quantized
    groups = grouped(codes, codes.shape[1] // grid.scales.shape[1]).float()
    return ((groups - grid.zeros[..., None].float()) * grid.scales[..., None]).reshape(codes.shape)


def grouped(weight: Tensor, group_size: int) -> Tensor:
    """View (out, in) as (out, groups, group_size).

    Raises:
        ValueError: the group size does not divide the input width.
    """
    if weight.shape[1] % group_size:
        raise ValueError(f"group size {group_size} does not divide the input width {weight.shape[1]}")
    return weight.reshape(weight.shape[0], -1, group_size)


def _storable(scales: Tensor, down: bool = False) -> Tensor:
    """Scales rounded to fp16, so that what is measured is what is stored; never 0, never infinite."""
    exact = scales.clamp(SMALLEST_SCALE, torch.finfo(torch.float16).max)
    stored = exact.to(torch.float16)
    if down:
        stored = torch.where(stored.float() > exact, torch.nextafter(stored, torch.zeros_like(stored)), stored)
    return stored.float()
