"""Lowers a traced graph to the operators of a target: fused where it has them, decomposed where not."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from ...common.errors import UserError
from .opsets import SUPPORTED_OPSETS
from .passes import attention, group_norm, rms_norm, rotary
from .passes.simplify import fold_constants


def lower_graph(model: ir.Model, opset: int, allow_contrib_ops: bool) -> ir.Model:
    """Rewrites a traced graph for an opset, in place.

    Args:
        model: What `trace_graph` returned.
        opset: Target opset.
        allow_contrib_ops: Whether to use ONNX Runtime's own operators (domain com.microsoft).

    Raises:
        UserError: The graph cannot be written in that opset.
    """
    if opset not in SUPPORTED_OPSETS:
        raise UserError(
            f"Opset {opset} is not supported. Choose one from {SUPPORTED_OPSETS[0]} to {SUPPORTED_OPSETS[-1]}."
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
    """Raises UserError where the opset lacks an operator, or an attribute of it, that the graph uses."""
    for node in model.graph:
        if node.domain == "":
            try:
                schema = onnx.defs.get_schema(node.op_type, opset)
            except onnx.defs.SchemaError:
                is_supported = False
            else:
                is_supported = set(node.attributes) <= set(schema.attributes) and not schema.deprecated
            if not is_supported:
                raise UserError(
                    f"Opset {opset} does not support {node.op_type} as the graph uses it. Choose a higher opset."
                )
