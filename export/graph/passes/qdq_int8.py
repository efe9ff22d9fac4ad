"""Linears of 8 bits, in two steps: by dequantized weights, then with activations rounded to 8 bits as well.

Rounded on a scale of each token, products are ONNX Runtime's own MatMulIntegerToFloat; on a scale of all tokens they
are written with ONNX's QuantizeLinear and DequantizeLinear, which ONNX Runtime and TensorRT fuse.

ONNX Runtime's codes of activations are unsigned: on x86 it multiplies signed by signed ones ten times as slowly (146 ms
instead of 13 for 1024 tokens through 1536 x 1536, one thread, ONNX Runtime 1.31), or does not fuse them where several
linears read them. TensorRT knows signed ones only.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ..external_weights import Int8Layout
from .pattern import NodeBuilder, get_producer
from .rewrite import find_matmuls, get_or_add_initializer, replace_node

DOMAIN = "com.microsoft"
INT8_MAX = 127  # the code of a token's largest value
UINT8_ZERO_POINT = 128  # the unsigned code of 0
MIN_SCALE = 1e-30  # a token of zeros still has a scale that is not zero


def replace_with_int8(model: ir.Model, linears: Mapping[str, Int8Layout]) -> ir.Model:
    """Replaces the products of a graph with its 8-bit `linears` by products with what they stand for, in place."""
    for name, layout in linears.items():
        outputs, inputs = layout.shape
        for matmul in find_matmuls(model, name):
            codes = get_or_add_initializer(model, f"{name}.qweight", ir.DataType.INT8, (inputs, outputs))
            scales = get_or_add_initializer(model, f"{name}.scales", ir.DataType.FLOAT, (outputs,))
            dequantized = ir.node("DequantizeLinear", [codes, scales], {"axis": 1})
            multiplied = ir.node("MatMul", [matmul.inputs[0], dequantized.outputs[0]])
            replace_node(model, matmul, [dequantized, multiplied])
    return model


def quantize_activations(model: ir.Model, linears: Mapping[str, Int8Layout], signed: bool) -> ir.Model:
    """Rounds what the products of `linear_int8` multiply with, in place; readers of one input share its codes.

    signed: whether codes on one scale are int8, not uint8 about 128.
    """
    zero = np.int8(0) if signed else np.uint8(UINT8_ZERO_POINT)
    codes: dict[tuple[ir.Value | None, float | None], tuple[ir.Value, ...]] = {}
    for matmul in list(model.graph):
        dequantize = get_producer(matmul.inputs[1], "DequantizeLinear") if matmul.op_type == "MatMul" else None
        layout = linears.get(_get_linear_name(dequantize)) if dequantize else None
        if dequantize is None or layout is None:
            continue
        builder, x, scale = NodeBuilder(), matmul.inputs[0], layout.input_scale
        if (x, scale) not in codes:
            codes[x, scale] = (
                _quantize_per_token(builder, x) if scale is None else _fake_quantize_per_tensor(builder, x, scale, zero)
            )
        if scale is None:
            _multiply_integers(builder, dequantize, *codes[x, scale])
            model.graph.opset_imports[DOMAIN] = 1
        else:
            builder("MatMul", *codes[x, scale], dequantize.outputs[0])
        replace_node(model, matmul, builder.nodes)
        if not dequantize.outputs[0].uses():
            model.graph.remove(dequantize, safe=True)
    return model


def _get_linear_name(dequantize: ir.Node) -> str:
    """The linear whose weight a node dequantizes, if it is one's."""
    codes = dequantize.inputs[0]
    return "" if codes is None or codes.name is None else codes.name.removesuffix(".qweight")


def _quantize_per_token(op: NodeBuilder, x: ir.Value | None) -> tuple[ir.Value, ir.Value]:
    """Codes uint8 of tokens that were divided by their largest |x|, and those, (…, 1)."""
    largest = op("Max", op("ReduceMax", op("Abs", x), [-1], keepdims=1), np.float32(MIN_SCALE))
    codes = op("QuantizeLinear", op("Div", x, largest), np.float32(1 / INT8_MAX), np.uint8(UINT8_ZERO_POINT))
    return codes, largest


def _fake_quantize_per_tensor(op: NodeBuilder, x: ir.Value | None, scale: float, zero: np.generic) -> tuple[ir.Value]:
    """What codes on a scale stand for."""
    step = np.float32(scale)
    return (op("DequantizeLinear", op("QuantizeLinear", x, step, zero), step, zero),)


def _multiply_integers(op: NodeBuilder, dequantize: ir.Node, codes: ir.Value, largest: ir.Value) -> None:
    """Tokens of codes times a weight's codes, in floats again and multiplied by what the tokens were divided by."""
    weights, scales = dequantize.inputs
    operands = codes, weights, np.float32(1 / INT8_MAX), scales, np.uint8(UINT8_ZERO_POINT)
    op("Mul", op("MatMulIntegerToFloat", *operands, domain=DOMAIN), largest)
