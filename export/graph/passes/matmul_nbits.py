"""INT4 and INT8 linear layers as MatMulNBits, ONNX Runtime's operator that multiplies by packed weights."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from ..external_weights import Int4Layout, Int8Layout
from ..int8_operands import get_block_size
from .rewrite import find_matmuls, get_or_add_initializer, get_weight_dtype, replace_node

DOMAIN = "com.microsoft"


def replace_with_matmul_nbits(
    model: ir.Model, linears: Mapping[str, Int4Layout | Int8Layout], accuracy_level: int
) -> ir.Model:
    """Replaces the MatMul nodes of linear layers whose weights alone are quantized, in place.

    Scales have the dtype of the weight in the graph.

    Args:
        model: A traced graph.
        linears: Layouts by layer name.
        accuracy_level: Attribute of MatMulNBits. 0 multiplies in the precision of the inputs, 4 in int8.
    """
    for name, layout in linears.items():
        dtype = get_weight_dtype(model, name)
        for matmul in find_matmuls(model, name):
            operands = [
                get_or_add_initializer(model, f"{name}.{kind}", *spec)
                for kind, spec in _describe_operands(layout, dtype).items()
            ]
            outputs, inputs = layout.shape
            bits, block_size = _get_format(layout)
            sizes = {"N": outputs, "K": inputs, "bits": bits, "block_size": block_size}
            attributes = sizes | {"accuracy_level": accuracy_level}
            node = ir.node("MatMulNBits", [matmul.inputs[0], *operands], attributes, domain=DOMAIN)
            replace_node(model, matmul, [node])
            model.graph.opset_imports[DOMAIN] = 1
    return model


def set_accuracy_level(model: ir.Model, accuracy_level: int) -> ir.Model:
    """Sets the accuracy level of every MatMulNBits node, in place."""
    for node in model.graph:
        if node.op_type == "MatMulNBits":
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", accuracy_level)
    return model


def _get_format(layout: Int4Layout | Int8Layout) -> tuple[int, int]:
    """Returns the bits of a code and the inputs of a block."""
    return (4, layout.block_size) if isinstance(layout, Int4Layout) else (8, get_block_size(layout.shape[1]))


def _describe_operands(
    layout: Int4Layout | Int8Layout, dtype: ir.DataType
) -> dict[str, tuple[ir.DataType, tuple[int, ...]]]:
    """Returns dtype and shape of each operand after the activations, in order."""
    outputs, inputs = layout.shape
    bits, block_size = _get_format(layout)
    groups = inputs // block_size
    operands: dict[str, tuple[ir.DataType, tuple[int, ...]]] = {
        "qweight": (ir.DataType.UINT8, (outputs, groups, block_size * bits // 8)),
        "scales": (dtype, (outputs, groups)),
    }
    if isinstance(layout, Int4Layout) and layout.has_zero_points:
        operands["zero_points"] = (ir.DataType.UINT8, (outputs, -(-groups // 2)))
    return operands
