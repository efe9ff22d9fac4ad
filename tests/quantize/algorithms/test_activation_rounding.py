"""Rounded activations against NumPy's integers, and what they cost against sums over every token in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from edgepress.quantize.algorithms.activation_rounding import (
    CalibrationActivations,
    fake_quantize_per_tensor,
    fake_quantize_per_token,
)


@pytest.fixture
def x() -> Tensor:
    """Tokens of all sizes, a loud channel, and a token of zeros."""
    x = torch.randn(40, 24, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 3, 40)[:, None]
    x[:, 5] *= 30
    x[7] = 0
    return x


def test_each_token_is_rounded_on_its_own_scale(x: Tensor) -> None:
    found = fake_quantize_per_token(x).double().numpy()
    scales = np.abs(x.double().numpy()).max(1, keepdims=True) / 127
    codes = np.rint(np.divide(x.double().numpy(), scales, out=np.zeros(x.shape), where=scales > 0))
    assert np.abs(codes).max() == 127
    np.testing.assert_allclose(found, codes * scales, rtol=1e-5, atol=0)


def test_tokens_do_not_depend_on_each_other(x: Tensor) -> None:
    assert torch.equal(fake_quantize_per_token(x)[3:5], fake_quantize_per_token(x[3:5]))
    assert torch.equal(fake_quantize_per_token(x.reshape(2, 4, 5, 24)), fake_quantize_per_token(x).reshape(2, 4, 5, 24))


def test_on_one_scale_what_is_beyond_127_of_it_is_cut_off() -> None:
    x = torch.tensor([[-1000.0, -1.2, -0.2, 0.0, 0.3, 63.4, 63.6]])
    assert torch.equal(fake_quantize_per_tensor(x, 0.5), torch.tensor([[-63.5, -1.0, 0.0, 0.0, 0.5, 63.5, 63.5]]))


def test_the_static_scale_cuts_no_token_of_the_calibration_off(x: Tensor) -> None:
    """Though not all of them are there to be looked at."""
    inputs = CalibrationActivations(x[:10], x.abs().amax(0), "static")
    assert inputs.scale == pytest.approx(float(x.abs().max()) / 127)
    assert inputs.divide_by(torch.full((24,), 2.0)).scale == pytest.approx(inputs.scale / 2)
    assert CalibrationActivations(x[7:8], torch.zeros(24), "static").fake_quantized.abs().max() == 0


@pytest.mark.parametrize("how", ["float", "dynamic", "static"])
def test_errors_are_shares_of_the_power_of_the_outputs(x: Tensor, how: str) -> None:
    weight = torch.randn(9, 24, generator=torch.Generator().manual_seed(1))
    near = weight + 0.01 * torch.randn(9, 24, generator=torch.Generator().manual_seed(2))
    inputs = CalibrationActivations(x, x.abs().amax(0), how)  # type: ignore[arg-type]
    rounded = {"float": x, "dynamic": fake_quantize_per_token(x), "static": fake_quantize_per_tensor(x, inputs.scale)}[
        how
    ].double()
    exact = x.double() @ weight.T.double()
    expected = (rounded @ near.T.double() - exact).square().sum() / exact.square().sum()
    assert inputs.output_error(weight, near) == pytest.approx(float(expected), rel=1e-4)


def test_outputs_that_are_always_0_lose_nothing() -> None:
    assert (
        CalibrationActivations(torch.zeros(3, 4), torch.zeros(4), "dynamic").output_error(
            torch.ones(2, 4), torch.ones(2, 4)
        )
        == 0
    )
