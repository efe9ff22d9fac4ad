"""RMSNorm: its seven nodes as one, and that one as its parts for opsets that do not have it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .linear import replace, replace_all
from .matching import Writer, constant, is_number, made_by

OPSET = 23  # the first that has RMSNormalization


def rms_norm(model: ir.Model) -> ir.Model:
    """Fuses x · (mean(x²) + ε)^-½ · weight over the last axis to RMSNormalization, in place.

    The weight must be an initializer of one axis; what lies between may be in float32, as RMSNormalization computes.
    """
    for node in list(model.graph):
        if node.op_type == "Mul" and (found := _match(node)) is not None:
            x, weight, epsilon = found
            replace(model, node, [ir.node("RMSNormalization", [x, weight], {"axis": -1, "epsilon": epsilon})])
    return model


def split_rms_norm(model: ir.Model) -> ir.Model:
    """Writes RMSNormalization as x / sqrt(mean(x²) + ε) · weight, which runtimes without it recognize, in place."""
    return replace_all(model, "RMSNormalization", _parts)


def _match(product: ir.Node) -> tuple[ir.Value, ir.Value, float] | None:
    """What is normalized, the weight and ε, where a product is that of a norm and its weight."""
    for weight, rest in _pairs(product):
        if weight.is_initializer() and weight.shape is not None and len(weight.shape) == 1:
            cast = made_by(rest, "Cast")
            found = _normalized(rest if cast is None else cast.inputs[0])
            narrow = None if found is None else _narrow(found[0], weight.dtype)
            if found is not None and narrow is not None:
                return narrow, weight, found[1]
    return None


def _normalized(value: ir.Value | None) -> tuple[ir.Value, float] | None:
    """x and ε, where a value is x · (mean(x²) + ε)^-½."""
    product = made_by(value, "Mul")
    for x, factor in _pairs(product) if product else ():
        sum_ = _under(factor, "Reciprocal", "Sqrt", "Add")
        mean = None if sum_ is None else made_by(sum_.inputs[0], "ReduceMean")
        epsilon = None if sum_ is None else constant(sum_.inputs[1])
        square = None if mean is None or not is_number(mean.inputs[1], -1) else made_by(mean.inputs[0], "Pow")
        if square and square.inputs[0] is x and is_number(square.inputs[1], 2) and epsilon is not None:
            return x, float(epsilon.item())
    return None


def _pairs(product: ir.Node) -> list[tuple[ir.Value, ir.Value]]:
    """The two factors, in either order."""
    first, second = product.inputs
    return [] if first is None or second is None else [(first, second), (second, first)]


def _under(value: ir.Value | None, *operators: str) -> ir.Node | None:
    """The last of some nodes that a value is made by one after another, from the value backwards; all but it unary."""
    node = None
    for operator in operators:
        node = made_by(value, operator)
        value = None if node is None else node.inputs[0]
    return node


def _narrow(x: ir.Value, dtype: ir.DataType | None) -> ir.Value | None:
    """x itself if it is of the dtype, or what was cast to it; None where neither is."""
    cast = made_by(x, "Cast")
    before = None if cast is None else cast.inputs[0]
    return next((value for value in (x, before) if value is not None and value.dtype == dtype), None)


def _parts(node: ir.Node) -> list[ir.Node]:
    x, weight = node.inputs
    assert x is not None
    op = Writer()
    wide = x if x.dtype == ir.DataType.FLOAT else op("Cast", x, to=ir.DataType.FLOAT)
    mean = op("ReduceMean", op("Mul", wide, wide), [-1], keepdims=1)
    root = op("Sqrt", op("Add", mean, np.float32(node.attributes.get_float("epsilon"))))
    normalized = op("Div", wide, root)
    if x.dtype != ir.DataType.FLOAT:
        normalized = op("Cast", normalized, to=x.dtype)
    op("Mul", normalized, weight)
    return op.nodes
