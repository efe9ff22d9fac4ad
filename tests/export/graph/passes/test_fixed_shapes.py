"""Graphs with fixed shapes, compared with the same graphs with dynamic axes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from edgepress.export.graph.passes.fixed_shapes import fix_shapes
from edgepress.export.graph.passes.pattern import NodeBuilder


@pytest.fixture
def model() -> ir.Model:
    """Concatenates rows (n, 4) and (m, 4), and reshapes them by their shape at run time."""
    inputs = [
        ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([axis, 4]))
        for name, axis in (("a", "n"), ("b", "m"))
    ]
    op = NodeBuilder()
    rows = op("Concat", *inputs, axis=0)
    rows.shape, rows.dtype = ir.Shape(["n + m", 4]), ir.DataType.FLOAT
    length = op("Shape", rows, start=0, end=1)
    out = op("Reshape", rows, op("Concat", op("Mul", length, [2]), [2], axis=0))
    out.name, out.type, out.shape = "out", ir.TensorType(ir.DataType.FLOAT), ir.Shape(["2*n + 2*m", 2])
    graph = ir.Graph(inputs, [out], nodes=op.nodes, opset_imports={"": 21})
    return ir.Model(graph, ir_version=10)


def run(model: ir.Model, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    output: np.ndarray = session.run(None, {"a": a, "b": b})[0]
    return output


def test_outputs_are_unchanged_and_no_axis_is_dynamic(model: ir.Model) -> None:
    a, b = np.arange(12, dtype=np.float32).reshape(3, 4), np.ones((2, 4), np.float32)
    expected = run(model, a, b)
    fixed = fix_shapes(model.clone(), {"n": 3, "m": 2})
    assert np.array_equal(run(fixed, a, b), expected)
    values = [*fixed.graph.inputs, *(value for node in fixed.graph for value in node.outputs)]
    assert all(value.shape is not None and value.shape.is_static() for value in values)


def test_values_that_depend_on_shapes_alone_are_folded(model: ir.Model) -> None:
    operators = {node.op_type for node in fix_shapes(model, {"n": 3, "m": 2}).graph}
    assert not operators & {"Shape", "Mul"}
