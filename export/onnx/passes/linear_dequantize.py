"""Linears of 4 bits as DequantizeLinear and MatMul, ONNX's own operators, which TensorRT fuses and ONNX Runtime too.

Both do so only where blocks run along axis 0 of a weight (inputs, outputs).
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from ..weights import Packed
from .linear import dtype_of, products, replace, weight

OPSET = 21  # the first whose DequantizeLinear knows blocks and 4 bits


def linear_dequantize(model: ir.Model, packed: Mapping[str, Packed]) -> ir.Model:
    """Replaces the products of a graph with its `packed` linears, which have no zero points, in place.

    Scales, and so what is dequantized, are in the dtype that the graph has the weight in.
    """
    for name, how in packed.items():
        outputs, inputs = how.shape
        dtype = dtype_of(model, name)
        for product in products(model, name):
            codes = weight(model, f"{name}.qweight", ir.DataType.INT4, (inputs, outputs))
            scales = weight(model, f"{name}.scales", dtype, (inputs // how.block, outputs))
            dequantized = ir.node("DequantizeLinear", [codes, scales], {"axis": 0, "block_size": how.block})
            multiplied = ir.node("MatMul", [product.inputs[0], dequantized.outputs[0]])
            replace(model, product, [dequantized, multiplied])
    return model
