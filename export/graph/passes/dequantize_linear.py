"""Linears of 4 bits as DequantizeLinear and MatMul, ONNX's own operators, which TensorRT fuses and ONNX Runtime too.

Both do so only where blocks run along axis 0 of a weight (inputs, outputs).
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from ..external_weights import Int4Layout
from .rewrite import find_matmuls, get_or_add_initializer, get_weight_dtype, replace_node

MIN_OPSET = 21  # the first whose DequantizeLinear knows blocks and 4 bits


def replace_with_dequantize_linear(model: ir.Model, linears: Mapping[str, Int4Layout]) -> ir.Model:
    """Replaces the products of a graph with its `packed` linears, which have no zero points, in place.

    Scales, and so what is dequantized, are in the dtype that the graph has the weight in.
    """
    for name, layout in linears.items():
        outputs, inputs = layout.shape
        dtype = get_weight_dtype(model, name)
        for matmul in find_matmuls(model, name):
            codes = get_or_add_initializer(model, f"{name}.qweight", ir.DataType.INT4, (inputs, outputs))
            scales = get_or_add_initializer(model, f"{name}.scales", dtype, (inputs // layout.block_size, outputs))
            dequantized = ir.node("DequantizeLinear", [codes, scales], {"axis": 0, "block_size": layout.block_size})
            multiplied = ir.node("MatMul", [matmul.inputs[0], dequantized.outputs[0]])
            replace_node(model, matmul, [dequantized, multiplied])
    return model
