"""INT8 linear layers in two steps: first with dequantized weights, then with quantized activations as well.

Dynamic activations have a scale per token and use ONNX Runtime's MatMulIntegerToFloat. Static activations have one
scale per tensor and use QuantizeLinear and DequantizeLinear, which ONNX Runtime and TensorRT fuse.

Codes of activations are unsigned for ONNX Runtime: on x86, signed by signed is ten times as slow (146 ms instead of
13 ms for 1024 tokens through 1536 x 1536, one thread, ONNX Runtime 1.31), or not fused where several layers share an
input. TensorRT supports signed codes only.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ....numerics.int8_rows import QMAX
from ..external_weights import Int8Layout
from ..int8_operands import ZERO_POINT
from .pattern import NodeBuilder, get_producer
from .rewrite import find_matmuls, get_or_add_initializer, replace_node

DOMAIN = "com.microsoft"
MIN_SCALE = 1e-30  # keeps the scale of an all-zero token above zero


def replace_with_int8(model: ir.Model, linears: Mapping[str, Int8Layout]) -> ir.Model:
    """Replaces the MatMul nodes of INT8 linear layers by products with their dequantized weights, in place.

    Args:
        model: A traced graph.
        linears: Layouts by layer name.
    """
    for name, layout in linears.items():
        outputs, inputs = layout.shape
        for matmul in find_matmuls(model, name):
            codes = get_or_add_initializer(model, f"{name}.qweight", ir.DataType.INT8, (inputs, outputs))
            scales = get_or_add_initializer(model, f"{name}.scales", ir.DataType.FLOAT, (outputs,))
            dequantize = ir.node("DequantizeLinear", [codes, scales], {"axis": 1})
            product = ir.node("MatMul", [matmul.inputs[0], dequantize.outputs[0]])
            replace_node(model, matmul, [dequantize, product])
    return model


def quantize_activations(model: ir.Model, linears: Mapping[str, Int8Layout], signed: bool) -> ir.Model:
    """Quantizes the inputs of the layers that `replace_with_int8` rewrote, in place.

    Layers that read the same input on the same scale share its codes.

    Args:
        model: A graph that `replace_with_int8` returned.
        linears: The same layouts.
        signed: Whether codes on a static scale are int8 rather than uint8 with zero point 128.
    """
    zero_point = np.int8(0) if signed else np.uint8(ZERO_POINT)
    codes: dict[tuple[ir.Value | None, float | None], tuple[ir.Value, ...]] = {}
    for matmul in list(model.graph):
        dequantize = get_producer(matmul.inputs[1], "DequantizeLinear") if matmul.op_type == "MatMul" else None
        layout = linears.get(_get_linear_name(dequantize)) if dequantize else None
        if dequantize is None or layout is None:
            continue
        op, x, scale = NodeBuilder(), matmul.inputs[0], layout.input_scale
        if (x, scale) not in codes:
            codes[x, scale] = (
                _quantize_per_token(op, x) if scale is None else _fake_quantize_per_tensor(op, x, scale, zero_point)
            )
        if scale is None:
            _multiply_integers(op, dequantize, *codes[x, scale])
            model.graph.opset_imports[DOMAIN] = 1
        else:
            op("MatMul", *codes[x, scale], dequantize.outputs[0])
        replace_node(model, matmul, op.nodes)
        if not dequantize.outputs[0].uses():
            model.graph.remove(dequantize, safe=True)
    return model


def _get_linear_name(dequantize: ir.Node) -> str:
    """Returns the name of the layer whose weight a node dequantizes, as far as its initializer says."""
    codes = dequantize.inputs[0]
    return "" if codes is None or codes.name is None else codes.name.removesuffix(".qweight")


def _quantize_per_token(op: NodeBuilder, x: ir.Value | None) -> tuple[ir.Value, ir.Value]:
    """Returns uint8 codes of tokens divided by their largest |x|, and those largest values (..., 1)."""
    abs_max = op("Max", op("ReduceMax", op("Abs", x), [-1], keepdims=1), np.float32(MIN_SCALE))
    codes = op("QuantizeLinear", op("Div", x, abs_max), np.float32(1 / QMAX), np.uint8(ZERO_POINT))
    return codes, abs_max


def _fake_quantize_per_tensor(
    op: NodeBuilder, x: ir.Value | None, scale: float, zero_point: np.generic
) -> tuple[ir.Value]:
    """Returns x quantized on a scale and dequantized again."""
    step = np.float32(scale)
    return (op("DequantizeLinear", op("QuantizeLinear", x, step, zero_point), step, zero_point),)


def _multiply_integers(op: NodeBuilder, dequantize: ir.Node, codes: ir.Value, abs_max: ir.Value) -> None:
    """Multiplies codes of tokens by codes of a weight, and scales the product back to floats."""
    weights, scales = dequantize.inputs
    operands = codes, weights, np.float32(1 / QMAX), scales, np.uint8(ZERO_POINT)
    op("Mul", op("MatMulIntegerToFloat", *operands, domain=DOMAIN), abs_max)
