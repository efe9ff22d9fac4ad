"""Rounded activations against NumPy's integers, and their cost against sums over every token in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from edgepress.quantize.algorithms.activation_rounding import (
    ActivationMode,
    CalibrationActivations,
    fake_quantize_per_tensor,
    fake_quantize_per_token,
)


@pytest.fixture
def x() -> Tensor:
    """Tokens of all sizes, a large channel, and a token of zeros."""
    x = torch.randn(40, 24, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 3, 40)[:, None]
    x[:, 5] *= 30
    x[7] = 0
    return x


def test_each_token_is_rounded_with_its_own_scale(x: Tensor) -> None:
    values = x.double().numpy()
    scales = np.abs(values).max(1, keepdims=True) / 127
    codes = np.rint(np.divide(values, scales, out=np.zeros(x.shape), where=scales > 0))
    assert np.abs(codes).max() == 127
    np.testing.assert_allclose(fake_quantize_per_token(x).double().numpy(), codes * scales, rtol=1e-5, atol=0)


def test_tokens_do_not_depend_on_each_other(x: Tensor) -> None:
    rounded = fake_quantize_per_token(x)
    assert torch.equal(rounded[3:5], fake_quantize_per_token(x[3:5]))
    assert torch.equal(fake_quantize_per_token(x.reshape(2, 4, 5, 24)), rounded.reshape(2, 4, 5, 24))


def test_values_beyond_127_times_the_scale_are_clipped() -> None:
    x = torch.tensor([[-1000.0, -1.2, -0.2, 0.0, 0.3, 63.4, 63.6]])
    expected = torch.tensor([[-63.5, -1.0, 0.0, 0.0, 0.5, 63.5, 63.5]])
    assert torch.equal(fake_quantize_per_tensor(x, 0.5), expected)


def test_the_static_scale_clips_no_token_of_the_calibration(x: Tensor) -> None:
    """Even if the sample does not hold the largest one."""
    inputs = CalibrationActivations(x[:10], x.abs().amax(0), "static")
    assert inputs.scale == pytest.approx(float(x.abs().max()) / 127)
    assert inputs.divide_by(torch.full((24,), 2.0)).scale == pytest.approx(inputs.scale / 2)
    assert CalibrationActivations(x[7:8], torch.zeros(24), "static").fake_quantized.abs().max() == 0


@pytest.mark.parametrize("mode", ["none", "dynamic", "static"])
def test_errors_are_relative_to_the_power_of_the_outputs(x: Tensor, mode: ActivationMode) -> None:
    weight = torch.randn(9, 24, generator=torch.Generator().manual_seed(1))
    quantized = weight + 0.01 * torch.randn(9, 24, generator=torch.Generator().manual_seed(2))
    inputs = CalibrationActivations(x, x.abs().amax(0), mode)
    rounded = {
        "none": x,
        "dynamic": fake_quantize_per_token(x),
        "static": fake_quantize_per_tensor(x, inputs.scale),
    }[mode].double()
    exact = x.double() @ weight.T.double()
    expected = (rounded @ quantized.T.double() - exact).square().sum() / exact.square().sum()
    assert inputs.output_error(weight, quantized) == pytest.approx(float(expected), rel=1e-4)


def test_outputs_that_are_always_0_have_no_error() -> None:
    inputs = CalibrationActivations(torch.zeros(3, 4), torch.zeros(4), "dynamic")
    assert inputs.output_error(torch.ones(2, 4), torch.ones(2, 4)) == 0
