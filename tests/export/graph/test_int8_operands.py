"""INT8 layers against the definition of the format: the weight is (code - 128) times the output's scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgepress.export.graph.int8_operands import Int8Linear, Int8Tensors, dequantize_int8, to_int8_operand

INPUTS, OUTPUTS = 5, 3


def make_tensors(seed: int) -> Int8Tensors:
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, 256, (INPUTS, OUTPUTS), np.uint8)
    scales = generator.uniform(1e-3, 1e-1, (1, OUTPUTS)).astype(np.float16)
    return Int8Tensors(torch.from_numpy(codes), torch.from_numpy(scales))


def compute_weight(tensors: Int8Tensors) -> np.ndarray:
    """The weight (out, in), in float64."""
    return ((tensors.qweight.numpy().astype(np.float64) - 128) * tensors.scales.numpy().astype(np.float64)).T


@given(st.integers(0, 10**6))
def test_operands_encode_the_weight(seed: int) -> None:
    tensors = make_tensors(seed)
    codes, scales = (to_int8_operand(tensors, operand).numpy() for operand in ("qweight", "scales"))
    assert (codes.dtype, codes.shape, scales.dtype, scales.shape) == (
        np.int8,
        (INPUTS, OUTPUTS),
        np.float32,
        (OUTPUTS,),
    )
    weight = compute_weight(tensors)
    np.testing.assert_allclose(codes.T * scales[:, None], weight, rtol=1e-6)
    np.testing.assert_allclose(dequantize_int8(tensors).numpy(), weight, rtol=1e-6)


def test_codes_span_the_range_of_int8() -> None:
    codes = torch.tensor([[0], [127], [128], [255]], dtype=torch.uint8)
    operand = to_int8_operand(Int8Tensors(codes, torch.ones(1, 1, dtype=torch.float16)), "qweight")
    assert operand.flatten().tolist() == [-128, -1, 0, 127]
    assert codes.flatten().tolist() == [0, 127, 128, 255]  # left alone


@pytest.mark.parametrize("has_bias", [False, True])
def test_the_layer_multiplies_by_the_weight_and_leaves_activations_floats(has_bias: bool) -> None:
    tensors = make_tensors(0)
    layer = Int8Linear(INPUTS, OUTPUTS, has_bias)
    assert set(layer.state_dict()) == {"qweight", "scales", "bias"} - (set() if has_bias else {"bias"})
    bias = np.arange(OUTPUTS, dtype=np.float32) if has_bias else np.zeros(OUTPUTS, np.float32)
    layer.load_state_dict(tensors._asdict() | ({"bias": torch.from_numpy(bias)} if has_bias else {}))
    x = np.random.default_rng(1).standard_normal((2, 4, INPUTS)).astype(np.float32)
    np.testing.assert_allclose(layer(torch.from_numpy(x)).numpy(), x @ compute_weight(tensors).T + bias, atol=1e-5)
