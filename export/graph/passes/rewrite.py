"""Helpers for passes that rewrite linear layers: find their MatMul nodes and replace nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir


def find_matmuls(model: ir.Model, linear: str) -> list[ir.Node]:
    """Returns the MatMul nodes of a linear layer, whose second input is its transposed weight.

    The list is empty where the graph does not contain the layer.

    Raises:
        ValueError: Another operator reads the weight.
    """
    weight = model.graph.initializers.get(f"{linear}.weight")
    transposes = [] if weight is None else [node for node, _ in weight.uses()]
    uses = [use for node in transposes for use in node.outputs[0].uses()]
    if any(node.op_type != "Transpose" for node in transposes) or any(
        (node.op_type, index) != ("MatMul", 1) for node, index in uses
    ):
        raise ValueError(f"the weight of {linear} has users other than Transpose and MatMul")
    return [node for node, _ in uses]


def get_weight_dtype(model: ir.Model, linear: str) -> ir.DataType:
    """Returns the dtype of a linear layer's weight, float32 where the graph does not contain the layer."""
    weight = model.graph.initializers.get(f"{linear}.weight")
    return ir.DataType.FLOAT if weight is None or weight.dtype is None else weight.dtype


def get_or_add_initializer(model: ir.Model, name: str, dtype: ir.DataType, shape: Sequence[int]) -> ir.Value:
    """Returns an initializer by name. A missing one is added without a value."""
    if name not in model.graph.initializers:
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        model.graph.initializers[name] = value
    return model.graph.initializers[name]


def replace_node(model: ir.Model, node: ir.Node, replacement: Sequence[ir.Node]) -> None:
    """Replaces a node by several, of which the last produces its output. Unused producers of its inputs remain."""
    new, old = replacement[-1].outputs[0], node.outputs[0]
    new.name, new.type, new.shape = old.name, old.type, old.shape
    ir.convenience.replace_nodes_and_values(model.graph, node, [node], replacement, [old], [new])


def replace_all_nodes(model: ir.Model, op_type: str, decompose: Callable[[ir.Node], Sequence[ir.Node]]) -> ir.Model:
    """Replaces every node of a type by the nodes that `decompose` returns for it, in place."""
    for node in list(model.graph):
        if node.op_type == op_type:
            replace_node(model, node, decompose(node))
    return model
