"""GroupNormalization as InstanceNormalization over groups.

All opsets have InstanceNormalization, and on ONNX Runtime's CPU it is faster: 9 ms instead of 30 ms for 128 channels of
256 by 256 in 32 groups (one thread, ONNX Runtime 1.31), in less than half the memory.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .pattern import NodeBuilder
from .rewrite import replace_all_nodes

# Opset 21 gave GroupNormalization a weight per channel, but TensorRT reads that only since 10.9.
MIN_OPSET = 23


def decompose_group_norm(model: ir.Model) -> ir.Model:
    """Replaces every GroupNormalization by InstanceNormalization, in place. Inputs are (1, channels, ...), any rank."""
    return replace_all_nodes(model, "GroupNormalization", _decompose)


def _decompose(node: ir.Node) -> list[ir.Node]:
    x, weight, bias = node.inputs
    assert x is not None
    assert x.shape is not None
    op = NodeBuilder()
    dtype = np.float16 if x.dtype == ir.DataType.FLOAT16 else np.float32
    num_groups = node.attributes.get_int("num_groups", 0)
    groups = op("Reshape", x, [0, num_groups, -1])
    ones, zeros = np.ones(num_groups, dtype), np.zeros(num_groups, dtype)
    normalized = op("InstanceNormalization", groups, ones, zeros, epsilon=node.attributes.get_float("epsilon", 1e-5))
    image = op("Reshape", normalized, op("Shape", x))
    axes = list(range(1, len(x.shape) - 1))
    weight, bias = (op("Unsqueeze", parameter, axes) for parameter in (weight, bias))
    op("Add", op("Mul", image, weight), bias)
    return op.nodes
