"""From a traced graph to the operators that a target has: fused where it has them, their parts where not."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from ...common.errors import UserError
from .passes import attention, group_norm, rms_norm, rotary
from .passes.simplify import fold_constants

SUPPORTED_OPSETS = range(18, 25)


def lower_graph(model: ir.Model, opset: int, allow_contrib_ops: bool) -> ir.Model:
    """Rewrites what `trace` gives for an opset, in place.

    Args:
        microsoft: whether ONNX Runtime's own operators may be used.

    Raises:
        UserError: the graph cannot be written in that opset.
    """
    if opset not in SUPPORTED_OPSETS:
        raise UserError(
            f"Opset {opset} cannot be written; give one from {SUPPORTED_OPSETS[0]} to {SUPPORTED_OPSETS[-1]}."
        )
    if allow_contrib_ops:
        attention.fuse_attention(model)
    if allow_contrib_ops or opset < group_norm.MIN_OPSET:
        group_norm.decompose_group_norm(model)
    if opset < attention.MIN_OPSET:
        attention.decompose_attention(model)
    if opset < rotary.MIN_OPSET:
        rotary.decompose_rotary(model)
    if opset < rms_norm.MIN_OPSET:
        rms_norm.decompose_rms_norm(model)
    model = fold_constants(model)
    model.graph.opset_imports[""] = opset
    _require_supported_nodes(model, opset)
    return model


def _require_supported_nodes(model: ir.Model, opset: int) -> None:
    """Raises UserError where a node is of an operator, or has an attribute, that the opset does not know."""
    for node in model.graph:
        if node.domain == "":
            try:
                schema = onnx.defs.get_schema(node.op_type, opset)
            except onnx.defs.SchemaError:
                is_supported = False
            else:
                is_supported = set(node.attributes) <= set(schema.attributes) and not schema.deprecated
            if not is_supported:
                raise UserError(f"Opset {opset} has no {node.op_type} as the graph needs it; give a later --opset.")
