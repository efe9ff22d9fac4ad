"""Codes, scales and zero points of an INT4 linear layer, exact as ONNX Runtime and ONNX's reference read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from helpers.small_graphs import make_awq_tensors, make_linear_model, make_random_weight, write_component
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edgepress.export.graph.external_weights import WeightSource, write_external_data
from edgepress.export.graph.int4_operands import (
    has_symmetric_zero_points,
    to_dequantize_linear_operand,
    to_matmul_nbits_operand,
)
from edgepress.export.graph.passes.dequantize_linear import replace_with_dequantize_linear
from edgepress.export.graph.passes.matmul_nbits import replace_with_matmul_nbits
from edgepress.numerics.affine import QuantizedWeight, dequantize
from edgepress.numerics.awq_packing import AwqTensors, pack_awq

BLOCK_SIZES = (32, 64, 128)


def nibbles(values: torch.Tensor) -> torch.Tensor:
    """Bytes (..., n) as codes (..., 2 n), the low nibble first."""
    return torch.stack([values & 15, values >> 4], dim=-1).flatten(-2)


def run_ort(model: ir.Model, folder: Path) -> np.ndarray:
    """Returns the transposed weight of the layer `a`, by multiplying with the identity."""
    path = folder / "model.onnx"
    ir.save(model, path)
    onnx.checker.check_model(path)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    width = session.get_inputs()[0].shape[1]
    return np.asarray(session.run(None, {"a.x": np.eye(width, dtype=np.float32)})[0])


def export(codes: QuantizedWeight, folder: Path, operator: str) -> ir.Model:
    """Returns a graph of one linear layer `a` with its weights beside it."""
    checkpoint = write_component(folder / "component", make_awq_tensors({"a": codes}))
    model = make_linear_model({"a": tuple(codes.codes.shape)})
    source = WeightSource(
        checkpoint, to_operand=to_dequantize_linear_operand if operator == "blocks" else to_matmul_nbits_operand
    )
    if operator == "blocks":
        replace_with_dequantize_linear(model, source.int4_linears)
    else:
        replace_with_matmul_nbits(model, source.int4_linears, accuracy_level=0)
    RemoveUnusedNodesPass()(model)
    write_external_data([model], source, folder, "component")
    return model


# ---------------------------------------------------------------- layouts


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_matmul_nbits_operands_hold_every_code_scale_and_zero_point(block_size: int, groups: int) -> None:
    codes = make_random_weight(24, block_size * groups, block_size, zero_points=True)
    operands = {kind: to_matmul_nbits_operand(pack_awq(codes), kind) for kind in ("qweight", "scales", "zero_points")}
    assert operands["qweight"].shape == (24, groups, block_size // 2)
    assert torch.equal(nibbles(operands["qweight"]).flatten(1), codes.codes)
    assert operands["scales"].dtype == torch.float32
    assert torch.equal(operands["scales"], codes.qparams.scales)
    assert operands["zero_points"].shape == (24, -(-groups // 2))
    assert torch.equal(nibbles(operands["zero_points"])[:, :groups], codes.qparams.zero_points)


def test_dequantize_linear_operands_hold_every_code_less_8() -> None:
    codes = make_random_weight(24, 96, 32, zero_points=False)
    pairs = nibbles(to_dequantize_linear_operand(pack_awq(codes), "qweight")).to(torch.int8)
    assert torch.equal(torch.where(pairs > 7, pairs - 16, pairs).T, codes.codes.to(torch.int8) - 8)
    assert torch.equal(to_dequantize_linear_operand(pack_awq(codes), "scales").T, codes.qparams.scales)


def test_an_asymmetric_zero_point_is_detected_and_rejected() -> None:
    codes = make_random_weight(16, 64, 32, zero_points=False)
    assert has_symmetric_zero_points(pack_awq(codes).qzeros)
    codes.qparams.zero_points[15, 1] = 7
    tensors: AwqTensors = pack_awq(codes)
    assert not has_symmetric_zero_points(tensors.qzeros)
    with pytest.raises(ValueError, match="zero points"):
        to_dequantize_linear_operand(tensors, "qweight")


# ---------------------------------------------------------------- as other libraries read them


@pytest.mark.parametrize("groups", [1, 3, 4])
@pytest.mark.parametrize("zero_points", [True, False])
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_matmul_nbits_multiplies_by_exactly_the_same_weight(
    block_size: int, zero_points: bool, groups: int, tmp_path: Path
) -> None:
    codes = make_random_weight(40, block_size * groups, block_size, zero_points)
    model = export(codes, tmp_path, "nbits")
    assert ("a.zero_points" in model.graph.initializers) == zero_points
    assert np.array_equal(run_ort(model, tmp_path), dequantize(codes).T.numpy())


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_dequantize_linear_returns_exactly_the_same_weight(block_size: int, groups: int, tmp_path: Path) -> None:
    codes = make_random_weight(16, block_size * groups, block_size, zero_points=False)
    model = export(codes, tmp_path, "blocks")
    assert np.array_equal(run_ort(model, tmp_path), dequantize(codes).T.numpy())
    proto = onnx.load(tmp_path / "model.onnx")
    (output,) = ReferenceEvaluator(proto).run(None, {"a.x": np.eye(block_size * groups, dtype=np.float32)})
    assert np.array_equal(output, dequantize(codes).T.numpy())
