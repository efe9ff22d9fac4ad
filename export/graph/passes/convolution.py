"""Convolutions with 8-bit weights: DequantizeLinear, with a scale for each output channel, feeds Conv."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from .rewrite import get_or_add_initializer

FLOAT16_MIN_OPSET = 19  # the first opset whose DequantizeLinear takes scales in float16


def dequantize_convolutions(model: ir.Model, convolutions: Mapping[str, tuple[int, ...]], opset: int) -> ir.Model:
    """Reads the weights of convolutions from 8-bit codes, in place.

    Where the opset cannot do that, the weights stay floats.

    Args:
        model: A traced graph.
        convolutions: Shapes of the weights by the convolution's name. Those that the graph does not contain are left
            out.
        opset: The opset that the graph will have.
    """
    for name, shape in convolutions.items():
        weight = model.graph.initializers.get(f"{name}.weight")
        if weight is None or weight.dtype is None or (weight.dtype.itemsize == 2 and opset < FLOAT16_MIN_OPSET):
            continue
        codes = get_or_add_initializer(model, f"{name}.codes", ir.DataType.INT8, shape)
        scales = get_or_add_initializer(model, f"{name}.scales", weight.dtype, shape[:1])
        # ONNX Runtime rejects scales of channels without zero points where `session.x64quantprecision` is set.
        zero_points = get_or_add_initializer(model, f"{name}.zero_points", ir.DataType.INT8, shape[:1])
        zero_points.const_value = ir.tensor(np.zeros(shape[:1], np.int8), name=zero_points.name)
        dequantize = ir.node("DequantizeLinear", [codes, scales, zero_points], {"axis": 0})
        values = dequantize.outputs[0]
        values.type, values.shape = weight.type, weight.shape
        first = next(node for node in model.graph if weight in node.inputs)
        model.graph.insert_before(first, dequantize)
        ir.convenience.replace_all_uses_with(weight, values)
    return model
