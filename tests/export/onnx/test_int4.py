"""The codes, scales and zero points of a pressed linear, to the bit, as ONNX Runtime and ONNX's reference read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import RemoveUnusedNodesPass
from small_graphs import linear_model, packed, random_codes, stored

from edgepress.export.onnx.int4 import blocks, is_symmetric, nbits
from edgepress.export.onnx.passes.linear_dequantize import linear_dequantize
from edgepress.export.onnx.passes.linear_int4 import linear_int4
from edgepress.export.onnx.weights import Source, attach
from edgepress.grid import Codes, dequantize
from edgepress.int4 import AwqTensors, pack_awq

BLOCKS = (32, 64, 128)


def nibbles(values: torch.Tensor) -> torch.Tensor:
    """Bytes (..., n) as codes (..., 2 n), the low nibble first."""
    return torch.stack([values & 15, values >> 4], dim=-1).flatten(-2)


def through_ort(model: ir.Model, folder: Path) -> np.ndarray:
    """The transposed weight of the linear `a`, by multiplying with the identity."""
    path = folder / "model.onnx"
    ir.save(model, path)
    onnx.checker.check_model(path)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    width = session.get_inputs()[0].shape[1]
    return np.asarray(session.run(None, {"a.x": np.eye(width, dtype=np.float32)})[0])


def exported(codes: Codes, folder: Path, operator: str) -> ir.Model:
    """A graph of one linear `a` with the codes beside it."""
    checkpoint = stored(folder / "component", packed({"a": codes}))
    model = linear_model({"a": tuple(codes.codes.shape)})
    source = Source(checkpoint, operands=blocks if operator == "blocks" else nbits)
    if operator == "blocks":
        linear_dequantize(model, source.packed)
    else:
        linear_int4(model, source.packed, accuracy_level=0)
    RemoveUnusedNodesPass()(model)
    attach([model], source, folder, "component")
    return model


# ---------------------------------------------------------------- layouts


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("block", BLOCKS)
def test_nbits_holds_every_code_scale_and_zero_point(block: int, groups: int) -> None:
    codes = random_codes(24, block * groups, block, zero_points=True)
    found = {kind: nbits(pack_awq(codes), kind) for kind in ("qweight", "scales", "zero_points")}
    assert found["qweight"].shape == (24, groups, block // 2)
    assert torch.equal(nibbles(found["qweight"]).flatten(1), codes.codes)
    assert found["scales"].dtype == torch.float32
    assert torch.equal(found["scales"], codes.grid.scales)
    assert found["zero_points"].shape == (24, -(-groups // 2))
    assert torch.equal(nibbles(found["zero_points"])[:, :groups], codes.grid.zeros)


def test_blocks_hold_every_code_less_8_along_the_outputs() -> None:
    codes = random_codes(24, 96, 32, zero_points=False)
    pairs = nibbles(blocks(pack_awq(codes), "qweight")).to(torch.int8)
    assert torch.equal(torch.where(pairs > 7, pairs - 16, pairs).T, codes.codes.to(torch.int8) - 8)
    assert torch.equal(blocks(pack_awq(codes), "scales").T, codes.grid.scales)


def test_one_zero_point_off_the_middle_is_seen_and_refused_by_blocks() -> None:
    codes = random_codes(16, 64, 32, zero_points=False)
    assert is_symmetric(pack_awq(codes).qzeros)
    codes.grid.zeros[15, 1] = 7
    tensors: AwqTensors = pack_awq(codes)
    assert not is_symmetric(tensors.qzeros)
    with pytest.raises(ValueError, match="zero points"):
        blocks(tensors, "qweight")


# ---------------------------------------------------------------- through other readers


@pytest.mark.parametrize("groups", [1, 3, 4])
@pytest.mark.parametrize("zero_points", [True, False])
@pytest.mark.parametrize("block", BLOCKS)
def test_ort_multiplies_by_the_same_weight_to_the_bit(
    block: int, zero_points: bool, groups: int, tmp_path: Path
) -> None:
    codes = random_codes(40, block * groups, block, zero_points)
    model = exported(codes, tmp_path, "nbits")
    assert ("a.zero_points" in model.graph.initializers) == zero_points
    assert np.array_equal(through_ort(model, tmp_path), dequantize(codes).T.numpy())


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_dequantize_to_the_same_weight_to_the_bit(block: int, groups: int, tmp_path: Path) -> None:
    codes = random_codes(16, block * groups, block, zero_points=False)
    model = exported(codes, tmp_path, "blocks")
    assert np.array_equal(through_ort(model, tmp_path), dequantize(codes).T.numpy())
    proto = onnx.load(tmp_path / "model.onnx")
    (found,) = ReferenceEvaluator(proto).run(None, {"a.x": np.eye(block * groups, dtype=np.float32)})
    assert np.array_equal(found, dequantize(codes).T.numpy())
