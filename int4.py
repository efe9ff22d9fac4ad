"""The affine 4-bit grid: w = (q - z) * s, groups of input channels; and the packed layouts that hold it.

Everything here works on plain tensors: no modules, no files. Weights are (out, in) as in `nn.Linear`; codes are
(out, in) uint8 in 0..15; scales and zero points are (out, groups), group g being input channels
g * group_size ... (g + 1) * group_size - 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LEVELS = 15  # the largest code
SYMMETRIC_ZERO = 8
# Nibble i of an AWQ int32 holds output channel 8 k + AWQ_ORDER[i] (AutoAWQ, packing of WQLinear_GEMM).
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
SMALLEST_SCALE = 2.0**-24  # fp16's smallest subnormal: a group of zeros still gets a scale that is not zero


class Grid(NamedTuple):
    """A grid for each group: scales (out, groups) fp16 values held as float32, zeros (out, groups) uint8."""

    scales: Tensor
    zeros: Tensor


class Codes(NamedTuple):
    """A quantized weight: codes (out, in) uint8 and the grid that they stand on."""

    codes: Tensor
    grid: Grid


def grid_of(low: Tensor, high: Tensor, zero_point: bool = True) -> Grid:
    """The grid that covers [low, high] and 0, with scales that fp16 can hold.

    Args:
        low, high: smallest and largest weight of each group, (out, groups).
        zero_point: False puts the zero point at 8 for every group and covers -max|w| ... 7/8 max|w| or more.

    The range includes 0, unlike AutoAWQ's: a group of weights in [0.5, 1] would otherwise come back constant.
    """
    low, high = low.float().clamp(max=0), high.float().clamp(min=0)
    if zero_point:
        scales = _storable((high - low) / LEVELS)
        zeros = torch.round(-low / scales).clamp(0, LEVELS)
    else:
        scales = _storable(torch.maximum(-low / SYMMETRIC_ZERO, high / (LEVELS - SYMMETRIC_ZERO)))
        zeros = torch.full_like(scales, SYMMETRIC_ZERO)
    return Grid(scales, zeros.to(torch.uint8))


def grid_for(weight: Tensor, group_size: int, zero_point: bool = True) -> Grid:
    """The min-max grid of a weight (out, in)."""
    groups = grouped(weight, group_size)
    return grid_of(groups.amin(-1), groups.amax(-1), zero_point)


def quantize(weight: Tensor, grid: Grid) -> Codes:
    """The nearest codes of a weight (out, in) on a grid."""
    groups = grouped(weight, weight.shape[1] // grid.scales.shape[1]).float()
    codes = torch.round(groups / grid.scales[..., None]) + grid.zeros[..., None]
    return Codes(codes.clamp(0, LEVELS).to(torch.uint8).reshape(weight.shape), grid)


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


def bits_per_weight(group_size: int) -> float:
    """Stored bits a weight in AWQ's layout: 4, and for each group an fp16 scale and a zero point of 4 bits.

    The layout holds zero points even where all of them are 8.
    """
    return 4 + (16 + 4) / group_size


# ---------------------------------------------------------------- AutoAWQ GEMM layout


class AwqTensors(NamedTuple):
    """AutoAWQ's GEMM layout: qweight int32 (in, out / 8), qzeros int32 (groups, out / 8), scales fp16 (groups, out)."""

    qweight: Tensor
    qzeros: Tensor
    scales: Tensor


def pack_awq(quantized: Codes) -> AwqTensors:
    """The tensors that AutoAWQ's GEMM kernels read.

    Raises:
        ValueError: the output width is not a multiple of 8.
    """
    codes, grid = quantized
    return AwqTensors(
        qweight=pack_nibbles(codes.T),
        qzeros=pack_nibbles(grid.zeros.T),
        scales=grid.scales.T.to(torch.float16).contiguous(),
    )


def unpack_awq(packed: AwqTensors) -> Codes:
    """The codes and grid of a packed weight; the exact inverse of `pack_awq`."""
    zeros = unpack_nibbles(packed.qzeros).T.contiguous()
    grid = Grid(packed.scales.T.float().contiguous(), zeros)
    return Codes(unpack_nibbles(packed.qweight).T.contiguous(), grid)


def pack_nibbles(values: Tensor) -> Tensor:
    """(rows, columns) uint8 in 0..15 to (rows, columns / 8) int32, nibbles in AWQ's order."""
    if values.shape[1] % 8:
        raise ValueError(f"output width {values.shape[1]} is not a multiple of 8, which AWQ's layout needs")
    eights = values.reshape(values.shape[0], -1, 8).to(torch.int64)
    packed = torch.zeros(eights.shape[:2], dtype=torch.int64, device=values.device)
    for nibble, channel in enumerate(AWQ_ORDER):
        packed |= eights[..., channel] << (4 * nibble)
    return packed.to(torch.int32)


def unpack_nibbles(packed: Tensor) -> Tensor:
    """The exact inverse of `pack_nibbles`."""
    values = torch.empty(*packed.shape, 8, dtype=torch.uint8, device=packed.device)
    for nibble, channel in enumerate(AWQ_ORDER):
        values[..., channel] = ((packed >> (4 * nibble)) & LEVELS).to(torch.uint8)
    return values.reshape(packed.shape[0], -1)


def _storable(scales: Tensor) -> Tensor:
    """Scales rounded to fp16, so that what is measured is what is stored; never 0, never infinite."""
    limit = torch.finfo(torch.float16).max
    return scales.clamp(SMALLEST_SCALE, limit).to(torch.float16).float()
