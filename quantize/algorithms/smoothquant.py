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

NUM_ALPHAS = 10  # exponents 1/10 ... 10/10 of the activations' share


def search_smoothquant_scale(
    weights: Sequence[Tensor], inputs: CalibrationActivations, spec: QuantSpec, channel: Tensor
) -> Tensor:
    """Chooses the input scale with the smallest error of rounded inputs times rounded weights.

    The errors of several linears are added relative to their outputs.

    Args:
        weights: The linears that read the input, each (out, in). Large ones are represented by some of their rows.
        channel: The channel whose scale each input takes, (in,).

    Returns:
        (channels,)
    """
    sampled = [weight[:: max(1, len(weight) // MAX_ROWS)] for weight in weights]
    weight_max = torch.stack([weight.abs().amax(0) for weight in weights]).amax(0)
    best, least = torch.ones(int(channel.max()) + 1), float("inf")
    candidates = scale_candidates(_max_by_channel(inputs.abs_max, channel), _max_by_channel(weight_max, channel))
    for scale in (best, *candidates):
        input_scale = scale[channel]
        smoothed = inputs.divide_by(input_scale)
        loss = sum(smoothed.rtn_error(weight * input_scale, spec) for weight in sampled)
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


def _max_by_channel(values: Tensor, channel: Tensor) -> Tensor:
    """Returns the largest of `values` (in,) over the inputs that share a channel, (channels,)."""
    return torch.zeros(int(channel.max()) + 1).scatter_reduce(0, channel, values, "amax")
