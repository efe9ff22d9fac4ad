"""AWQ as AutoAWQ does it: the search for input scales and for clipped ranges.

After Lin et al. 2023 (arXiv 2306.00978) and AutoAWQ's published quantizer, with its grid of ratios, its "duo" scaling
and its rules of clipping, so that it stands for AutoAWQ in a comparison. Three things differ: the loss is the exact
mean output error of the linears from H = E[x x^T], where AutoAWQ runs the attention, the feed-forward or the linear;
the range of a group always includes 0; and not scaling is a candidate, so a scale that does not help is not used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...numerics.affine import (
    QParams,
    choose_qparams,
    dequantize,
    quantize,
    round_to_nearest,
    to_groups,
)
from ...numerics.quant_spec import QuantSpec
from ..calibration.statistics import output_errors
from .scale_folding import ScaleLayout

NUM_SCALE_STEPS = 20  # exponents 0/20 ... 19/20 of the activations' share
NUM_CLIP_STEPS = 10  # ranges clipped to 1, 0.95 ... 0.55
MIN_SCALE = 1e-4
MAX_ROWS = 512  # of each weight that a scale is evaluated on; all rows share the scale
NEVER_CLIPPED = ("q_", "k_", "query", "key", "Wqkv")  # parts of a linear's name


@dataclass(frozen=True)
class LinearInput:
    """An input, and the linears that read it.

    Attributes:
        weights: Of the linears, each (out, in). Large ones are represented by some of their rows.
        hessian: H of the input, (in, in).
        mean_abs: Mean |x| of each channel, (in,).
    """

    weights: list[Tensor]
    hessian: Tensor
    mean_abs: Tensor


def search_scale(inputs: Sequence[LinearInput], spec: QuantSpec, layout: ScaleLayout | None = None) -> Tensor:
    """Chooses the input scale with the smallest output error when W * s is rounded and multiplied by x / s.

    The errors of several linears are added relative to their outputs: a normalized query must not outweigh a value.

    Args:
        inputs: What is scaled: inputs of the same width.
        spec: The format.
        layout: Which value of the scale each input takes; by default each has its own.

    Returns:
        (channels,)
    """
    width = len(inputs[0].mean_abs)
    layout = layout or ScaleLayout(*[torch.arange(width, device=inputs[0].mean_abs.device)] * 2)
    weights = [weight for x in inputs for weight in x.weights]
    channel_x = _mean_by_channel(torch.stack([x.mean_abs for x in inputs]).mean(0), layout)
    channel_w = _mean_by_channel(relative_weight_magnitude(weights, spec.group_size), layout)
    sampled = [(weight[:: max(1, len(weight) // MAX_ROWS)], x.hessian) for x in inputs for weight in x.weights]
    powers = [float(output_errors(weight, hessian).sum()) for weight, hessian in sampled]
    best, least = torch.ones_like(channel_x), float("inf")
    for scale in (best, *scale_candidates(channel_x, channel_w)):
        errors = [_compute_scale_error(weight, hessian, layout.expand(scale), spec) for weight, hessian in sampled]
        loss = sum(error / power for error, power in zip(errors, powers, strict=True) if power)
        if loss < least:
            best, least = scale, loss
    return best


def scale_candidates(x: Tensor, w: Tensor) -> Iterator[Tensor]:
    """Yields scales to try: x^r / w^(1-r), each normalized to a geometric mid-range of 1."""
    for step in range(NUM_SCALE_STEPS):
        ratio = step / NUM_SCALE_STEPS
        scale = (x.pow(ratio) / (w.pow(1 - ratio) + MIN_SCALE)).clamp(min=MIN_SCALE)
        yield scale / (scale.max() * scale.min()).sqrt()


def relative_weight_magnitude(weights: list[Tensor], group_size: int) -> Tensor:
    """Returns the mean over all rows of |w| relative to the largest of its group, (in,)."""
    total = torch.zeros(weights[0].shape[1], device=weights[0].device)
    for weight in weights:
        groups = to_groups(weight, group_size).abs()
        total += (groups / (groups.amax(-1, keepdim=True) + 1e-6)).reshape(weight.shape).sum(0)
    return total / sum(len(weight) for weight in weights)


def is_clippable(linear: str) -> bool:
    """Returns whether AutoAWQ would clip a linear of this name."""
    return not any(part in linear for part in NEVER_CLIPPED)


def search_clip(weight: Tensor, hessian: Tensor, spec: QuantSpec) -> QParams:
    """Choose, for each group of each row, the best range with the weights clipped to a share of the largest.

    The error of a group is e H_gg e^T with the group's own block of H; as in AutoAWQ, other groups are left out.

    Args:
        weight: (out, in).
        hessian: H, (in, in).
    """
    size = spec.group_size
    groups = to_groups(weight, size)
    blocks = torch.stack(
        [hessian[start : start + size, start : start + size] for start in range(0, len(hessian), size)]
    )
    low, high = groups.amin(-1), groups.amax(-1)
    abs_max = torch.maximum(-low, high)
    best_low, best_high = low.clone(), high.clone()
    least = torch.full_like(low, float("inf"))
    for step in range(NUM_CLIP_STEPS):
        limit = abs_max * (1 - step / NUM_SCALE_STEPS)
        clipped_low, clipped_high = torch.maximum(low, -limit), torch.minimum(high, limit)
        qparams = choose_qparams(clipped_low, clipped_high, spec)
        error = to_groups(dequantize(quantize(weight, qparams)) - weight, size)
        loss = (torch.einsum("ogi,gij->ogj", error, blocks) * error).sum(-1)
        better = loss < least
        least = torch.where(better, loss, least)
        best_low, best_high = torch.where(better, clipped_low, best_low), torch.where(better, clipped_high, best_high)
    return choose_qparams(best_low, best_high, spec)


def _compute_scale_error(weight: Tensor, hessian: Tensor, scale: Tensor, spec: QuantSpec) -> float:
    error = round_to_nearest(weight * scale, spec) / scale - weight
    return float(output_errors(error, hessian).sum())


def _mean_by_channel(values: Tensor, layout: ScaleLayout) -> Tensor:
    """Averages `values` (in,) over the inputs that share a value of the scale, (channels,)."""
    channel, count = layout.channel[layout.is_scaled], len(layout.rows)
    total = values.new_zeros(count).index_add_(0, channel, values[layout.is_scaled])
    return total / torch.bincount(channel, minlength=count)
