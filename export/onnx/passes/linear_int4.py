"""Linears of 4 bits as MatMulNBits, ONNX Runtime's operator, which multiplies by the codes themselves."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from ..weights import Packed
from .linear import dtype_of, products, replace, weight

DOMAIN = "com.microsoft"
BITS = 4


def linear_int4(model: ir.Model, packed: Mapping[str, Packed], accuracy_level: int) -> ir.Model:
    """Replaces the products of a graph with its `packed` linears, in place.

    Scales are in the dtype that the graph has the weight in. accuracy_level: MatMulNBits' own; 0 multiplies in the
    inputs' precision, 4 in 8-bit integers.
    """
    for name, how in packed.items():
        dtype = dtype_of(model, name)
        for product in products(model, name):
            operands = [weight(model, f"{name}.{kind}", *spec) for kind, spec in _operands(how, dtype).items()]
            node = ir.node(
                "MatMulNBits", [product.inputs[0], *operands], _attributes(how, accuracy_level), domain=DOMAIN
            )
            replace(model, product, [node])
            model.graph.opset_imports[DOMAIN] = 1
    return model


def set_accuracy_level(model: ir.Model, accuracy_level: int) -> ir.Model:
    """Changes the accuracy level of every MatMulNBits of a graph, in place."""
    for node in model.graph:
        if node.op_type == "MatMulNBits":
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", accuracy_level)
    return model


def _operands(how: Packed, dtype: ir.DataType) -> dict[str, tuple[ir.DataType, tuple[int, ...]]]:
    """The dtypes and shapes of what follows the input, by name."""
    outputs, inputs = how.shape
    groups = inputs // how.block
    found: dict[str, tuple[ir.DataType, tuple[int, ...]]] = {
        "qweight": (ir.DataType.UINT8, (outputs, groups, how.block // 2)),
        "scales": (dtype, (outputs, groups)),
    }
    return found | ({"zero_points": (ir.DataType.UINT8, (outputs, -(-groups // 2)))} if how.zero_points else {})


def _attributes(how: Packed, accuracy_level: int) -> dict[str, int]:
    outputs, inputs = how.shape
    sizes = {"N": outputs, "K": inputs, "bits": BITS, "block_size": how.block}
    return sizes | {"accuracy_level": accuracy_level}
