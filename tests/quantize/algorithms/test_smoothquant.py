"""The search for SmoothQuant's scales: what it gains on planted outliers, and that it never loses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgepress.numerics.quant_spec import QuantSpec
from edgepress.quantize.algorithms.activation_rounding import ActivationMode, CalibrationActivations
from edgepress.quantize.algorithms.scale_folding import ScaleLayout
from edgepress.quantize.algorithms.smoothquant import NUM_ALPHAS, scale_candidates, search_smoothquant_scale

WIDTH = 64
SPEC = QuantSpec(bits=8, group_size=WIDTH, symmetric=True, narrow_range=True)
UNSHARED = ScaleLayout(torch.arange(WIDTH), torch.arange(WIDTH))


def make_tokens(outlier: float, seed: int = 0) -> Tensor:
    """Tokens (200, WIDTH) of which channel 11 is `outlier` times as large as the others."""
    x = torch.randn(200, WIDTH, generator=torch.Generator().manual_seed(seed))
    x[:, 11] *= outlier
    return x


def make_weights(count: int = 2) -> list[Tensor]:
    return [torch.randn(32, WIDTH, generator=torch.Generator().manual_seed(9 + i)) for i in range(count)]


def compute_loss(scale: Tensor, inputs: CalibrationActivations, weights: list[Tensor]) -> float:
    return sum(inputs.divide_by(scale).rtn_error(weight * scale, SPEC) for weight in weights)


@pytest.mark.parametrize("mode", ["dynamic", "static"])
@pytest.mark.parametrize("outlier", [1.0, 50.0])
def test_the_scale_is_the_best_candidate(mode: ActivationMode, outlier: float) -> None:
    x, weights = make_tokens(outlier), make_weights()
    inputs = CalibrationActivations(x, x.abs().amax(0), mode)
    best = search_smoothquant_scale([(weights, inputs)], SPEC, UNSHARED)
    candidates = [torch.ones(WIDTH), *scale_candidates(inputs.abs_max, torch.cat(weights).abs().amax(0))]
    loss = compute_loss(best, inputs, weights)
    assert loss == min(compute_loss(scale, inputs, weights) for scale in candidates)
    if outlier > 1:
        assert loss < 0.2 * compute_loss(torch.ones(WIDTH), inputs, weights)
        assert best.argmax() == 11


def test_candidates_are_the_formula_of_the_paper_with_a_geometric_mean_of_1() -> None:
    x, w = make_tokens(20.0).abs().amax(0), torch.cat(make_weights()).abs().amax(0)
    candidates = list(scale_candidates(x, w))
    assert len(candidates) == NUM_ALPHAS
    for step, scale in enumerate(candidates, 1):
        alpha = step / NUM_ALPHAS
        exact = x.double().pow(alpha) / w.double().pow(1 - alpha)
        torch.testing.assert_close(scale.double(), exact / exact.log().mean().exp(), rtol=1e-4, atol=0)


def test_channels_that_are_always_0_are_not_scaled() -> None:
    x, weights = make_tokens(50.0), make_weights()
    x[:, 3] = 0
    weights[0][:, 4] = weights[1][:, 4] = 0
    scale = search_smoothquant_scale([(weights, CalibrationActivations(x, x.abs().amax(0), "static"))], SPEC, UNSHARED)
    assert scale[3] == scale[4] == 1
    assert scale.isfinite().all()
    zeros = CalibrationActivations(0 * x, torch.zeros(WIDTH), "static")
    assert torch.equal(search_smoothquant_scale([(weights, zeros)], SPEC, UNSHARED), torch.ones(WIDTH))


def test_inputs_that_come_from_one_channel_share_its_scale() -> None:
    """Half as many channels as inputs: the larger of a channel's two inputs decides."""
    x, weights = make_tokens(50.0), make_weights()
    layout = ScaleLayout(torch.arange(WIDTH // 2), torch.arange(WIDTH) % (WIDTH // 2))
    inputs = CalibrationActivations(x, x.abs().amax(0), "dynamic")
    scale = search_smoothquant_scale([(weights, inputs)], SPEC, layout)
    assert scale.shape == (WIDTH // 2,)
    assert scale.argmax() == 11
