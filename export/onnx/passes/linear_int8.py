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

from ..weights import Bytes
from .linear import products, replace, weight
from .matching import Writer, made_by

DOMAIN = "com.microsoft"
LARGEST = 127  # the code of a token's largest value
MIDDLE = 128  # the unsigned code of 0
SMALLEST = 1e-30  # a token of zeros still has a scale that is not zero


def linear_int8(model: ir.Model, linears: Mapping[str, Bytes]) -> ir.Model:
    """Replaces the products of a graph with its 8-bit `linears` by products with what they stand for, in place."""
    for name, how in linears.items():
        outputs, inputs = how.shape
        for product in products(model, name):
            codes = weight(model, f"{name}.qweight", ir.DataType.INT8, (inputs, outputs))
            scales = weight(model, f"{name}.scales", ir.DataType.FLOAT, (outputs,))
            dequantized = ir.node("DequantizeLinear", [codes, scales], {"axis": 1})
            multiplied = ir.node("MatMul", [product.inputs[0], dequantized.outputs[0]])
            replace(model, product, [dequantized, multiplied])
    return model


def round_activations(model: ir.Model, linears: Mapping[str, Bytes], signed: bool) -> ir.Model:
    """Rounds what the products of `linear_int8` multiply with, in place; readers of one input share its codes.

    signed: whether codes on one scale are int8, not uint8 about 128.
    """
    zero = np.int8(0) if signed else np.uint8(MIDDLE)
    codes: dict[tuple[ir.Value | None, float | None], tuple[ir.Value, ...]] = {}
    for product in list(model.graph):
        dequantize = made_by(product.inputs[1], "DequantizeLinear") if product.op_type == "MatMul" else None
        how = linears.get(_linear_of(dequantize)) if dequantize else None
        if dequantize is None or how is None:
            continue
        op, x, scale = Writer(), product.inputs[0], how.input_scale
        if (x, scale) not in codes:
            codes[x, scale] = _per_token(op, x) if scale is None else _per_tensor(op, x, scale, zero)
        if scale is None:
            _multiply(op, dequantize, *codes[x, scale])
            model.graph.opset_imports[DOMAIN] = 1
        else:
            op("MatMul", *codes[x, scale], dequantize.outputs[0])
        replace(model, product, op.nodes)
        if not dequantize.outputs[0].uses():
            model.graph.remove(dequantize, safe=True)
    return model


def _linear_of(dequantize: ir.Node) -> str:
    """The linear whose weight a node dequantizes, if it is one's."""
    codes = dequantize.inputs[0]
    return "" if codes is None or codes.name is None else codes.name.removesuffix(".qweight")


def _per_token(op: Writer, x: ir.Value | None) -> tuple[ir.Value, ir.Value]:
    """Codes uint8 of tokens that were divided by their largest |x|, and those, (…, 1)."""
    largest = op("Max", op("ReduceMax", op("Abs", x), [-1], keepdims=1), np.float32(SMALLEST))
    codes = op("QuantizeLinear", op("Div", x, largest), np.float32(1 / LARGEST), np.uint8(MIDDLE))
    return codes, largest


def _per_tensor(op: Writer, x: ir.Value | None, scale: float, zero: np.generic) -> tuple[ir.Value]:
    """What codes on a scale stand for."""
    step = np.float32(scale)
    return (op("DequantizeLinear", op("QuantizeLinear", x, step, zero), step, zero),)


def _multiply(op: Writer, dequantize: ir.Node, codes: ir.Value, largest: ir.Value) -> None:
    """Tokens of codes times a weight's codes, in floats again and multiplied by what the tokens were divided by."""
    weights, scales = dequantize.inputs
    operands = codes, weights, np.float32(1 / LARGEST), scales, np.uint8(MIDDLE)
    op("Mul", op("MatMulIntegerToFloat", *operands, domain=DOMAIN), largest)
