"""RMSNorm: fuses its seven nodes into RMSNormalization, and decomposes that for opsets without it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .pattern import NodeBuilder, get_const_value, get_producer, is_constant_scalar
from .rewrite import replace_all_nodes, replace_node

MIN_OPSET = 23  # the first opset with RMSNormalization


def fuse_rms_norm(model: ir.Model) -> ir.Model:
    """Fuses x · (mean(x²) + ε)^-½ · weight over the last axis into RMSNormalization, in place.

    The weight must be an initializer with one axis. The norm may be computed in float32 between two casts, as
    RMSNormalization does.
    """
    for node in list(model.graph):
        if node.op_type == "Mul" and (match := _match_norm(node)) is not None:
            x, weight, epsilon = match
            replace_node(model, node, [ir.node("RMSNormalization", [x, weight], {"axis": -1, "epsilon": epsilon})])
    return model


def decompose_rms_norm(model: ir.Model) -> ir.Model:
    """Replaces RMSNormalization by x / sqrt(mean(x²) + ε) · weight, a pattern that runtimes recognize, in place."""
    return replace_all_nodes(model, "RMSNormalization", _decompose)


def _match_norm(product: ir.Node) -> tuple[ir.Value, ir.Value, float] | None:
    """Returns x, weight and ε where a product is that of a norm and its weight."""
    for weight, factor in _list_factor_pairs(product):
        if weight.is_initializer() and weight.shape is not None and len(weight.shape) == 1:
            cast = get_producer(factor, "Cast")
            match = _match_normalization(factor if cast is None else cast.inputs[0])
            x = None if match is None else _undo_cast(match[0], weight.dtype)
            if match is not None and x is not None:
                return x, weight, match[1]
    return None


def _match_normalization(value: ir.Value | None) -> tuple[ir.Value, float] | None:
    """Returns x and ε where a value is x · (mean(x²) + ε)^-½."""
    product = get_producer(value, "Mul")
    for x, factor in _list_factor_pairs(product) if product else ():
        sum_ = _follow_producers(factor, "Reciprocal", "Sqrt", "Add")
        mean = None if sum_ is None else get_producer(sum_.inputs[0], "ReduceMean")
        epsilon = None if sum_ is None else get_const_value(sum_.inputs[1])
        is_last_axis = mean is not None and is_constant_scalar(mean.inputs[1], -1)
        square = get_producer(mean.inputs[0], "Pow") if mean is not None and is_last_axis else None
        if square and square.inputs[0] is x and is_constant_scalar(square.inputs[1], 2) and epsilon is not None:
            return x, float(epsilon.item())
    return None


def _list_factor_pairs(product: ir.Node) -> list[tuple[ir.Value, ir.Value]]:
    """Returns the two factors of a product in both orders."""
    first, second = product.inputs
    return [] if first is None or second is None else [(first, second), (second, first)]


def _follow_producers(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """Walks backwards from a value along first inputs, and returns the last node if all operators match."""
    node = None
    for op_type in op_types:
        node = get_producer(value, op_type)
        value = None if node is None else node.inputs[0]
    return node


def _undo_cast(x: ir.Value, dtype: ir.DataType | None) -> ir.Value | None:
    """Returns x or the value it was cast from, whichever has the dtype; None if neither has."""
    cast = get_producer(x, "Cast")
    source = None if cast is None else cast.inputs[0]
    return next((value for value in (x, source) if value is not None and value.dtype == dtype), None)


def _decompose(node: ir.Node) -> list[ir.Node]:
    x, weight = node.inputs
    assert x is not None
    op = NodeBuilder()
    wide = x if x.dtype == ir.DataType.FLOAT else op("Cast", x, to=ir.DataType.FLOAT)
    mean = op("ReduceMean", op("Mul", wide, wide), [-1], keepdims=1)
    root = op("Sqrt", op("Add", mean, np.float32(node.attributes.get_float("epsilon"))))
    normalized = op("Div", wide, root)
    if x.dtype != ir.DataType.FLOAT:
        normalized = op("Cast", normalized, to=x.dtype)
    op("Mul", normalized, weight)
    return op.nodes
