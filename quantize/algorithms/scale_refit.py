"""Descent from a rounded weight: scales by least squares, then codes one channel at a time, each a step down.

The output error tr(E^T H E) is a quadratic function of each group's scale and of each code while all others stay; both
are moved to its minimum (on fp16 scales and whole codes) in turn, group after group.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...numerics.affine import QParams
from .rounding import Rounded

BLOCK_SIZE = 32  # channels whose codes move one by one before the slopes of the others are brought up to date
NUM_SWEEPS = 1  # over all groups; more changed the demo's velocities by less than 0.1 dB


class _Group(NamedTuple):
    """One group while it is worked on: views of steps (size, out) = q - z, and error (size, out)."""

    steps: Tensor
    error: Tensor
    curvature: Tensor  # H of the group, (size, size)
    slope: Tensor  # H E of the group, (size, out)


def refit_scales(
    weight: Tensor, rounded: Rounded, hessian: Tensor, matmul_dtype: torch.dtype = torch.float32
) -> Rounded:
    """Better codes and scales for a weight (in, out); zero points stay.

    Args:
        gram: damped H, (in, in) float32. products: the dtype of the large products.
    """
    codes, grid = rounded
    size = len(weight) // len(grid.scales)
    zeros = grid.zero_points.float().repeat_interleave(size, 0)
    steps = codes.float() - zeros
    scales = grid.scales.clone()
    error = steps * scales.repeat_interleave(size, 0) - weight
    rough = hessian.to(matmul_dtype)
    for _ in range(NUM_SWEEPS):
        for number in range(len(scales)):
            rows = slice(number * size, (number + 1) * size)
            slope = (rough[rows] @ error.to(matmul_dtype)).float()
            group = _Group(steps[rows], error[rows], hessian[rows, rows], slope)
            scales[number] = _fit_scale(group, scales[number])
            bounds = (grid.qmin - grid.zero_points[number].float(), grid.qmax - grid.zero_points[number].float())
            _descend_codes(group, scales[number], bounds, _range_end_mask(codes[rows], grid))
    return Rounded((steps + zeros).to(torch.uint8), grid._replace(scales=scales))


def _fit_scale(group: _Group, scale: Tensor) -> Tensor:
    """The scale (out,) that is best for the codes as they are, where its fp16 neighbour goes down; error follows."""
    bend = group.curvature @ group.steps
    curvature, slope = (group.steps * bend).sum(0), (group.steps * group.slope).sum(0)
    fitted = (scale - slope / curvature.clamp(min=torch.finfo(torch.float32).tiny)).half().float()
    moved = fitted - scale
    good = (fitted > 0) & torch.isfinite(fitted) & (2 * moved * slope + moved.square() * curvature < 0)
    moved = torch.where(good, moved, 0)
    group.error.addcmul_(group.steps, moved)
    group.slope.addcmul_(bend, moved)
    return torch.where(good, fitted, scale)


def _range_end_mask(codes: Tensor, grid: QParams) -> Tensor | None:
    """On a narrow grid, one code of each output at an end of the range: the scale is found by it, so it stays."""
    if not grid.qmin:
        return None
    at_end = (codes == grid.qmin) | (codes == grid.qmax)
    return torch.zeros_like(at_end).scatter_(0, at_end.byte().argmax(0, keepdim=True), True)


def _descend_codes(group: _Group, scale: Tensor, bounds: tuple[Tensor, Tensor], held: Tensor | None) -> None:
    """Each channel's codes to the best for the others' as they are; steps and error follow."""
    size = len(group.steps)
    for start in range(0, size, BLOCK_SIZE):
        stop = min(start + BLOCK_SIZE, size)
        before = group.error[start:stop].clone()
        for row in range(start, stop):
            bend = float(group.curvature[row, row])
            best = torch.round(group.steps[row] - group.slope[row] / (scale * bend)).clamp_(*bounds)
            if held is not None:
                best = torch.where(held[row], group.steps[row], best)
            moved = (best - group.steps[row]) * scale
            group.steps[row] = best
            group.error[row] += moved
            group.slope[row + 1 : stop].addr_(group.curvature[row, row + 1 : stop], moved)
        if stop < size:
            group.slope[stop:] += group.curvature[stop:, start:stop] @ (group.error[start:stop] - before)
