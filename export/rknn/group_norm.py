"""Decomposes GroupNormalization into channel means and two small convolutions, for NPUs.

InstanceNormalization over groups, the usual decomposition, has axes of channels · height · width elements. At 128 by
128 pixels these exceed the registers of the RK3576 (`REGTASK: The bit width of field value exceeds the limit`).

The input is scaled by 1/8 before it is squared: the square of 256 is infinite in float16, and the decoder of the demo
reaches 280 in some images.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...models.base.npu import MIN_VARIANCE, SQUARE_PRESCALE
from ..graph.passes.pattern import NodeBuilder, get_static_dim
from ..graph.passes.rewrite import replace_all_nodes

SPATIAL_AXES = [2, 3]  # height and width


def decompose_group_norm(model: ir.Model) -> ir.Model:
    """Decomposes every GroupNormalization of (1, channels, height, width) or (1, channels, length), in place."""
    return replace_all_nodes(model, "GroupNormalization", _build_nodes)


def _build_nodes(node: ir.Node) -> list[ir.Node]:
    x, weight, bias = node.inputs
    assert x is not None
    assert x.shape is not None
    op = NodeBuilder()
    is_image = len(x.shape) == len(SPATIAL_AXES) + 2
    group_average = make_group_average(get_static_dim(x, 1), node.attributes.get_int("num_groups", 0))
    image = x if is_image else op("Unsqueeze", x, [2])
    deviation = op("Sub", image, op("Conv", op("ReduceMean", image, SPATIAL_AXES, keepdims=1), group_average))
    scaled = op("Mul", deviation, np.float32(SQUARE_PRESCALE))
    squares = op("ReduceMean", op("Mul", scaled, scaled), SPATIAL_AXES, keepdims=1)
    epsilon = float(node.attributes.get_float("epsilon", 1e-5)) * SQUARE_PRESCALE**2
    variance = op("Add", op("Conv", squares, group_average), np.float32(max(epsilon, MIN_VARIANCE)))
    scale, shift = (op("Unsqueeze", parameter, [0, 2, 3]) for parameter in (weight, bias))
    normalized = op("Add", op("Mul", op("Div", scaled, op("Sqrt", variance)), scale), shift)
    if not is_image:
        op("Squeeze", normalized, [2])
    return op.nodes


def make_group_average(channels: int, groups: int) -> NDArray[np.float32]:
    """Returns the weight (channels, channels, 1, 1) of a convolution that replaces each channel by its group's mean."""
    size = channels // groups
    weight = np.kron(np.eye(groups), np.ones((size, size))) / size
    return weight[..., None, None].astype(np.float32)
