"""Graphs of fixed shapes, for runtimes without dynamic axes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from .simplify import fold_constants


def fix_shapes(model: ir.Model, axes: Mapping[str, int]) -> ir.Model:
    """Gives the dynamic axes of a graph sizes, in place, and folds what becomes constant.

    Args:
        model: A graph with dynamic axes.
        axes: The size of every axis that the inputs name.
    """
    for value in _iter_values(model):
        if value.shape is not None:
            value.shape = value.shape.evaluate(axes)
    return fold_constants(model)


def _iter_values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    for node in model.graph:
        yield from node.outputs
