"""INT4 linear layers as MatMulNBits, ONNX Runtime's operator that multiplies by packed weights."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from ..external_weights import Int4Layout
from .rewrite import find_matmuls, get_or_add_initializer, get_weight_dtype, replace_node

DOMAIN = "com.microsoft"
BITS = 4


def replace_with_matmul_nbits(model: ir.Model, linears: Mapping[str, Int4Layout], accuracy_level: int) -> ir.Model:
    """Replaces the MatMul nodes of INT4 linear layers, in place.

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
            sizes = {"N": outputs, "K": inputs, "bits": BITS, "block_size": layout.block_size}
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


def _describe_operands(layout: Int4Layout, dtype: ir.DataType) -> dict[str, tuple[ir.DataType, tuple[int, ...]]]:
    """Returns dtype and shape of each operand after the activations, in order."""
    outputs, inputs = layout.shape
    groups = inputs // layout.block_size
    operands: dict[str, tuple[ir.DataType, tuple[int, ...]]] = {
        "qweight": (ir.DataType.UINT8, (outputs, groups, layout.block_size // 2)),
        "scales": (dtype, (outputs, groups)),
    }
    if layout.has_zero_points:
        operands["zero_points"] = (ir.DataType.UINT8, (outputs, -(-groups // 2)))
    return operands
