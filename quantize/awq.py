"""Activation-aware weight quantization: the search for input scales and the search for clipped ranges.

After AutoAWQ (Lin et al. 2023, arXiv 2306.00978, and its published quantizer), with what that leaves out: the identity
is a candidate, and both kinds of scale (activations alone; activations over weights, "duo") are tried. Losses are exact
mean output errors from H = E[x x^T] instead of forward passes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..grid import Grid, dequantize, grid_for, grid_of, grouped, quantize
from ..recipe import Scheme
from .statistics import relative_error

RATIOS = 20  # exponents 1/20 ... 20/20 of the activations' part
SHRINKS = 10  # ranges clipped to 1, 0.95 ... 0.55
SMALLEST = 1e-4


def round_to_nearest(weight: Tensor, scheme: Scheme) -> Tensor:
    """W (out, in) rounded on its min-max grid, dequantized."""
    return dequantize(quantize(weight, grid_for(weight, scheme.group_size, scheme.zero_point)))


def search_scale(
    weights: list[Tensor], gram: Tensor, magnitude: Tensor, scheme: Scheme, channel: Tensor | None = None
) -> Tensor:
    """The input scale, (channels,), that loses least when W * s is rounded and x / s is multiplied.

    The losses of several readers are added relative to their outputs: a normalized query must not outweigh a value.

    Args:
        weights: the linears that read the input, each (out, in).
        gram: H of the input, (in, in). magnitude: mean |x|, (in,).
        channel: for each input, the channel whose scale it must take, (in,); None where each has its own.
    """
    channel = torch.arange(len(magnitude)) if channel is None else channel
    shared_x = _shared(magnitude, channel)
    shared_w = _shared(weight_magnitude(weights, scheme.group_size), channel)
    best, least = torch.ones_like(shared_x), float("inf")
    for scale in candidates(shared_x, shared_w):
        loss = sum(_scaled_loss(weight, gram, scale[channel], scheme) for weight in weights)
        if loss < least:
            best, least = scale, loss
    return best


def candidates(x: Tensor, w: Tensor) -> Iterator[Tensor]:
    """Scales to try: the identity, x^r, and x^r / w^(1-r), each brought to a geometric mid-range of 1."""
    yield torch.ones_like(x)
    for step in range(RATIOS + 1):
        ratio = step / RATIOS
        if step:
            yield _centred(x.pow(ratio))
        if step < RATIOS:
            yield _centred(x.pow(ratio) / (w.pow(1 - ratio) + SMALLEST))


def weight_magnitude(weights: list[Tensor], group_size: int) -> Tensor:
    """Mean over all rows of |w| relative to the largest of its group, (in,)."""
    rows = torch.cat(weights)
    groups = grouped(rows, group_size).abs()
    return (groups / (groups.amax(-1, keepdim=True) + 1e-6)).reshape(rows.shape).mean(0)


def search_clip(weight: Tensor, gram: Tensor, scheme: Scheme) -> Grid:
    """For each group of each row, the min-max grid shrunk to the share of its range that loses least.

    The loss of a group is e^T H_gg e with H_gg its own block of H: errors of other groups are left out, as in AutoAWQ.
    """
    groups = grouped(weight, scheme.group_size)
    size, count = scheme.group_size, groups.shape[1]
    blocks = torch.stack([gram[g * size : (g + 1) * size, g * size : (g + 1) * size] for g in range(count)])
    low, high = groups.amin(-1), groups.amax(-1)
    best_low, best_high = low.clone(), high.clone()
    least = torch.full_like(low, float("inf"))
    for step in range(SHRINKS):
        share = 1 - step / 20
        grid = grid_of(low * share, high * share, scheme.zero_point)
        error = grouped(dequantize(quantize(weight, grid)) - weight, size)
        loss = (torch.einsum("ogi,gij->ogj", error, blocks) * error).sum(-1)
        better = loss < least
        least = torch.where(better, loss, least)
        best_low, best_high = torch.where(better, low * share, best_low), torch.where(better, high * share, best_high)
    return grid_of(best_low, best_high, scheme.zero_point)


def _scaled_loss(weight: Tensor, gram: Tensor, scale: Tensor, scheme: Scheme) -> float:
    return relative_error(round_to_nearest(weight * scale, scheme) / scale - weight, weight, gram)


def _centred(scale: Tensor) -> Tensor:
    scale = scale.clamp(min=SMALLEST)
    return scale / (scale.max() * scale.min()).sqrt()


def _shared(values: Tensor, channel: Tensor) -> Tensor:
    """The mean of `values` over the inputs that share a channel."""
    count = int(channel.max()) + 1
    total = torch.zeros(count, dtype=values.dtype).index_add_(0, channel, values)
    return total / torch.bincount(channel, minlength=count)
