"""Linears of a model in bfloat16 or float16 whose products are computed in float32.

What comes out is rounded to the dtype of the input, as on a processor that multiplies that dtype by itself: it sums in
float32 too. A processor that cannot is several times as fast this way.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

CHUNK_BYTES = 2**24  # of a weight that are cast at once


def compute_linears_in_float32(model: nn.Module) -> None:
    """Lets all linears of a model compute in float32; their weights stay as they are."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.forward = partial(_compute_linear, module)  # type: ignore[method-assign]


def _compute_linear(linear: nn.Linear, input: Tensor) -> Tensor:  # noqa: A002  as nn.Linear calls it
    """Returns the output (..., out) of a linear for an input (..., in), in the dtype of the input."""
    rows = max(1, CHUNK_BYTES // (4 * linear.in_features))
    output, wide = input.new_empty(*input.shape[:-1], linear.out_features), input.float()
    for start in range(0, linear.out_features, rows):
        span = slice(start, start + rows)
        bias = None if linear.bias is None else linear.bias[span].float()
        output[..., span] = F.linear(wide, linear.weight[span].float(), bias)
    return output
