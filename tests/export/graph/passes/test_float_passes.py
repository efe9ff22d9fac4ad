"""Passes over norms, attention and rotary embedding, each on a small graph, against torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from helpers.onnx_graphs import create_session
from torch import Tensor
from torch.nn import functional as F

from edgepress.export.graph.passes.attention import decompose_attention, fuse_attention
from edgepress.export.graph.passes.group_norm import decompose_group_norm
from edgepress.export.graph.passes.pattern import NodeBuilder
from edgepress.export.graph.passes.rms_norm import decompose_rms_norm, fuse_rms_norm
from edgepress.export.graph.passes.rotary import decompose_rotary
from edgepress.export.graph.passes.simplify import fold_constants

Pass = Callable[[ir.Model], ir.Model]
WIDTH = 8


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def port(name: str, shape: Sequence[int | str], dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))


def graph(op: NodeBuilder, inputs: Sequence[ir.Value], weights: Sequence[ir.Value] = ()) -> ir.Model:
    """Returns a model of the builder's nodes, whose last value is the output."""
    out = op.nodes[-1].outputs[0]
    out.name, out.type = "out", ir.TensorType(ir.DataType.FLOAT)
    return ir.Model(
        ir.Graph(inputs, [out], nodes=op.nodes, initializers=weights, opset_imports={"": 23}, name="test"),
        ir_version=10,
    )


def run(model: ir.Model, inputs: dict[str, Tensor], **weights: Tensor) -> Tensor:
    outputs = create_session(model, weights).run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    return torch.from_numpy(outputs[0])


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph if node.op_type != "Constant"]


def norm(power: float = 2.0, axis: int = -1, weight_first: bool = False) -> ir.Model:
    x, weight, op = port("x", [1, "n", WIDTH]), port("weight", [WIDTH]), NodeBuilder()
    mean = op("ReduceMean", op("Pow", x, np.float32(power)), [axis], keepdims=1)
    root = op("Reciprocal", op("Sqrt", op("Add", mean, np.float32(1e-3))))
    product = op("Mul", x, root)
    op("Mul", *((weight, product) if weight_first else (product, weight)))
    return graph(op, [x], [weight])


@pytest.mark.parametrize("weight_first", [False, True])
@pytest.mark.parametrize("decompose", [False, True])
def test_rms_norm_is_fused_and_decomposed(weight_first: bool, decompose: bool) -> None:
    model = fold_constants(fuse_rms_norm(fold_constants(norm(weight_first=weight_first))))
    assert operators(model) == ["RMSNormalization"]
    if decompose:
        model = fold_constants(decompose_rms_norm(model))
        assert "RMSNormalization" not in operators(model)
    x, weight = noise(1, 5, WIDTH), noise(WIDTH)
    torch.testing.assert_close(run(model, {"x": x}, weight=weight), F.rms_norm(x, (WIDTH,), weight, 1e-3))


@pytest.mark.parametrize("options", [{"power": 3.0}, {"axis": 1}])
def test_other_norms_are_left_alone(options: dict[str, Any]) -> None:
    assert "RMSNormalization" not in operators(fuse_rms_norm(fold_constants(norm(**options))))


def attention(heads: int, groups: int, rows: bool, **attributes: Any) -> ir.Model:
    """Attention of `heads`; with `rows` over (1, tokens, heads · 4), reshaped and transposed before it."""
    op, inputs, operands = NodeBuilder(), [], []
    for name, count in (("q", heads), ("k", groups), ("v", groups)):
        inputs.append(port(name, [1, "n", count * 4] if rows else [1, count, "n", 4]))
        value = inputs[-1]
        if rows:
            value = op("Transpose", op("Reshape", value, [0, 0, count, 4]), perm=[0, 2, 1, 3])
            value.shape, value.type = ir.Shape([1, count, "n", 4]), inputs[-1].type
        operands.append(value)
    op("Attention", *operands, **attributes)
    return graph(op, inputs)


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize(
    ("heads", "groups", "change"), [(2, 2, fuse_attention), (2, 2, decompose_attention), (6, 2, decompose_attention)]
)
def test_attention_as_other_operators(rows: bool, causal: int, heads: int, groups: int, change: Pass) -> None:
    model = fold_constants(change(attention(heads, groups, rows, is_causal=causal, scale=0.3)))
    assert "Attention" not in operators(model)
    q, k, v = noise(1, heads, 7, 4), noise(1, groups, 7, 4) * 2, noise(1, groups, 7, 4) * 3
    inputs = {
        name: tensor.transpose(1, 2).flatten(2).contiguous() if rows else tensor
        for name, tensor in (("q", q), ("k", k), ("v", v))
    }
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=bool(causal), scale=0.3, enable_gqa=True)
    torch.testing.assert_close(run(model, inputs), expected)


def with_mask(model: ir.Model, heads: int, dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Model:
    mask = port("mask", [1, heads, "n", "n"], dtype)
    (node,) = (node for node in model.graph if node.op_type == "Attention")
    node.resize_inputs(4)
    node.replace_input_with(3, mask)
    model.graph.inputs.append(mask)
    return model


@pytest.mark.parametrize("change", [fuse_attention, decompose_attention])
def test_a_mask_is_added_to_the_scores(change: Pass) -> None:
    model = fold_constants(change(with_mask(attention(2, 2, False, scale=1.0), 2)))
    assert "Attention" not in operators(model)
    q, k, v, mask = noise(1, 2, 7, 4), noise(1, 2, 7, 4) * 2, noise(1, 2, 7, 4) * 3, 3 * noise(1, 2, 7, 7)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
    torch.testing.assert_close(run(model, {"q": q, "k": k, "v": v, "mask": mask}), expected)


@pytest.mark.parametrize(("heads", "dtype"), [(6, ir.DataType.FLOAT), (2, ir.DataType.BOOL)])
def test_an_unsupported_mask_is_rejected(heads: int, dtype: ir.DataType) -> None:
    with pytest.raises(ValueError, match="mask"):
        decompose_attention(with_mask(attention(heads, 2, False), heads, dtype))


def test_rows_are_passed_to_attention_without_reshaping() -> None:
    assert operators(fold_constants(fuse_attention(attention(2, 2, True)))) == [
        "MultiHeadAttention",
        "Reshape",
        "Transpose",
    ]


def test_attention_with_shared_heads_is_not_fused() -> None:
    assert "Attention" in operators(fuse_attention(attention(6, 2, True)))


@pytest.mark.parametrize("axes", [("n",), ("h", "w")])
def test_group_norm_as_instance_norm(axes: tuple[str, ...]) -> None:
    x, weight, bias, op = port("x", [1, WIDTH, *axes]), port("weight", [WIDTH]), port("bias", [WIDTH]), NodeBuilder()
    op("GroupNormalization", x, weight, bias, num_groups=4, epsilon=1e-3)
    model = fold_constants(decompose_group_norm(graph(op, [x], [weight, bias])))
    assert "GroupNormalization" not in operators(model)
    image, scale, shift = noise(1, WIDTH, *(WIDTH, 5)[: len(axes)]), noise(WIDTH), noise(WIDTH + 1)[1:]
    expected = F.group_norm(image, 4, scale, shift, 1e-3)
    torch.testing.assert_close(run(model, {"x": image}, weight=scale, bias=shift), expected)


def test_rotary_embedding_is_decomposed() -> None:
    inputs = [port("x", [1, "n", 12]), port("cos", [1, "n", 2]), port("sin", [1, "n", 2])]
    op = NodeBuilder()
    op("RotaryEmbedding", *inputs, interleaved=1, num_heads=3)
    model = fold_constants(decompose_rotary(graph(op, inputs)))
    assert "RotaryEmbedding" not in operators(model)
    x, angles = noise(1, 5, 12), noise(1, 5, 2)
    rotated = torch.view_as_complex(x.reshape(1, 5, 3, 2, 2)) * torch.polar(torch.ones(1, 5, 2), angles)[:, :, None]
    expected = torch.view_as_real(rotated).reshape(1, 5, 12)
    torch.testing.assert_close(run(model, {"x": x, "cos": angles.cos(), "sin": angles.sin()}), expected)
