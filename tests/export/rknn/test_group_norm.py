"""Decomposed group norms, against torch's."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from helpers.onnx_graphs import create_session
from onnx.reference import ReferenceEvaluator

from edgepress.export.graph.lowering import lower_graph
from edgepress.export.rknn.group_norm import decompose_group_norm


def make_group_norm_model(shape: tuple[int, ...], groups: int) -> ir.Model:
    """Returns a graph of one decomposed group norm."""
    float32 = ir.TensorType(ir.DataType.FLOAT)
    port = ir.Value(name="x", shape=ir.Shape(shape), type=float32)
    values = [ir.Value(name=name, shape=ir.Shape([shape[1]]), type=float32) for name in ("w", "b")]
    node = ir.node("GroupNormalization", [port, *values], {"num_groups": groups, "epsilon": 1e-6})
    out = node.outputs[0]
    out.name, out.shape, out.type = "y", ir.Shape(shape), float32
    graph = ir.Graph([port], [out], nodes=[node], initializers=values, opset_imports={"": 23}, name="g")
    return lower_graph(decompose_group_norm(ir.Model(graph, ir_version=10)), 19, allow_contrib_ops=False)


@pytest.mark.parametrize(
    ("channels", "groups", "rest"), [(8, 4, (5, 7)), (32, 8, (5, 7)), (6, 6, (5, 7)), (6, 1, (5, 7)), (8, 4, (35,))]
)
def test_it_matches_torch(channels: int, groups: int, rest: tuple[int, ...]) -> None:
    shape, generator = (1, channels, *rest), torch.Generator().manual_seed(groups)
    x = 3 + 2 * torch.randn(shape, generator=generator)
    weight, bias = (torch.randn(channels, generator=generator) for _ in range(2))
    model = make_group_norm_model(shape, groups)
    (output,) = create_session(model, {"w": weight, "b": bias}).run(None, {"x": x.numpy()})
    expected = torch.nn.functional.group_norm(x, groups, weight, bias, eps=1e-6)
    assert np.abs(output - expected.numpy()).max() < 2e-6 * float(expected.abs().max() + 1)
    assert "InstanceNormalization" not in {node.op_type for node in model.graph}


def convert_to_fp16(model: ir.Model) -> onnx.ModelProto:
    proto = ir.to_proto(model)
    constants = [attribute.t for node in proto.graph.node for attribute in node.attribute if attribute.HasField("t")]
    for tensor in constants:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16)))
    return proto


def test_squares_do_not_overflow_float16() -> None:
    """Computed in float16 by ONNX's reference evaluator; a constant input, whose variance is 0, stays finite too."""
    shape, ones = (1, 8, 2, 2), np.ones(8, np.float16)
    evaluator = ReferenceEvaluator(convert_to_fp16(make_group_norm_model(shape, 4)))
    x = (100 + 300 * torch.randn(shape, generator=torch.Generator().manual_seed(0))).half()
    (output,) = evaluator.run(None, {"x": x.numpy(), "w": ones, "b": 0 * ones})
    assert output.dtype == np.float16
    np.testing.assert_allclose(output, torch.nn.functional.group_norm(x.float(), 4, eps=1e-6).numpy(), atol=2e-2)
    (flat,) = evaluator.run(None, {"x": np.full(shape, 3, np.float16), "w": ones, "b": 0 * ones})
    np.testing.assert_array_equal(flat, 0)
