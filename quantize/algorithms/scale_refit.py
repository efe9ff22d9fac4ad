"""Coordinate descent on a quantized weight: scales by least squares, then codes one channel at a time.

The output error tr(E H E^T) is a quadratic function of each group's scale and of each code while everything else stays.
Both are moved to its minimum in turn, group after group, scales rounded to fp16 and codes to integers, and only where
that lowers the error.

Weights are (out, in). The loops walk through input channels, so they run on transposed tensors, as in gptq.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...numerics.affine import QParams, QuantizedWeight

BLOCK_SIZE = 32  # channels whose codes move one by one before the slopes of the later ones are updated
NUM_SWEEPS = 1  # over all groups; more changed the demo's velocities by less than 0.1 dB


class _Group(NamedTuple):
    """One group while it is worked on. `steps`, `error` and `slope` are updated in place.

    Attributes:
        steps: q - zero_point, (size, out).
        error: Dequantized minus original weight, (size, out).
        curvature: H of the group, (size, size).
        slope: H E of the group, (size, out).
    """

    steps: Tensor
    error: Tensor
    curvature: Tensor
    slope: Tensor


def refit_scales(
    weight: Tensor, quantized: QuantizedWeight, hessian: Tensor, matmul_dtype: torch.dtype = torch.float32
) -> QuantizedWeight:
    """Improves the scales and codes of a quantized weight (out, in). Zero points stay.

    Args:
        hessian: Damped H, (in, in) float32.
        matmul_dtype: The dtype of large matrix products.
    """
    codes, qparams = quantized.codes.T.contiguous(), quantized.qparams  # codes (in, out)
    num_groups = qparams.scales.shape[1]
    size = len(codes) // num_groups
    group_zero_points = qparams.zero_points.T.float()  # (groups, out)
    zero_points = group_zero_points.repeat_interleave(size, 0)
    scales = qparams.scales.T.clone(memory_format=torch.contiguous_format)
    steps = codes.float() - zero_points
    error = steps * scales.repeat_interleave(size, 0) - weight.T
    hessian_lp = hessian.to(matmul_dtype)
    for _ in range(NUM_SWEEPS):
        for number in range(num_groups):
            rows = slice(number * size, (number + 1) * size)
            slope = (hessian_lp[rows] @ error.to(matmul_dtype)).float()
            group = _Group(steps[rows], error[rows], hessian[rows, rows], slope)
            scales[number] = _fit_scale(group, scales[number])
            bounds = (qparams.qmin - group_zero_points[number], qparams.qmax - group_zero_points[number])
            _descend_codes(group, scales[number], bounds, _range_end_mask(codes[rows], qparams))
    return QuantizedWeight((steps + zero_points).to(torch.uint8).T, qparams._replace(scales=scales.T))


def _fit_scale(group: _Group, scale: Tensor) -> Tensor:
    """Returns the best scale (out,) for the codes as they are, rounded to fp16, where that lowers the error."""
    bend = group.curvature @ group.steps
    curvature, slope = (group.steps * bend).sum(0), (group.steps * group.slope).sum(0)
    fitted = (scale - slope / curvature.clamp(min=torch.finfo(torch.float32).tiny)).half().float()
    change = fitted - scale
    better = (fitted > 0) & torch.isfinite(fitted) & (2 * change * slope + change.square() * curvature < 0)
    change = torch.where(better, change, 0)
    group.error.addcmul_(group.steps, change)
    group.slope.addcmul_(bend, change)
    return torch.where(better, fitted, scale)


def _range_end_mask(codes: Tensor, qparams: QParams) -> Tensor | None:
    """Marks one code of each output at an end of a narrow range, which must stay: readers recover the scale from it."""
    if not qparams.qmin:
        return None
    at_end = (codes == qparams.qmin) | (codes == qparams.qmax)
    return torch.zeros_like(at_end).scatter_(0, at_end.byte().argmax(0, keepdim=True), True)


def _descend_codes(group: _Group, scale: Tensor, bounds: tuple[Tensor, Tensor], fixed: Tensor | None) -> None:
    """Moves each channel's codes to the best for all others as they are; steps, error and slope follow."""
    size = len(group.steps)
    divisors = (group.curvature.diagonal()[:, None] * scale).unbind()
    step_rows, error_rows, slope_rows = group.steps.unbind(), group.error.unbind(), group.slope.unbind()
    curvature_rows = group.curvature.unbind()
    best, change = torch.empty_like(scale), torch.empty_like(scale)
    for start in range(0, size, BLOCK_SIZE):
        stop = min(start + BLOCK_SIZE, size)
        before = group.error[start:stop].clone()
        for row in range(start, stop):
            # Without new tensors, since a row is so short that allocating one takes as long as computing it.
            steps = step_rows[row]
            torch.sub(steps, torch.div(slope_rows[row], divisors[row], out=best), out=best).round_().clamp_(*bounds)
            if fixed is not None:
                torch.where(fixed[row], steps, best, out=best)
            torch.sub(best, steps, out=change).mul_(scale)
            steps.copy_(best)
            error_rows[row].add_(change)
            group.slope[row + 1 : stop].addr_(curvature_rows[row][row + 1 : stop], change)
        if stop < size:
            group.slope[stop:] += group.curvature[stop:, start:stop] @ (group.error[start:stop] - before)
