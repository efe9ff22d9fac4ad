"""Linears of 4 bits as MatMulNBits, ONNX Runtime's operator, which multiplies by the codes themselves."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from ..external_weights import Int4Layout
from .rewrite import find_matmuls, get_or_add_initializer, get_weight_dtype, replace_node

DOMAIN = "com.microsoft"
BITS = 4


def replace_with_matmul_nbits(model: ir.Model, linears: Mapping[str, Int4Layout], accuracy_level: int) -> ir.Model:
    """Replaces the products of a graph with its `packed` linears, in place.

    Scales are in the dtype that the graph has the weight in. accuracy_level: MatMulNBits' own; 0 multiplies in the
    inputs' precision, 4 in 8-bit integers.
    """
    for name, layout in linears.items():
        dtype = get_weight_dtype(model, name)
        for matmul in find_matmuls(model, name):
            operands = [
                get_or_add_initializer(model, f"{name}.{kind}", *spec)
                for kind, spec in _describe_operands(layout, dtype).items()
            ]
            node = ir.node(
                "MatMulNBits", [matmul.inputs[0], *operands], _build_attributes(layout, accuracy_level), domain=DOMAIN
            )
            replace_node(model, matmul, [node])
            model.graph.opset_imports[DOMAIN] = 1
    return model


def set_accuracy_level(model: ir.Model, accuracy_level: int) -> ir.Model:
    """Changes the accuracy level of every MatMulNBits of a graph, in place."""
    for node in model.graph:
        if node.op_type == "MatMulNBits":
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", accuracy_level)
    return model


def _describe_operands(layout: Int4Layout, dtype: ir.DataType) -> dict[str, tuple[ir.DataType, tuple[int, ...]]]:
    """The dtypes and shapes of what follows the input, by name."""
    outputs, inputs = layout.shape
    groups = inputs // layout.block_size
    operands: dict[str, tuple[ir.DataType, tuple[int, ...]]] = {
        "qweight": (ir.DataType.UINT8, (outputs, groups, layout.block_size // 2)),
        "scales": (dtype, (outputs, groups)),
    }
    return operands | (
        {"zero_points": (ir.DataType.UINT8, (outputs, -(-groups // 2)))} if layout.has_zero_points else {}
    )


def _build_attributes(layout: Int4Layout, accuracy_level: int) -> dict[str, int]:
    outputs, inputs = layout.shape
    sizes = {"N": outputs, "K": inputs, "bits": BITS, "block_size": layout.block_size}
    return sizes | {"accuracy_level": accuracy_level}
