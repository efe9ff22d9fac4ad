"""The search for each group's clipping range: clipping a few large weights slightly makes all other steps finer."""

from __future__ import annotations

import torch
from torch import Tensor

from ...numerics.affine import QParams, choose_qparams
from ...numerics.quant_spec import QuantSpec

CLIP_RATIOS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6)  # of a group's minimum and maximum


def search_clip_range(weight: Tensor, hessian: Tensor, spec: QuantSpec) -> QParams:
    """Choose, for each group of each output, the clipped range whose rounding error is smallest.

    The error of a group is e H_gg e^T with the group's own block of H; other groups are left out.

    Args:
        weight: (out, in).
        hessian: Damped H, (in, in).
    """
    channels = weight.T.contiguous()  # (in, out): a group is then one contiguous block
    groups: list[QParams] = []
    for start in range(0, len(channels), spec.group_size):
        span = slice(start, start + spec.group_size)
        groups.append(_search_group(channels[span], hessian[span, span], spec))
    scales = torch.stack([group.scales for group in groups], dim=1)
    zero_points = torch.stack([group.zero_points for group in groups], dim=1)
    return groups[0]._replace(scales=scales, zero_points=zero_points)


def _search_group(weight: Tensor, hessian: Tensor, spec: QuantSpec) -> QParams:
    """Chooses the best range of one group.

    Args:
        weight: (size, out).
        hessian: H of the group, (size, size).

    Returns:
        Scales and zero points (out,).
    """
    ratios = torch.tensor(CLIP_RATIOS, device=weight.device)[:, None]
    candidates = choose_qparams(weight.amin(0) * ratios, weight.amax(0) * ratios, spec)  # (ratios, out)
    zero_points = candidates.zero_points.float()
    lows, highs = candidates.qmin - zero_points, candidates.qmax - zero_points
    losses = [_compute_loss(weight, hessian, *rows) for rows in zip(candidates.scales, lows, highs, strict=True)]
    choice = torch.stack(losses).argmin(0, keepdim=True)  # the first of equals, which clips least
    scales, zero_points = (values.gather(0, choice)[0] for values in (candidates.scales, candidates.zero_points))
    return candidates._replace(scales=scales, zero_points=zero_points)


def _compute_loss(weight: Tensor, hessian: Tensor, scales: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Returns the error of rounding a group (size, out) to steps from low to high, for each output, (out,)."""
    error = weight / scales
    error.round_().clamp_(low, high).mul_(scales).sub_(weight)
    return (error * (hessian @ error)).sum(0)
