"""INT4 linear layers in graphs: the operators that replace MatMul, and their attributes."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from helpers.small_graphs import make_linear_model
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edgepress.export.graph.external_weights import Int4Layout
from edgepress.export.graph.passes.dequantize_linear import replace_with_dequantize_linear
from edgepress.export.graph.passes.matmul_nbits import replace_with_matmul_nbits, set_accuracy_level

LAYERS = {"a": (24, 96), "b": (16, 64)}


def test_only_quantized_linears_are_replaced_and_their_weights_are_removed() -> None:
    model = replace_with_matmul_nbits(
        make_linear_model(LAYERS), {"a": Int4Layout((24, 96), 32, True), "absent": Int4Layout((8, 32), 32, True)}, 0
    )
    RemoveUnusedNodesPass()(model)
    assert [node.op_type for node in model.graph] == ["MatMulNBits", "Transpose", "MatMul"]
    assert set(model.graph.initializers) == {"a.qweight", "a.scales", "a.zero_points", "b.weight"}
    assert [value.name for value in model.graph.outputs] == ["a.y", "b.y"]


@pytest.mark.parametrize("has_zero_points", [True, False])
def test_matmul_nbits_has_attributes_and_operand_shapes(has_zero_points: bool) -> None:
    model = replace_with_matmul_nbits(
        make_linear_model(LAYERS), {"a": Int4Layout((24, 96), 32, has_zero_points)}, accuracy_level=4
    )
    (node,) = [node for node in model.graph if node.op_type == "MatMulNBits"]
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    assert attributes == {"N": 24, "K": 96, "bits": 4, "block_size": 32, "accuracy_level": 4}
    shapes = [tuple(value.shape.numpy()) for value in node.inputs[1:]]
    assert shapes == [(24, 3, 16), (24, 3), (24, 2)][: 2 + has_zero_points]
    assert node.domain == "com.microsoft"
    assert model.graph.opset_imports["com.microsoft"] == 1
    (changed,) = [node for node in set_accuracy_level(model, 0).graph if node.op_type == "MatMulNBits"]
    assert changed.attributes["accuracy_level"].value == 0


def test_dequantize_linear_has_blocks_along_axis_0() -> None:
    model = replace_with_dequantize_linear(make_linear_model(LAYERS), {"a": Int4Layout((24, 96), 32, False)})
    RemoveUnusedNodesPass()(model)
    assert [node.op_type for node in model.graph] == ["DequantizeLinear", "MatMul", "Transpose", "MatMul"]
    node = model.graph[0]
    assert {name: attribute.value for name, attribute in node.attributes.items()} == {"axis": 0, "block_size": 32}
    codes, scales = node.inputs
    assert (codes.dtype, tuple(codes.shape.numpy())) == (ir.DataType.INT4, (96, 24))
    assert (scales.dtype, tuple(scales.shape.numpy())) == (ir.DataType.FLOAT, (3, 24))


def test_a_weight_with_other_users_is_rejected() -> None:
    model = make_linear_model({"a": (24, 96)})
    model.graph.append(ir.node("Neg", [model.graph.initializers["a.weight"]]))
    with pytest.raises(ValueError, match="the weight of a has users other than"):
        replace_with_matmul_nbits(model, {"a": Int4Layout((24, 96), 32, True)}, 0)
