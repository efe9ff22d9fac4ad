"""The search for smoothing scales: what it gains on planted outliers, and that it never loses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgepress.quantize.algorithms.activation_rounding import ActivationMode, CalibrationActivations
from edgepress.quantize.algorithms.smoothquant import NUM_ALPHAS, scale_candidates, search_smoothquant_scale
from edgepress.recipes.schema import Scheme

SCHEME = Scheme(bits=8, group_size="channel", zero_point=False, narrow_range=True, activations="dynamic")
WIDTH = 64
OWN = torch.arange(WIDTH)


def tokens(loud: float, seed: int = 0) -> Tensor:
    x = torch.randn(200, WIDTH, generator=torch.Generator().manual_seed(seed))
    x[:, 11] *= loud
    return x


def weights(count: int = 2) -> list[Tensor]:
    return [torch.randn(32, WIDTH, generator=torch.Generator().manual_seed(9 + i)) for i in range(count)]


def loss(scale: Tensor, inputs: CalibrationActivations, readers: list[Tensor]) -> float:
    return sum(inputs.divide_by(scale).rtn_error(weight * scale, SCHEME) for weight in readers)


@pytest.mark.parametrize("how", ["dynamic", "static"])
@pytest.mark.parametrize("loud", [1.0, 50.0])
def test_the_scale_loses_least_of_all_that_are_tried(how: ActivationMode, loud: float) -> None:
    x, readers = tokens(loud), weights()
    inputs = CalibrationActivations(x, x.abs().amax(0), how)
    found = search_smoothquant_scale(readers, inputs, SCHEME, OWN)
    tried = [torch.ones(WIDTH), *scale_candidates(inputs.abs_max, torch.cat(readers).abs().amax(0))]
    assert loss(found, inputs, readers) == min(loss(scale, inputs, readers) for scale in tried)
    if loud > 1:
        assert loss(found, inputs, readers) < 0.2 * loss(torch.ones(WIDTH), inputs, readers)
        assert found.argmax() == 11


def test_candidates_are_the_formula_of_the_paper_with_a_geometric_mean_of_1() -> None:
    x, w = tokens(20.0).abs().amax(0), torch.cat(weights()).abs().amax(0)
    found = list(scale_candidates(x, w))
    assert len(found) == NUM_ALPHAS
    for step, scale in enumerate(found, 1):
        a = step / NUM_ALPHAS
        exact = x.double().pow(a) / w.double().pow(1 - a)
        torch.testing.assert_close(scale.double(), exact / exact.log().mean().exp(), rtol=1e-4, atol=0)


def test_channels_that_are_always_0_are_left_alone() -> None:
    x, readers = tokens(50.0), weights()
    x[:, 3] = 0
    readers[0][:, 4] = readers[1][:, 4] = 0
    found = search_smoothquant_scale(readers, CalibrationActivations(x, x.abs().amax(0), "static"), SCHEME, OWN)
    assert found[3] == found[4] == 1
    assert found.isfinite().all()
    silent = CalibrationActivations(0 * x, torch.zeros(WIDTH), "static")
    assert torch.equal(search_smoothquant_scale(readers, silent, SCHEME, OWN), torch.ones(WIDTH))


def test_inputs_that_come_from_one_channel_share_its_scale() -> None:
    """Half as many channels as inputs: the loudest of an input's two decides."""
    x, readers = tokens(50.0), weights()
    channel = OWN % (WIDTH // 2)
    found = search_smoothquant_scale(readers, CalibrationActivations(x, x.abs().amax(0), "dynamic"), SCHEME, channel)
    assert found.shape == (WIDTH // 2,)
    assert found.argmax() == 11
