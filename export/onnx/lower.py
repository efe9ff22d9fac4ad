"""From a traced graph to the operators that a target has: fused where it has them, their parts where not."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from ...errors import UserError
from .passes import attention, group_norm, rms_norm, rotary
from .passes.constants import constants

OPSETS = range(18, 25)


def lower(model: ir.Model, opset: int, microsoft: bool) -> ir.Model:
    """Rewrites what `trace` gives for an opset, in place.

    Args:
        microsoft: whether ONNX Runtime's own operators may be used.

    Raises:
        UserError: the graph cannot be written in that opset.
    """
    if opset not in OPSETS:
        raise UserError(f"Opset {opset} cannot be written; give one from {OPSETS[0]} to {OPSETS[-1]}.")
    if microsoft:
        attention.fuse_attention(model)
    if microsoft or opset < group_norm.OPSET:
        group_norm.split_group_norm(model)
    if opset < attention.OPSET:
        attention.split_attention(model)
    if opset < rotary.OPSET:
        rotary.split_rotary(model)
    if opset < rms_norm.OPSET:
        rms_norm.split_rms_norm(model)
    model = constants(model)
    model.graph.opset_imports[""] = opset
    _check(model, opset)
    return model


def _check(model: ir.Model, opset: int) -> None:
    """Raises UserError where a node is of an operator, or has an attribute, that the opset does not know."""
    for node in model.graph:
        if node.domain == "":
            try:
                schema = onnx.defs.get_schema(node.op_type, opset)
            except onnx.defs.SchemaError:
                known = False
            else:
                known = set(node.attributes) <= set(schema.attributes) and not schema.deprecated
            if not known:
                raise UserError(f"Opset {opset} has no {node.op_type} as the graph needs it; give a later --opset.")
