"""What passes share that look for patterns: reading a graph backwards, and making values that are constant."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def get_producer(value: ir.Value | None, operator: str) -> ir.Node | None:
    """The node that makes a value, if it is of an operator of ONNX's own."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == operator and node.domain == "" else None


def get_const_value(value: ir.Value | None) -> NDArray[Any] | None:
    """What a value always is, None where that depends on inputs or weights."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def is_constant_scalar(value: ir.Value | None, number: float) -> bool:
    """Whether a value is one number, always the same."""
    array = get_const_value(value)
    return array is not None and array.size == 1 and bool(array.item() == number)


def get_static_dim(value: ir.Value, axis: int) -> int:
    """The size of an axis that every size of picture and prompt leaves the same.

    Raises:
        ValueError: it is not known.
    """
    size = None if value.shape is None else value.shape[axis]
    if isinstance(size, int):
        return size
    raise ValueError(f"axis {axis} of {value.name} is {size}, but must be a number")


class NodeBuilder:
    """Collects new nodes in their order; every call gives the value that the node makes."""

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []

    def __call__(self, operator: str, *inputs: Any, domain: str = "", **attributes: Any) -> ir.Value:
        """Inputs that are no values are constants, numpy's as they are, anything else as integers; None is left out."""
        values = [value if isinstance(value, ir.Value | None) else self._add_constant(value) for value in inputs]
        node = ir.node(operator, values, attributes, domain=domain)
        self.nodes.append(node)
        return node.outputs[0]

    def _add_constant(self, array: Any) -> ir.Value:
        value = np.asarray(array) if isinstance(array, np.ndarray | np.generic) else np.asarray(array, np.int64)
        node = ir.node("Constant", [], {"value": ir.tensor(value)})
        self.nodes.append(node)
        return node.outputs[0]
