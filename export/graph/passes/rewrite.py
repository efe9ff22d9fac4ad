"""What passes over linears share: finding a linear's products, and putting nodes in their place."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir


def find_matmuls(model: ir.Model, linear: str) -> list[ir.Node]:
    """The MatMul nodes of a linear, whose second input is its transposed weight; none where a graph has no such linear.

    Raises:
        ValueError: something else is done with the weight.
    """
    weight = model.graph.initializers.get(f"{linear}.weight")
    transposes = [] if weight is None else [node for node, _ in weight.uses()]
    users = [use for node in transposes for use in node.outputs[0].uses()]
    if any(node.op_type != "Transpose" for node in transposes) or any(
        (node.op_type, place) != ("MatMul", 1) for node, place in users
    ):
        raise ValueError(f"the weight of {linear} is not only transposed and multiplied with")
    return [node for node, _ in users]


def get_weight_dtype(model: ir.Model, linear: str) -> ir.DataType:
    """That of a linear's weight; float32 where a graph has no such linear."""
    weight = model.graph.initializers.get(f"{linear}.weight")
    return ir.DataType.FLOAT if weight is None or weight.dtype is None else weight.dtype


def get_or_add_initializer(model: ir.Model, name: str, dtype: ir.DataType, shape: Sequence[int]) -> ir.Value:
    """An initializer without a value, made where the graph has none of that name."""
    if name not in model.graph.initializers:
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        model.graph.initializers[name] = value
    return model.graph.initializers[name]


def replace_node(model: ir.Model, old: ir.Node, nodes: Sequence[ir.Node]) -> None:
    """Puts nodes, of which the last gives what `old` gave, in its place; what fed it alone is left unused."""
    new, result = nodes[-1].outputs[0], old.outputs[0]
    new.name, new.type, new.shape = result.name, result.type, result.shape
    ir.convenience.replace_nodes_and_values(model.graph, old, [old], nodes, [result], [new])


def replace_all_nodes(model: ir.Model, op_type: str, decompose: Callable[[ir.Node], Sequence[ir.Node]]) -> ir.Model:
    """Puts `parts` of it in the place of every node of a type, in place."""
    for node in list(model.graph):
        if node.op_type == op_type:
            replace_node(model, node, decompose(node))
    return model
