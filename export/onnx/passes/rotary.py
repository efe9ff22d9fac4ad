"""RotaryEmbedding of neighbouring channels as its parts, for opsets that do not have it.

ONNX Runtime's took 0.3 ms for 1056 tokens in 8 heads of 128 on a CPU, the parts 2.5 ms (one thread).
"""

from __future__ import annotations

import onnx_ir as ir

from .linear import replace_all
from .matching import Writer, known

OPSET = 23  # the first that has RotaryEmbedding


def split_rotary(model: ir.Model) -> ir.Model:
    """Writes every RotaryEmbedding as products and sums, in place.

    Its input must be rows (1, tokens, heads · size), its tables (1, tokens, size / 2), and its pairs neighbours.
    """
    return replace_all(model, "RotaryEmbedding", _parts)


def _parts(node: ir.Node) -> list[ir.Node]:
    x, cos, sin = node.inputs
    assert x is not None
    assert cos is not None
    op = Writer()
    width, half = known(x, 2), known(cos, 2)
    pairs = op("Reshape", x, [0, 0, width // (2 * half), half, 2])
    even, odd = (op("Gather", pairs, place, axis=-1) for place in (0, 1))
    cos, sin = (op("Unsqueeze", table, [2]) for table in (cos, sin))
    first = op("Sub", op("Mul", even, cos), op("Mul", odd, sin))
    second = op("Add", op("Mul", even, sin), op("Mul", odd, cos))
    turned = op("Concat", *(op("Unsqueeze", half, [-1]) for half in (first, second)), axis=-1)
    op("Reshape", turned, [0, 0, width])
    return op.nodes
