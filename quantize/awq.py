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

from ..grid import Grid, dequantize, grid_for, grid_of, grouped, quantize
from ..recipe import Scheme
from .statistics import output_errors

RATIOS = 20  # exponents 0/20 ... 19/20 of the activations' part
SHRINKS = 10  # ranges clipped to 1, 0.95 ... 0.55
SMALLEST = 1e-4
ROWS = 512  # of each weight that a scale is judged by; all rows share it
NEVER_CLIPPED = ("q_", "k_", "query", "key", "Wqkv")  # in a linear's name


def round_to_nearest(weight: Tensor, scheme: Scheme) -> Tensor:
    """W (out, in) rounded on its min-max grid, dequantized."""
    size = scheme.group_of(weight.shape[1])
    return dequantize(quantize(weight, grid_for(weight, size, scheme.zero_point, scheme.bits, scheme.narrow)))


def search_scale(
    weights: list[Tensor], gram: Tensor, magnitude: Tensor, scheme: Scheme, channel: Tensor | None = None
) -> Tensor:
    """The input scale, (channels,), that loses least when W * s is rounded and x / s is multiplied.

    The losses of several readers are added relative to their outputs: a normalized query must not outweigh a value.

    Args:
        weights: the linears that read the input, each (out, in); of large ones some rows stand for all.
        gram: H of the input, (in, in). magnitude: mean |x|, (in,).
        channel: for each input, the channel whose scale it must take, (in,); None where each has its own.
    """
    channel = torch.arange(len(magnitude)) if channel is None else channel
    shared_x = _shared(magnitude, channel)
    shared_w = _shared(weight_magnitude(weights, scheme.group_of(len(magnitude))), channel)
    judged = [weight[:: max(1, len(weight) // ROWS)] for weight in weights]
    best, least = torch.ones_like(shared_x), float("inf")
    for scale in (best, *candidates(shared_x, shared_w)):
        loss = sum(_scaled_loss(weight, gram, scale[channel], scheme) for weight in judged)
        if loss < least:
            best, least = scale, loss
    return best


def candidates(x: Tensor, w: Tensor) -> Iterator[Tensor]:
    """Scales to try: x^r / w^(1-r), each brought to a geometric mid-range of 1."""
    for step in range(RATIOS):
        ratio = step / RATIOS
        scale = (x.pow(ratio) / (w.pow(1 - ratio) + SMALLEST)).clamp(min=SMALLEST)
        yield scale / (scale.max() * scale.min()).sqrt()


def weight_magnitude(weights: list[Tensor], group_size: int) -> Tensor:
    """Mean over all rows of |w| relative to the largest of its group, (in,)."""
    total = torch.zeros(weights[0].shape[1])
    for weight in weights:
        groups = grouped(weight, group_size).abs()
        total += (groups / (groups.amax(-1, keepdim=True) + 1e-6)).reshape(weight.shape).sum(0)
    return total / sum(len(weight) for weight in weights)


def clips(linear: str) -> bool:
    """Whether AutoAWQ would clip a linear of this name."""
    return not any(part in linear for part in NEVER_CLIPPED)


def search_clip(weight: Tensor, gram: Tensor, scheme: Scheme) -> Grid:
    """For each group of each row, the grid of the weights clipped to +-(a share of the largest) that loses least.

    The loss of a group is e^T H_gg e with H_gg its own block of H: errors of other groups are left out, as in AutoAWQ.
    """
    size = scheme.group_of(weight.shape[1])
    groups = grouped(weight, size)
    blocks = torch.stack([gram[start : start + size, start : start + size] for start in range(0, len(gram), size)])
    low, high = groups.amin(-1), groups.amax(-1)
    largest = torch.maximum(-low, high)
    best_low, best_high = low.clone(), high.clone()
    least = torch.full_like(low, float("inf"))
    for step in range(SHRINKS):
        limit = largest * (1 - step / RATIOS)
        below, above = torch.maximum(low, -limit), torch.minimum(high, limit)
        grid = grid_of(below, above, scheme.zero_point, scheme.bits, scheme.narrow)
        error = grouped(dequantize(quantize(weight, grid)) - weight, size)
        loss = (torch.einsum("ogi,gij->ogj", error, blocks) * error).sum(-1)
        better = loss < least
        least = torch.where(better, loss, least)
        best_low, best_high = torch.where(better, below, best_low), torch.where(better, above, best_high)
    return grid_of(best_low, best_high, scheme.zero_point, scheme.bits, scheme.narrow)


def _scaled_loss(weight: Tensor, gram: Tensor, scale: Tensor, scheme: Scheme) -> float:
    error = round_to_nearest(weight * scale, scheme) / scale - weight
    power = float(output_errors(weight.T, gram).sum())
    return float(output_errors(error.T, gram).sum()) / power if power else 0.0


def _shared(values: Tensor, channel: Tensor) -> Tensor:
    """The mean of `values` over the inputs that share a channel."""
    count = int(channel.max()) + 1
    total = torch.zeros(count, dtype=values.dtype).index_add_(0, channel, values)
    return total / torch.bincount(channel, minlength=count)
