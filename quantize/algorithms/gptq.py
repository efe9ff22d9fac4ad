"""Rounding with error feedback: each input channel's rounding error is made up for by the channels after it.

GPTQ (Frantar et al. 2022, arXiv 2210.17323) in the form of LDLQ (Chee et al. 2023, arXiv 2307.13304), which needs no
inverse: with H = M D M^T, M unit upper triangular, the output error tr(E^T H E) is the sum over channels k of
D_k ||e_k + sum_{j<k} M_jk e_j||^2, and rounding w_k + sum_{j<k} M_jk e_j makes each term small in turn.

Weights here stand channels first, (in, out): a channel's row is then contiguous.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...numerics.affine import QParams
from .rounding import Rounded

BLOCK_SIZE = 32  # channels rounded one by one before their errors are passed on in one product
CHOLESKY_BLOCK = 128  # columns of a Cholesky factor made at once
DAMPING = 0.05  # of the mean of H's diagonal, added to it: inputs of the pressed model differ from those calibrated on
DAMPING_GROWTH = 10.0  # times the damping where H is not positive definite in float32


class LdlFactor(NamedTuple):
    """H = M D M^T after reordering channels; what D is does not matter to rounding.

    order: (in,), the channel that comes k-th. feedback: M (in, in), unit upper triangular, in the dtype of products.
    """

    order: Tensor
    feedback: Tensor


def add_damping(hessian: Tensor, damping: float = DAMPING) -> Tensor:
    """H with a share of its diagonal's mean added to the diagonal; the identity where H is 0. (in, in) float32."""
    mean = float(hessian.diagonal().mean())
    if not mean:
        return torch.eye(len(hessian))
    damped = hessian.clone()
    damped.diagonal().add_(damping * mean)
    return damped


def activation_order(hessian: Tensor, group_size: int) -> Tensor:
    """Channels in the order of rounding, (in,): groups by their energy, and channels within a group by theirs.

    What is rounded early can be made up for by what follows, so that the loud come first. Groups stay whole.
    """
    energy = hessian.diagonal().reshape(-1, group_size)
    groups = energy.sum(1).argsort(descending=True, stable=True)
    within = energy.argsort(dim=1, descending=True, stable=True)
    return (groups[:, None] * group_size + within[groups]).reshape(-1)


def ldl_factorize(hessian: Tensor, group_size: int, matmul_dtype: torch.dtype = torch.float32) -> LdlFactor:
    """M of a damped H (in, in), by a Cholesky factorization from the last channel to the first."""
    order = activation_order(hessian, group_size)
    backwards = order.flip(0)
    reordered = hessian.index_select(0, backwards).index_select(1, backwards)
    lower = _robust_cholesky(reordered)
    lower /= lower.diagonal().clone()
    return LdlFactor(order, lower.flip(0, 1).to(matmul_dtype))


def _robust_cholesky(hessian: Tensor) -> Tensor:
    """The lower factor; H is damped further where it is not positive definite in float32."""
    lower = cholesky(hessian)
    damping = DAMPING
    while lower is None:
        damping *= DAMPING_GROWTH
        lower = cholesky(add_damping(hessian, damping))
    return lower


def cholesky(matrix: Tensor) -> Tensor | None:
    """The lower Cholesky factor (n, n), or None where the matrix is not positive definite.

    LAPACK's depends on the number of threads in its last bits, and codes with it; products do not, and small blocks are
    factorized in one thread.
    """
    lower = torch.zeros_like(matrix)
    for start in range(0, len(matrix), CHOLESKY_BLOCK):
        stop = min(start + CHOLESKY_BLOCK, len(matrix))
        panel = matrix[start:, start:stop] - lower[start:, :start] @ lower[start:stop, :start].T
        corner, failed = torch.linalg.cholesky_ex(panel[: stop - start])
        if failed:
            return None
        inverse = torch.linalg.solve_triangular(corner, torch.eye(len(corner)), upper=False)
        lower[start:stop, start:stop] = corner
        lower[stop:, start:stop] = panel[stop - start :] @ inverse.T
    return lower


def gptq_quantize(weight: Tensor, factor: LdlFactor, grid: QParams) -> Rounded:
    """Rounds a weight (in, out) on a grid (groups, out), group after group."""
    size = len(weight) // len(grid.scales)
    error = torch.zeros_like(weight)  # of the channels in the order of rounding
    codes = torch.empty(weight.shape, dtype=torch.uint8)
    for start in range(0, len(weight), size):
        span = slice(start, start + size)
        channels = factor.order[span]
        exact = weight[channels]
        target = exact.clone()
        if start:
            above = factor.feedback[:start, span]
            target += (above.T @ error[:start].to(above.dtype)).float()
        group = group_qparams(grid, int(channels[0]) // size)
        error[span], codes[channels] = _quantize_group(exact, target, factor.feedback[span, span], group)
    return Rounded(codes, grid)


def group_qparams(grid: QParams, number: int) -> QParams:
    """The grid of one group, scales and zeros (out,)."""
    return grid._replace(scales=grid.scales[number], zeros=grid.zero_points[number])


def abs_max_mask(weight: Tensor) -> Tensor:
    """Marks the weight of each output that is largest in a group (size, out).

    On a narrow grid it must stay at the end of the range: who reads the weights finds the scale by it.
    """
    return torch.zeros_like(weight, dtype=torch.bool).scatter_(0, weight.abs().argmax(0, keepdim=True), True)


def _quantize_group(exact: Tensor, target: Tensor, feedback: Tensor, grid: QParams) -> tuple[Tensor, Tensor]:
    """Errors (size, out) and codes (size, out) of one group; `target` is brought up to date on the way."""
    held = abs_max_mask(target) if grid.qmin else None
    scale, zero = grid.scales, grid.zero_points.float()
    error, codes = torch.empty_like(exact), torch.empty(exact.shape, dtype=torch.uint8)
    for start in range(0, len(exact), BLOCK_SIZE):
        stop = min(start + BLOCK_SIZE, len(exact))
        triangle = feedback[start:stop, start:stop].float()
        for row in range(start, stop):
            code = (torch.round(target[row] / scale) + zero).clamp_(grid.qmin, grid.qmax)
            if held is not None:
                end = torch.where(target[row] < 0, float(grid.qmin), float(grid.qmax))
                code = torch.where(held[row], end, code)
            codes[row] = code.to(torch.uint8)
            error[row] = exact[row] - (code - zero) * scale
            target[row + 1 : stop].addr_(triangle[row - start, row + 1 - start :], error[row])
        if stop < len(exact):
            target[stop:] += (feedback[start:stop, stop:].T @ error[start:stop].to(feedback.dtype)).float()
    return error, codes
