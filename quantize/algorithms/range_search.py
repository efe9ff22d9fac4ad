"""The search for the range of each group: clipping a few large weights a little makes all other steps finer."""

from __future__ import annotations

import torch
from torch import Tensor

from ...numerics.affine import QParams, choose_qparams
from ...recipes.schema import Scheme

CLIP_RATIOS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6)  # of the distances from 0 to a group's two ends


def group_grid(weight: Tensor, scheme: Scheme, share: float = 1.0) -> QParams:
    """The min-max grid of one group, (size, out), its ends shortened; scales and zeros are (out,)."""
    low, high = weight.amin(0) * share, weight.amax(0) * share
    return choose_qparams(low, high, scheme.zero_point, scheme.bits, scheme.narrow_range)


def search_clip_range(weight: Tensor, hessian: Tensor, scheme: Scheme) -> QParams:
    """The grid of one group that loses least.

    Args:
        weight: (size, out). gram: H of the group, (size, size).

    Returns:
        scales and zeros (out,).
    """
    best = group_grid(weight, scheme)
    least = _loss(weight, hessian, best)
    for share in CLIP_RATIOS[1:]:
        grid = group_grid(weight, scheme, share)
        loss = _loss(weight, hessian, grid)
        better = loss < least
        least = torch.where(better, loss, least)
        scales, zeros = (torch.where(better, new, old) for new, old in zip(grid[:2], best[:2], strict=True))
        best = best._replace(scales=scales, zeros=zeros)
    return best


def _loss(weight: Tensor, gram: Tensor, grid: QParams) -> Tensor:
    """What rounding to the grid loses, for each output: (out,)."""
    zeros = grid.zero_points.float()
    error = weight / grid.scales
    error.round_().clamp_(grid.qmin - zeros, grid.qmax - zeros).mul_(grid.scales).sub_(weight)
    return (error * (gram @ error)).sum(0)
