"""Helpers for passes that match patterns: walk a graph backwards from a value, and build new nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def get_producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """Returns the node that produces a value, or None unless it is a standard ONNX operator of the given type."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type and node.domain == "" else None


def get_const_value(value: ir.Value | None) -> NDArray[Any] | None:
    """Returns the array of a constant value, or None where the value depends on inputs or weights."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def is_constant_scalar(value: ir.Value | None, number: float) -> bool:
    """Whether a value is a constant with one element that equals `number`."""
    array = get_const_value(value)
    return array is not None and array.size == 1 and bool(array.item() == number)


def get_static_dim(value: ir.Value, axis: int) -> int:
    """Returns the size of an axis that is not dynamic.

    Raises:
        ValueError: The axis is dynamic, or the shape is unknown.
    """
    size = None if value.shape is None else value.shape[axis]
    if isinstance(size, int):
        return size
    raise ValueError(f"axis {axis} of {value.name} is {size}, but must have a static size")


class NodeBuilder:
    """Collects new nodes in execution order. Each call adds one node and returns its output.

    Attributes:
        nodes: The nodes added so far.
    """

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []

    def __call__(self, op_type: str, *inputs: Any, domain: str = "", **attributes: Any) -> ir.Value:
        """Adds a node and returns its first output.

        Args:
            op_type: Name of the operator.
            inputs: Values, None for an omitted input, or constants: numpy arrays and scalars keep their dtype,
                anything else becomes int64.
            domain: Domain of the operator.
            attributes: Attributes of the node.
        """
        values = [value if isinstance(value, ir.Value | None) else self._add_constant(value) for value in inputs]
        node = ir.node(op_type, values, attributes, domain=domain)
        self.nodes.append(node)
        return node.outputs[0]

    def _add_constant(self, constant: Any) -> ir.Value:
        is_numpy = isinstance(constant, np.ndarray | np.generic)
        array = np.asarray(constant) if is_numpy else np.asarray(constant, np.int64)
        node = ir.node("Constant", [], {"value": ir.tensor(array)})
        self.nodes.append(node)
        return node.outputs[0]
