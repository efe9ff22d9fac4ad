"""GPTQ: each input channel's rounding error is compensated by the channels rounded after it.

GPTQ (Frantar et al. 2022, arXiv 2210.17323) in the form of LDLQ (Chee et al. 2023, arXiv 2307.13304), which needs no
inverse: with H = M D M^T, M unit upper triangular, the output error tr(E H E^T) is the sum over channels k of
D_k ||e_k + sum_{j<k} M_jk e_j||^2. Rounding w_k + sum_{j<k} M_jk e_j therefore minimizes one term after the other.

Weights are (out, in). The inner loops walk through input channels, so they run on the transposed weight, in which a
channel is contiguous; a weight that is already stored channel by channel is not copied.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...numerics.affine import QParams, QuantizedWeight

BLOCK_SIZE = 32  # channels rounded one by one before their errors reach the later ones in one product
CHOLESKY_BLOCK = 128  # columns of a Cholesky factor computed at once
# Added to H's diagonal, as a share of its mean: the quantized model's inputs differ from those of the calibration.
DAMPING = 0.05
DAMPING_GROWTH = 10.0  # factor on the damping where H is not positive definite in float32


class LdlFactor(NamedTuple):
    """H = M D M^T after reordering channels. Rounding does not need D.

    Attributes:
        order: (in,) the channel that is rounded k-th.
        feedback: M, (in, in), unit upper triangular, in the dtype of large matrix products.
    """

    order: Tensor
    feedback: Tensor


def add_damping(hessian: Tensor, damping: float = DAMPING) -> Tensor:
    """Adds a share of the diagonal's mean to the diagonal of H, (in, in) float32. H = 0 gives the identity."""
    mean = float(hessian.diagonal().mean())
    if not mean:
        return torch.eye(len(hessian))
    damped = hessian.clone()
    damped.diagonal().add_(damping * mean)
    return damped


def activation_order(hessian: Tensor, group_size: int) -> Tensor:
    """Sorts channels for rounding, (in,): groups by their energy, then the channels of a group by theirs.

    Later channels can compensate errors of earlier ones, so the largest inputs come first. Groups stay together.
    """
    energy = hessian.diagonal().reshape(-1, group_size)
    groups = energy.sum(1).argsort(descending=True, stable=True)
    within = energy.argsort(dim=1, descending=True, stable=True)
    return (groups[:, None] * group_size + within[groups]).reshape(-1)


def ldl_factorize(hessian: Tensor, group_size: int, matmul_dtype: torch.dtype = torch.float32) -> LdlFactor:
    """Computes M of a damped H (in, in), by a Cholesky factorization from the last channel to the first."""
    order = activation_order(hessian, group_size)
    backwards = order.flip(0)
    reordered = hessian.index_select(0, backwards).index_select(1, backwards)
    lower = _robust_cholesky(reordered)
    lower /= lower.diagonal().clone()
    return LdlFactor(order, lower.flip(0, 1).to(matmul_dtype))


def _robust_cholesky(hessian: Tensor) -> Tensor:
    """Factorizes H, with more damping where it is not positive definite in float32."""
    lower = cholesky(hessian)
    damping = DAMPING
    while lower is None:
        damping *= DAMPING_GROWTH
        lower = cholesky(add_damping(hessian, damping))
    return lower


def cholesky(matrix: Tensor) -> Tensor | None:
    """Returns the lower Cholesky factor (n, n), or None where the matrix is not positive definite.

    LAPACK's result depends in its last bits on the number of threads, and the codes would depend on it too. Matrix
    products do not, and small blocks are factorized by a single thread.
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


def gptq_quantize(weight: Tensor, factor: LdlFactor, qparams: QParams) -> QuantizedWeight:
    """Quantizes a weight (out, in) with error feedback, group after group. Scales and zero points stay."""
    channels = weight.T.contiguous()  # (in, out)
    size = len(channels) // qparams.scales.shape[1]
    error = torch.zeros_like(channels)  # of the channels in the order of rounding
    codes = torch.empty(channels.shape, dtype=torch.uint8)
    for start in range(0, len(channels), size):
        span = slice(start, start + size)
        indices = factor.order[span]
        exact = channels[indices]
        target = exact.clone()
        if start:
            above = factor.feedback[:start, span]
            target += (above.T @ error[:start].to(above.dtype)).float()
        group = group_qparams(qparams, int(indices[0]) // size)
        error[span], codes[indices] = _quantize_group(exact, target, factor.feedback[span, span], group)
    return QuantizedWeight(codes.T, qparams)


def group_qparams(qparams: QParams, group: int) -> QParams:
    """Selects the parameters of one group; scales and zero points are (out,)."""
    return qparams._replace(scales=qparams.scales[:, group], zero_points=qparams.zero_points[:, group])


def abs_max_mask(weight: Tensor) -> Tensor:
    """Marks the largest |weight| of each output in a group (size, out).

    With a narrow range it must stay at the last code: readers recover the scale from it.
    """
    return torch.zeros_like(weight, dtype=torch.bool).scatter_(0, weight.abs().argmax(0, keepdim=True), True)


def _quantize_group(exact: Tensor, target: Tensor, feedback: Tensor, qparams: QParams) -> tuple[Tensor, Tensor]:
    """Quantizes one group and returns its errors and codes, (size, out) each. `target` is updated in place."""
    fixed = abs_max_mask(target) if qparams.qmin else None
    scale, zero_point = qparams.scales, qparams.zero_points.float()
    error, codes = torch.empty_like(exact), torch.empty(exact.shape, dtype=torch.uint8)
    exact_rows, target_rows, error_rows = exact.unbind(), target.unbind(), error.unbind()
    for start in range(0, len(exact), BLOCK_SIZE):
        stop = min(start + BLOCK_SIZE, len(exact))
        triangle = feedback[start:stop, start:stop].float()
        block_codes = torch.empty_like(exact[start:stop])
        for row, code in enumerate(block_codes.unbind(), start):
            # In place, since a row is so short that allocating results takes as long as computing them.
            torch.div(target_rows[row], scale, out=code).round_().add_(zero_point)
            code.clamp_(qparams.qmin, qparams.qmax)
            if fixed is not None:
                end = torch.where(target_rows[row] < 0, float(qparams.qmin), float(qparams.qmax))
                torch.where(fixed[row], end, code, out=code)
            torch.sub(exact_rows[row], (code - zero_point).mul_(scale), out=error_rows[row])
            target[row + 1 : stop].addr_(triangle[row - start, row + 1 - start :], error_rows[row])
        codes[start:stop] = block_codes
        if stop < len(exact):
            target[stop:] += (feedback[start:stop, stop:].T @ error[start:stop].to(feedback.dtype)).float()
    return error, codes
