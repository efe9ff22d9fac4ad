"""Convolutions with 8-bit weights in graphs, on a graph made by hand."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edgepress.export.graph.passes.convolution import dequantize_convolutions
from edgepress.numerics.int8_rows import dequantize_rows, quantize_rows
from edgepress.runtime.onnx import sessions

SHAPE = (6, 3, 3, 3)
FLOATS = {ir.DataType.FLOAT: np.float32, ir.DataType.FLOAT16: np.float16}


def make_graph(dtype: ir.DataType, opset: int) -> ir.Model:
    """Two convolutions with one weight, so that it is read twice."""
    x = ir.Value(name="x", type=ir.TensorType(dtype), shape=ir.Shape((1, 3, 5, 5)))
    weight = ir.Value(name="conv.weight", type=ir.TensorType(dtype), shape=ir.Shape(SHAPE))
    nodes = [ir.node("Conv", [x, weight], {"pads": [pad] * 4}) for pad in (1, 0)]
    for node, name in zip(nodes, "ab", strict=True):
        node.outputs[0].name, node.outputs[0].type = name, ir.TensorType(dtype)
    outputs = [node.outputs[0] for node in nodes]
    graph = ir.Graph([x], outputs, nodes=nodes, initializers=[weight], opset_imports={"": opset})
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("saturates", [False, True])  # whether the processor lacks VNNI
def test_the_graph_computes_with_the_values_of_the_codes(
    monkeypatch: pytest.MonkeyPatch, dtype: ir.DataType, saturates: bool
) -> None:
    monkeypatch.setattr(sessions, "saturates_int8", lambda: saturates)
    generator = torch.Generator().manual_seed(0)
    rows = quantize_rows(torch.randn(SHAPE, generator=generator))
    x = torch.randn(1, 3, 5, 5, generator=generator)
    model = make_graph(dtype, 21)
    dequantize_convolutions(model, {"conv": SHAPE, "in.another.graph": (2, 2, 1, 1)}, 21)
    RemoveUnusedNodesPass()(model)
    assert set(model.graph.initializers) == {"conv.codes", "conv.scales", "conv.zero_points"}
    values = {"conv.codes": rows.codes.numpy(), "conv.scales": rows.scales.flatten().numpy().astype(FLOATS[dtype])}
    for name, value in values.items():
        model.graph.initializers[name].const_value = ir.tensor(value, name=name)
    graph = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(graph, sessions.make_session_options(graph))
    outputs = session.run(None, {"x": x.numpy().astype(FLOATS[dtype])})
    weight = dequantize_rows(rows)
    for output, padding in zip(outputs, (1, 0), strict=True):
        expected = F.conv2d(x, weight, padding=padding).numpy()
        assert np.abs(output - expected).max() < {np.float32: 1e-5, np.float16: 3e-2}[FLOATS[dtype]]


def test_an_old_opset_has_no_scales_in_float16() -> None:
    model = make_graph(ir.DataType.FLOAT16, 18)
    dequantize_convolutions(model, {"conv": SHAPE}, 18)
    assert set(model.graph.initializers) == {"conv.weight"}
