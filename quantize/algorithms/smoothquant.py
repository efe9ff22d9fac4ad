"""SmoothQuant: moves what is hard to quantize in an input's channels into the weights that read it.

After Xiao et al. 2022 (arXiv 2211.10438): inputs are divided by s and weights multiplied by it, with s_j =
max|x_j|^a / max|w_j|^(1-a). Here a is chosen per fold, by the output error with inputs and weights rounded as the
device rounds them. Not scaling at all is a candidate too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ...numerics.quant_spec import QuantSpec
from .activation_rounding import CalibrationActivations
from .awq import MAX_ROWS
from .scale_folding import ScaleLayout

NUM_ALPHAS = 10  # exponents 1/10 ... 10/10 of the activations' share


def search_smoothquant_scale(
    inputs: Sequence[tuple[Sequence[Tensor], CalibrationActivations]], spec: QuantSpec, layout: ScaleLayout
) -> Tensor:
    """Chooses the input scale with the smallest error of rounded inputs times rounded weights.

    The errors of several linears are added relative to their outputs.

    Args:
        inputs: What is scaled: weights of linears, each (out, in), and the input that they read. Large weights are
            represented by some of their rows.
        spec: The format.
        layout: Which value of the scale each input takes.

    Returns:
        (channels,)
    """
    weight_max = torch.stack([weight.abs().amax(0) for weights, _ in inputs for weight in weights]).amax(0)
    input_max = torch.stack([activations.abs_max for _, activations in inputs]).amax(0)
    best, least = input_max.new_ones(len(layout.rows)), float("inf")
    for scale in (best, *scale_candidates(_max_by_channel(input_max, layout), _max_by_channel(weight_max, layout))):
        loss = sum(_compute_error(weights, activations, layout.expand(scale), spec) for weights, activations in inputs)
        if loss < least:
            best, least = scale, loss
    return best


def scale_candidates(x: Tensor, w: Tensor) -> Iterator[Tensor]:
    """Yields scales to try, with a geometric mean of 1. Channels that are always 0 keep a scale of 1."""
    live = (x > 0) & (w > 0)
    if not live.any():
        return
    for step in range(1, NUM_ALPHAS + 1):
        alpha = step / NUM_ALPHAS
        exponent = alpha * x[live].log() - (1 - alpha) * w[live].log()
        scale = torch.ones_like(x)
        scale[live] = (exponent - exponent.mean()).exp()
        yield scale


def _compute_error(weights: Sequence[Tensor], inputs: CalibrationActivations, scale: Tensor, spec: QuantSpec) -> float:
    """Returns the error of linears with their input divided by a scale (in,)."""
    smoothed = inputs.divide_by(scale)
    sampled = (weight[:: max(1, len(weight) // MAX_ROWS)] for weight in weights)
    return sum(smoothed.rtn_error(weight * scale, spec) for weight in sampled)


def _max_by_channel(values: Tensor, layout: ScaleLayout) -> Tensor:
    """Returns the largest of `values` (in,) over the inputs that share a value of the scale, (channels,)."""
    channel = layout.channel[layout.is_scaled]
    return values.new_zeros(len(layout.rows)).scatter_reduce(0, channel, values[layout.is_scaled], "amax")
