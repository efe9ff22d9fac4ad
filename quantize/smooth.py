"""SmoothQuant: what is hard to round in the channels of an input moves into the weights that read it.

After Xiao et al. 2022 (arXiv 2211.10438): inputs are divided by s and weights multiplied by it, with s_j =
max|x_j|^a / max|w_j|^(1-a). Here a is chosen for each fold, by the error of the outputs with inputs and weights rounded
as the device rounds them, and not to scale at all is a candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..recipe import Scheme
from .activations import Activations
from .awq import ROWS

STRENGTHS = 10  # exponents 1/10 ... 10/10 of the activations' part


def search_smoothing(weights: Sequence[Tensor], inputs: Activations, scheme: Scheme, channel: Tensor) -> Tensor:
    """The input scale, (channels,), under which rounded inputs and weights lose least.

    The losses of several readers are added relative to their outputs.

    Args:
        weights: the linears that read the input, each (out, in); of large ones some rows stand for all.
        channel: for each input, the channel whose scale it must take, (in,).
    """
    judged = [weight[:: max(1, len(weight) // ROWS)] for weight in weights]
    largest = torch.stack([weight.abs().amax(0) for weight in weights]).amax(0)
    best, least = torch.ones(int(channel.max()) + 1), float("inf")
    for scale in (best, *candidates(_of_channels(inputs.largest, channel), _of_channels(largest, channel))):
        wide = scale[channel]
        smooth = inputs.divided(wide)
        loss = sum(smooth.rounding_error(weight * wide, scheme) for weight in judged)
        if loss < least:
            best, least = scale, loss
    return best


def candidates(x: Tensor, w: Tensor) -> Iterator[Tensor]:
    """Scales to try, their geometric mean 1; channels that are always 0 keep theirs."""
    live = (x > 0) & (w > 0)
    if not live.any():
        return
    for step in range(1, STRENGTHS + 1):
        strength = step / STRENGTHS
        exponent = strength * x[live].log() - (1 - strength) * w[live].log()
        scale = torch.ones_like(x)
        scale[live] = (exponent - exponent.mean()).exp()
        yield scale


def _of_channels(values: Tensor, channel: Tensor) -> Tensor:
    """The largest of `values` (in,) over the inputs that share a channel, (channels,)."""
    return torch.zeros(int(channel.max()) + 1).scatter_reduce(0, channel, values, "amax")
