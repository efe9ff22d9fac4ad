"""INT4 linear layers as DequantizeLinear and MatMul.

Both are standard ONNX operators. TensorRT and ONNX Runtime fuse them, but only where blocks run along axis 0 of a
weight (inputs, outputs).
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from ..external_weights import Int4Layout
from .rewrite import find_matmuls, get_or_add_initializer, get_weight_dtype, replace_node

MIN_OPSET = 21  # the first opset whose DequantizeLinear supports blocks and INT4


def replace_with_dequantize_linear(model: ir.Model, linears: Mapping[str, Int4Layout]) -> ir.Model:
    """Replaces the MatMul nodes of INT4 linear layers, in place.

    Scales, and thus the dequantized weights, have the dtype of the weight in the graph.

    Args:
        model: A traced graph.
        linears: Layouts by layer name. Zero points must all be 8.
    """
    for name, layout in linears.items():
        outputs, inputs = layout.shape
        dtype = get_weight_dtype(model, name)
        for matmul in find_matmuls(model, name):
            codes = get_or_add_initializer(model, f"{name}.qweight", ir.DataType.INT4, (inputs, outputs))
            scales = get_or_add_initializer(model, f"{name}.scales", dtype, (inputs // layout.block_size, outputs))
            dequantize = ir.node("DequantizeLinear", [codes, scales], {"axis": 0, "block_size": layout.block_size})
            product = ir.node("MatMul", [matmul.inputs[0], dequantize.outputs[0]])
            replace_node(model, matmul, [dequantize, product])
    return model
