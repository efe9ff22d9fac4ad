"""SmoothQuant: what is hard to round in the channels of an input moves into the weights that read it.

After Xiao et al. 2022 (arXiv 2211.10438): inputs are divided by s and weights multiplied by it, with s_j =
max|x_j|^a / max|w_j|^(1-a). Here a is chosen for each fold, by the error of the outputs with inputs and weights rounded
as the device rounds them, and not to scale at all is a candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ...recipes.schema import Scheme
from .activation_rounding import CalibrationActivations
from .awq import MAX_ROWS

NUM_ALPHAS = 10  # exponents 1/10 ... 10/10 of the activations' part


def search_smoothquant_scale(
    weights: Sequence[Tensor], inputs: CalibrationActivations, scheme: Scheme, channel: Tensor
) -> Tensor:
    """The input scale, (channels,), under which rounded inputs and weights lose least.

    The losses of several readers are added relative to their outputs.

    Args:
        weights: the linears that read the input, each (out, in); of large ones some rows stand for all.
        channel: for each input, the channel whose scale it must take, (in,).
    """
    judged = [weight[:: max(1, len(weight) // MAX_ROWS)] for weight in weights]
    largest = torch.stack([weight.abs().amax(0) for weight in weights]).amax(0)
    best, least = torch.ones(int(channel.max()) + 1), float("inf")
    for scale in (best, *scale_candidates(_max_by_channel(inputs.abs_max, channel), _max_by_channel(largest, channel))):
        wide = scale[channel]
        smooth = inputs.divide_by(wide)
        loss = sum(smooth.rtn_error(weight * wide, scheme) for weight in judged)
        if loss < least:
            best, least = scale, loss
    return best


def scale_candidates(x: Tensor, w: Tensor) -> Iterator[Tensor]:
    """Scales to try, their geometric mean 1; channels that are always 0 keep theirs."""
    live = (x > 0) & (w > 0)
    if not live.any():
        return
    for step in range(1, NUM_ALPHAS + 1):
        strength = step / NUM_ALPHAS
        exponent = strength * x[live].log() - (1 - strength) * w[live].log()
        scale = torch.ones_like(x)
        scale[live] = (exponent - exponent.mean()).exp()
        yield scale


def _max_by_channel(values: Tensor, channel: Tensor) -> Tensor:
    """The largest of `values` (in,) over the inputs that share a channel, (channels,)."""
    return torch.zeros(int(channel.max()) + 1).scatter_reduce(0, channel, values, "amax")
