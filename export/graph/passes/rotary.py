"""RotaryEmbedding of interleaved channels, decomposed for opsets without it.

ONNX Runtime's operator took 0.3 ms for 1056 tokens in 8 heads of 128 on a CPU, the decomposed form 2.5 ms (one
thread).
"""

from __future__ import annotations

import onnx_ir as ir

from .pattern import NodeBuilder, get_static_dim
from .rewrite import replace_all_nodes

MIN_OPSET = 23  # the first opset with RotaryEmbedding


def decompose_rotary(model: ir.Model) -> ir.Model:
    """Replaces every RotaryEmbedding by products and sums, in place.

    Its input must be (1, tokens, heads * size), its tables (1, tokens, size / 2), and its channels interleaved.
    """
    return replace_all_nodes(model, "RotaryEmbedding", _decompose)


def _decompose(node: ir.Node) -> list[ir.Node]:
    x, cos, sin = node.inputs
    assert x is not None
    assert cos is not None
    op = NodeBuilder()
    width, half = get_static_dim(x, 2), get_static_dim(cos, 2)
    pairs = op("Reshape", x, [0, 0, width // (2 * half), half, 2])
    even, odd = (op("Gather", pairs, index, axis=-1) for index in (0, 1))
    cos, sin = (op("Unsqueeze", table, [2]) for table in (cos, sin))
    first = op("Sub", op("Mul", even, cos), op("Mul", odd, sin))
    second = op("Add", op("Mul", even, sin), op("Mul", odd, cos))
    rotated = op("Concat", *(op("Unsqueeze", channels, [-1]) for channels in (first, second)), axis=-1)
    op("Reshape", rotated, [0, 0, width])
    return op.nodes
