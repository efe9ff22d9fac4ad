"""Graphs of fixed shapes, for runtimes that know no others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from .constants import constants


def fixed_shapes(model: ir.Model, axes: Mapping[str, int]) -> ir.Model:
    """Gives the axes of a graph sizes by their names, in place, and computes what depends on nothing else.

    axes: all that the graph's inputs name.
    """
    for value in _values(model):
        if value.shape is not None:
            value.shape = value.shape.evaluate(axes)
    return constants(model)


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    for node in model.graph:
        yield from node.outputs
