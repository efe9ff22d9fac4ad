"""TODO"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...numerics.affine import QParams, dequantize, minmax_qparams, quantize
from ...recipes.schema import Scheme


class Rounded(NamedTuple):
    """A rounded weight: codes (in, out) uint8 on a grid of scales and zeros (groups, out)."""

    codes: Tensor
    grid: QParams


def nearest(weight: Tensor, grid: QParams) -> Rounded:
    """The nearest codes of a weight (in, out) on a grid (groups, out)."""
    groups = weight.reshape(len(grid.scales), -1, weight.shape[1])
    codes = torch.round(groups / grid.scales[:, None]) + grid.zero_points[:, None]
    return Rounded(codes.clamp_(grid.qmin, grid.qmax).to(torch.uint8).reshape(weight.shape), grid)


def value_of(rounded: Rounded) -> Tensor:
    """The weight (in, out) float32 that codes stand for."""
    codes, grid = rounded
    groups = codes.reshape(len(grid.scales), -1, codes.shape[1]).float()
    return groups.sub_(grid.zero_points[:, None]).mul_(grid.scales[:, None]).reshape(codes.shape)


def stacked(grids: Sequence[QParams]) -> QParams:
    """Grids of single groups, (out,) each, as one of (groups, out)."""
    return grids[0]._replace(
        scales=torch.stack([grid.scales for grid in grids]), zeros=torch.stack([grid.zero_points for grid in grids])
    )


def round_to_nearest(weight: Tensor, scheme: Scheme) -> Tensor:
    """W (out, in) rounded on its min-max grid, dequantized."""
    size = scheme.resolve_group_size(weight.shape[1])
    return dequantize(
        quantize(weight, minmax_qparams(weight, size, scheme.zero_point, scheme.bits, scheme.narrow_range))
    )
