"""General simplification: constant folding, common subexpressions and dead code."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer, rewriter
from onnxscript.rewriter.rules import common as rules

# The rewriter's own rules for graphs whose weights have no values, without the rule that merges slices into a Split:
# it compares every node with every other, which took a third of the time for a graph of 1700 nodes.
REWRITE_RULES = (
    *rules.mul_by_1_rule.commute(),
    *rules.add_0_rule.commute(),
    rules.sub_0_rule,
    rules.div_by_1_rule,
    rules.dropout_zero_rule,
    rules.dropout_inference_rule,
    rules.one_reshape_matmul_reshape_rule,
    rules.two_reshapes_matmul_reshape_rule,
    rules.cast_constant_of_shape_rule,
    rules.cast_constant_of_shape_without_value_rule,
    rules.collapse_slice_rule,
    rules.collapse_slice2_rule,
    rules.materialize_reshape_shape_rule,
    rules.cast_cast_rule,
    rules.no_op_cast_rule,
    rules.no_op_expand_rule,
    rules.flatten_to_reshape_rule,
    rules.reshape_reshape_rule,
    rules.no_op_transpose_rule,
    rules.transpose_transpose_rule,
    rules.unsqueeze_unsqueeze_rule,
    rules.squeeze_reshape_1d_rule,
)


def fold_constants(model: ir.Model) -> ir.Model:
    """Folds constants, simplifies and removes dead code, in place.

    Weights keep their names and layouts: they have no values yet, so nothing folds into them.
    """
    optimizer.fold_constants_ir(model, onnx_shape_inference=True)
    model = rewriter.rewrite(model, REWRITE_RULES)
    return remove_dead_code(model)


def remove_dead_code(model: ir.Model) -> ir.Model:
    """Removes unused and duplicate nodes and unused opset imports, in place."""
    ir.passes.Sequential(
        common.IdentityEliminationPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
    )(model)
    return model
