"""INT4 and INT8 linear layers as DequantizeLinear and MatMul.

Both are standard ONNX operators. TensorRT and ONNX Runtime fuse them, but only where blocks run along axis 0 of a
weight (inputs, outputs).
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from ..external_weights import Int4Layout, Int8Layout
from .rewrite import find_matmuls, get_or_add_initializer, get_weight_dtype, replace_node


def replace_with_dequantize_linear(model: ir.Model, linears: Mapping[str, Int4Layout | Int8Layout]) -> ir.Model:
    """Replaces the MatMul nodes of linear layers whose weights alone are quantized, in place.

    Scales, and thus the dequantized weights, have the dtype of the weight in the graph.

    Args:
        model: A traced graph.
        linears: Layouts by layer name. Zero points must all be 8.
    """
    for name, layout in linears.items():
        outputs, inputs = layout.shape
        dtype = get_weight_dtype(model, name)
        groups: tuple[int, ...]
        for matmul in find_matmuls(model, name):
            if isinstance(layout, Int4Layout):
                code_dtype, groups = ir.DataType.INT4, (inputs // layout.block_size, outputs)
                attributes = {"axis": 0, "block_size": layout.block_size}
            else:
                code_dtype, groups, attributes = ir.DataType.INT8, (outputs,), {"axis": 1}
            codes = get_or_add_initializer(model, f"{name}.qweight", code_dtype, (inputs, outputs))
            scales = get_or_add_initializer(model, f"{name}.scales", dtype, groups)
            dequantize = ir.node("DequantizeLinear", [codes, scales], attributes)
            product = ir.node("MatMul", [matmul.inputs[0], dequantize.outputs[0]])
            replace_node(model, matmul, [dequantize, product])
    return model
