"""Activation-aware weight quantization as AutoAWQ does it: the search for input scales and for clipped ranges.

After Lin et al. 2023 (arXiv 2306.00978) and AutoAWQ's published quantizer, with its grid of ratios, "duo" scaling and
rules of clipping, so that it stands for AutoAWQ in a comparison. Three things differ: losses are exact mean output
errors of the linears from H = E[x x^T], where AutoAWQ runs the attention, the feed-forward or the linear; the range of
a group includes 0; and the identity is a candidate, so that a scale that helps nothing is not taken.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...numerics.affine import QParams, choose_qparams, dequantize, quantize, to_groups
from ...recipes.schema import Scheme
from ..calibration.statistics import output_errors
from .rounding import round_to_nearest

NUM_SCALE_STEPS = 20  # exponents 0/20 ... 19/20 of the activations' part
NUM_CLIP_STEPS = 10  # ranges clipped to 1, 0.95 ... 0.55
MIN_SCALE = 1e-4
MAX_ROWS = 512  # of each weight that a scale is judged by; all rows share it
NEVER_CLIPPED = ("q_", "k_", "query", "key", "Wqkv")  # in a linear's name


def search_scale(
    weights: list[Tensor], hessian: Tensor, mean_abs: Tensor, scheme: Scheme, channel: Tensor | None = None
) -> Tensor:
    """The input scale, (channels,), that loses least when W * s is rounded and x / s is multiplied.

    The losses of several readers are added relative to their outputs: a normalized query must not outweigh a value.

    Args:
        weights: the linears that read the input, each (out, in); of large ones some rows stand for all.
        gram: H of the input, (in, in). magnitude: mean |x|, (in,).
        channel: for each input, the channel whose scale it must take, (in,); None where each has its own.
    """
    channel = torch.arange(len(mean_abs)) if channel is None else channel
    shared_x = _mean_by_channel(mean_abs, channel)
    shared_w = _mean_by_channel(relative_weight_magnitude(weights, scheme.resolve_group_size(len(mean_abs))), channel)
    judged = [weight[:: max(1, len(weight) // MAX_ROWS)] for weight in weights]
    best, least = torch.ones_like(shared_x), float("inf")
    for scale in (best, *scale_candidates(shared_x, shared_w)):
        loss = sum(_compute_scale_loss(weight, hessian, scale[channel], scheme) for weight in judged)
        if loss < least:
            best, least = scale, loss
    return best


def scale_candidates(x: Tensor, w: Tensor) -> Iterator[Tensor]:
    """Scales to try: x^r / w^(1-r), each brought to a geometric mid-range of 1."""
    for step in range(NUM_SCALE_STEPS):
        ratio = step / NUM_SCALE_STEPS
        scale = (x.pow(ratio) / (w.pow(1 - ratio) + MIN_SCALE)).clamp(min=MIN_SCALE)
        yield scale / (scale.max() * scale.min()).sqrt()


def relative_weight_magnitude(weights: list[Tensor], group_size: int) -> Tensor:
    """Mean over all rows of |w| relative to the largest of its group, (in,)."""
    total = torch.zeros(weights[0].shape[1])
    for weight in weights:
        groups = to_groups(weight, group_size).abs()
        total += (groups / (groups.amax(-1, keepdim=True) + 1e-6)).reshape(weight.shape).sum(0)
    return total / sum(len(weight) for weight in weights)


def is_clippable(linear: str) -> bool:
    """Whether AutoAWQ would clip a linear of this name."""
    return not any(part in linear for part in NEVER_CLIPPED)


def search_clip(weight: Tensor, hessian: Tensor, scheme: Scheme) -> QParams:
    """For each group of each row, the grid of the weights clipped to +-(a share of the largest) that loses least.

    The loss of a group is e^T H_gg e with H_gg its own block of H: errors of other groups are left out, as in AutoAWQ.
    """
    size = scheme.resolve_group_size(weight.shape[1])
    groups = to_groups(weight, size)
    blocks = torch.stack(
        [hessian[start : start + size, start : start + size] for start in range(0, len(hessian), size)]
    )
    low, high = groups.amin(-1), groups.amax(-1)
    largest = torch.maximum(-low, high)
    best_low, best_high = low.clone(), high.clone()
    least = torch.full_like(low, float("inf"))
    for step in range(NUM_CLIP_STEPS):
        limit = largest * (1 - step / NUM_SCALE_STEPS)
        below, above = torch.maximum(low, -limit), torch.minimum(high, limit)
        grid = choose_qparams(below, above, scheme.zero_point, scheme.bits, scheme.narrow_range)
        error = to_groups(dequantize(quantize(weight, grid)) - weight, size)
        loss = (torch.einsum("ogi,gij->ogj", error, blocks) * error).sum(-1)
        better = loss < least
        least = torch.where(better, loss, least)
        best_low, best_high = torch.where(better, below, best_low), torch.where(better, above, best_high)
    return choose_qparams(best_low, best_high, scheme.zero_point, scheme.bits, scheme.narrow_range)


def _compute_scale_loss(weight: Tensor, gram: Tensor, scale: Tensor, scheme: Scheme) -> float:
    error = round_to_nearest(weight * scale, scheme) / scale - weight
    power = float(output_errors(weight.T, gram).sum())
    return float(output_errors(error.T, gram).sum()) / power if power else 0.0


def _mean_by_channel(values: Tensor, channel: Tensor) -> Tensor:
    """The mean of `values` over the inputs that share a channel."""
    count = int(channel.max()) + 1
    total = torch.zeros(count, dtype=values.dtype).index_add_(0, channel, values)
    return total / torch.bincount(channel, minlength=count)
