"""Group norms as convolutions, beside torch's."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx_graphs import session

from edgepress.export.onnx.lower import lower
from edgepress.export.rknn.group_norm import group_norm


@pytest.mark.parametrize(
    ("channels", "groups", "rest"), [(8, 4, (5, 7)), (32, 8, (5, 7)), (6, 6, (5, 7)), (6, 1, (5, 7)), (8, 4, (35,))]
)
def test_it_is_torchs_group_norm(channels: int, groups: int, rest: tuple[int, ...]) -> None:
    shape, generator = (1, channels, *rest), torch.Generator().manual_seed(groups)
    x = 3 + 2 * torch.randn(shape, generator=generator)
    weight, bias = (torch.randn(channels, generator=generator) for _ in range(2))
    float32 = ir.TensorType(ir.DataType.FLOAT)
    port = ir.Value(name="x", shape=ir.Shape(shape), type=float32)
    values = [ir.Value(name=name, shape=ir.Shape([channels]), type=float32) for name in ("w", "b")]
    node = ir.node("GroupNormalization", [port, *values], {"num_groups": groups, "epsilon": 1e-6})
    out = node.outputs[0]
    out.name, out.shape, out.type = "y", ir.Shape(shape), float32
    graph = ir.Graph([port], [out], nodes=[node], initializers=values, opset_imports={"": 23}, name="g")
    model = lower(group_norm(ir.Model(graph, ir_version=10)), 19, microsoft=False)
    (found,) = session(model, {"w": weight, "b": bias}).run(None, {"x": x.numpy()})
    expected = torch.nn.functional.group_norm(x, groups, weight, bias, eps=1e-6)
    assert np.abs(found - expected.numpy()).max() < 2e-6 * float(expected.abs().max() + 1)
    assert "InstanceNormalization" not in {node.op_type for node in model.graph}
