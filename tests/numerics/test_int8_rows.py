"""Rows in 8 bits: errors of at most half a step, no clipping, no overflow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from edgepress.numerics.int8_rows import MIN_SCALE, Int8Rows, dequantize_rows, quantize_rows

MATRICES = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.floats(-1e4, 1e4, width=32),
)


@given(MATRICES)
def test_every_value_is_within_half_a_step(values: np.ndarray) -> None:
    codes, scales = quantize_rows(torch.from_numpy(values))
    assert (codes.dtype, scales.dtype) == (torch.int8, torch.float16)
    assert (codes.shape, scales.shape) == (values.shape, (len(values), 1))
    step = scales.double().numpy()
    error = np.abs(codes.double().numpy() * step - values)
    assert (error <= step * (0.5 + 1e-6)).all()


@pytest.mark.slow
@given(MATRICES)
def test_a_step_is_not_larger_than_it_must_be(values: np.ndarray) -> None:
    """With the next smaller fp16 value as scale, the largest of the row would be clipped."""
    codes, scales = quantize_rows(torch.from_numpy(values))
    needed = np.abs(values.astype(np.float64)).max(1, keepdims=True) / 127
    below = np.nextafter(scales.numpy(), np.float16(0)).astype(np.float64)
    assert (np.maximum(needed, MIN_SCALE) >= below * (1 - 1e-6)).all()
    assert int(codes.min()) >= -127


def test_dequantization_is_a_product() -> None:
    rows = Int8Rows(torch.tensor([[-127, 0, 3], [1, 2, 127]], dtype=torch.int8), torch.tensor([[0.5], [2.0]]).half())
    assert dequantize_rows(rows).tolist() == [[-63.5, 0.0, 1.5], [2.0, 4.0, 254.0]]


def test_rows_of_zeros_stay_zeros() -> None:
    codes, scales = quantize_rows(torch.zeros(2, 4))
    assert (int(codes.abs().max()), float(scales.min())) == (0, MIN_SCALE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_any_floating_point_dtype_is_accepted(dtype: torch.dtype) -> None:
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    error = float((dequantize_rows(quantize_rows(weight)) - weight.float()).norm() / weight.float().norm())
    assert error < 0.01


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e8])
def test_values_that_fp16_cannot_scale_are_rejected(value: float) -> None:
    weight: Tensor = torch.ones(2, 4)
    weight[1, 2] = value
    with pytest.raises(ValueError, match="too large for a scale"):
        quantize_rows(weight)
