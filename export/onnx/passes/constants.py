"""What needs no input is computed once, what is computed twice is computed once, and what nobody reads goes."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer, rewriter


def constants(model: ir.Model) -> ir.Model:
    """Folds constants and drops what is superfluous, in place.

    Weights keep their names and their layout: they have no values here, so that nothing folds into them.
    """
    optimizer.fold_constants_ir(model, onnx_shape_inference=True)
    model = rewriter.rewrite(model)
    return tidy(model)


def tidy(model: ir.Model) -> ir.Model:
    """Drops what nobody reads and what is there twice, in place."""
    ir.passes.Sequential(
        common.IdentityEliminationPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
    )(model)
    return model
