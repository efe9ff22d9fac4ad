"""Spares torch.onnx from interpreting graphs again where no dtype is promoted, a seventh of the time of tracing.

torch.onnx writes conversions where an operator's inputs have several dtypes. For that it runs each operator once more
with symbolic shapes, also those whose inputs stay as they are and whose output therefore is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.fx import Node


@contextmanager
def interpret_promoted_nodes_only() -> Iterator[None]:
    """While it is active, torch.onnx runs only operators again whose inputs it converts."""
    try:
        from torch.onnx._internal.fx.passes.type_promotion import _TypePromotionInterpreter, get_type_promotion_rule

        interpreter: Any = _TypePromotionInterpreter
        run_node, promote, set_node = (
            interpreter.run_node,
            interpreter._maybe_promote_node,
            interpreter._set_current_node,
        )
    except (ImportError, AttributeError):  # other versions of torch do it elsewhere, and are as slow
        yield
        return

    def run_if_promoted(self: Any, node: Node) -> Any:
        if node.op != "call_function" or "val" not in node.meta:
            return run_node(self, node)
        if rule := get_type_promotion_rule(node, self.type_promotion_table):
            with set_node(self, node):
                promote(self, node, rule)  # a node whose inputs change is run, and notes its output
        return node.meta["val"]

    interpreter.run_node = run_if_promoted
    try:
        yield
    finally:
        interpreter.run_node = run_node
