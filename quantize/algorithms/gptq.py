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
    """H = M D M^T after reordering channels.

    Attributes:
        order: (in,) the channel that is rounded k-th.
        feedback: M, (in, in), unit upper triangular, in the dtype of large matrix products.
        diagonal: D, (in,) float32.
        damping: What was added to the diagonal of the matrix that was to be factorized.
    """

    order: Tensor
    feedback: Tensor
    diagonal: Tensor
    damping: float


class GptqResult(NamedTuple):
    """A weight that was rounded with error feedback, and its errors e for each output, which cost nothing more.

    Attributes:
        quantized: The weight.
        output_errors: e H e^T with the H that was factorized, damping included, (out,) float64.
        squared_errors: e e^T, (out,) float64.
    """

    quantized: QuantizedWeight
    output_errors: Tensor
    squared_errors: Tensor


def compute_damping(hessian: Tensor, damping: float = DAMPING) -> float:
    """Returns what damping adds to the diagonal of H, (in, in): a share of its mean, or 1 where H = 0."""
    return damping * float(hessian.diagonal().mean()) or 1.0


def add_damping(hessian: Tensor, damping: float = DAMPING) -> Tensor:
    """Adds a share of the diagonal's mean to the diagonal of H, (in, in) float32. H = 0 gives the identity."""
    damped = hessian.clone()
    damped.diagonal().add_(compute_damping(hessian, damping))
    return damped


def activation_order(hessian: Tensor, group_size: int) -> Tensor:
    """Sorts channels for rounding, (in,): groups by their energy, then the channels of a group by theirs.

    Later channels can compensate errors of earlier ones, so the largest inputs come first. Groups stay together.
    """
    energy = hessian.diagonal().reshape(-1, group_size)
    groups = energy.sum(1).argsort(descending=True, stable=True)
    within = energy.argsort(dim=1, descending=True, stable=True)
    return (groups[:, None] * group_size + within[groups]).reshape(-1)


def ldl_factorize(
    hessian: Tensor, group_size: int, matmul_dtype: torch.dtype = torch.float32, damping: float = 0.0
) -> LdlFactor:
    """Computes M and D of H (in, in), by a Cholesky factorization from the last channel to the first.

    Args:
        hessian: H, which stays as it is.
        group_size: Channels that stay together.
        matmul_dtype: The dtype of M.
        damping: Added to the diagonal. There will be more of it where H is not positive definite in float32.
    """
    order = activation_order(hessian, group_size)
    share = DAMPING
    while (lower := _factorize_backwards(hessian, order, damping)) is None:
        share *= DAMPING_GROWTH
        damping += compute_damping(hessian, share)
    roots = lower.diagonal().clone()
    lower /= roots
    return LdlFactor(order, lower.flip(0, 1).to(matmul_dtype), roots.square().flip(0), damping)


def _factorize_backwards(hessian: Tensor, order: Tensor, damping: float) -> Tensor | None:
    """Returns the lower Cholesky factor of H with its channels in the reverse of an order, or None."""
    backwards = order.flip(0)
    reordered = hessian.index_select(0, backwards).index_select(1, backwards)
    reordered.diagonal().add_(damping)
    return cholesky_(reordered)


def cholesky_(matrix: Tensor) -> Tensor | None:
    """Replaces a matrix (n, n) by its lower Cholesky factor and returns it, or None where it is not positive definite.

    LAPACK's result depends in its last bits on the number of threads, and the codes would depend on it too. Matrix
    products do not, and small blocks are factorized by a single thread.
    """
    for start in range(0, len(matrix), CHOLESKY_BLOCK):
        stop = min(start + CHOLESKY_BLOCK, len(matrix))
        panel = matrix[start:, start:stop]
        if start:
            panel.addmm_(matrix[start:, :start], matrix[start:stop, :start].T, alpha=-1)
        corner, failed = torch.linalg.cholesky_ex(panel[: stop - start])
        if failed:
            return None
        inverse = torch.linalg.solve_triangular(corner, torch.eye(len(corner), device=corner.device), upper=False)
        panel[: stop - start] = corner
        panel[stop - start :] = panel[stop - start :] @ inverse.T
        matrix[start:stop, stop:] = 0
    return matrix


def gptq_quantize(weight: Tensor, factor: LdlFactor, qparams: QParams) -> GptqResult:
    """Quantizes a weight (out, in) with error feedback, group after group. Scales and zero points stay."""
    channels = weight.T.contiguous()  # (in, out)
    size = len(channels) // qparams.scales.shape[1]
    errors = torch.empty_like(channels, dtype=factor.feedback.dtype)  # of channels in the order of rounding
    codes = torch.empty_like(channels, dtype=torch.uint8)
    output_errors, squared_errors = channels.new_zeros(2, channels.shape[1], dtype=torch.float64)
    for start in range(0, len(channels), size):
        span = slice(start, start + size)
        indices = factor.order[span]
        exact = channels[indices]
        target = exact.clone()
        if start:
            target += (factor.feedback[:start, span].T @ errors[:start]).float()
        group = group_qparams(qparams, int(indices[0]) // size)
        error, residual, codes[indices] = _quantize_group(exact, target, factor.feedback[span, span], group)
        errors[span] = error
        squared_errors += error.square_().sum(0)
        output_errors += residual.square_().mul_(factor.diagonal[span, None]).sum(0)
    return GptqResult(QuantizedWeight(codes.T, qparams), output_errors, squared_errors)


def group_qparams(qparams: QParams, group: int) -> QParams:
    """Selects the parameters of one group; scales and zero points are (out,)."""
    return qparams._replace(scales=qparams.scales[:, group], zero_points=qparams.zero_points[:, group])


def abs_max_mask(weight: Tensor) -> Tensor:
    """Marks the largest |weight| of each output in a group (size, out).

    With a narrow range it must stay at the last code: readers recover the scale from it.
    """
    return torch.zeros_like(weight, dtype=torch.bool).scatter_(0, weight.abs().argmax(0, keepdim=True), True)


def _quantize_group(exact: Tensor, target: Tensor, feedback: Tensor, qparams: QParams) -> tuple[Tensor, Tensor, Tensor]:
    """Quantizes one group; `exact` and `target` are overwritten.

    Everything is in units of the scale, so that a channel takes few operations.

    Returns:
        Errors, what each channel's rounding added to them after feedback, and codes, (size, out) each.
    """
    fixed = abs_max_mask(target) if qparams.qmin else None
    scale, zero_point = qparams.scales, qparams.zero_points.float()
    low, high = qparams.qmin - zero_point, qparams.qmax - zero_point
    exact /= scale
    target /= scale
    errors, steps = torch.empty_like(exact), torch.empty_like(exact)
    exact_rows, target_rows, error_rows, step_rows = exact.unbind(), target.unbind(), errors.unbind(), steps.unbind()
    for start in range(0, len(exact), BLOCK_SIZE):
        stop = min(start + BLOCK_SIZE, len(exact))
        triangle = feedback[start:stop, start:stop].float()
        for row in range(start, stop):
            # Without new tensors, since a row is so short that allocating one takes as long as computing it.
            torch.clamp(torch.round(target_rows[row], out=step_rows[row]), low, high, out=step_rows[row])
            if fixed is not None:
                end = torch.where(target_rows[row] < 0, low, high)
                torch.where(fixed[row], end, step_rows[row], out=step_rows[row])
            torch.sub(exact_rows[row], step_rows[row], out=error_rows[row])
            target[row + 1 : stop].addr_(triangle[row - start, row + 1 - start :], error_rows[row])
        if stop < len(exact):
            target[stop:] += (feedback[start:stop, stop:].T @ errors[start:stop].to(feedback.dtype)).float()
    codes = (steps + zero_point).to(torch.uint8)
    return errors.mul_(scale), target.sub_(steps).mul_(scale), codes
