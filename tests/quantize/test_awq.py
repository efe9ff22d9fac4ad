"""The searches against brute force with real tokens."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgepress.grid import dequantize, grid_for, grouped, quantize
from edgepress.quantize.awq import candidates, round_to_nearest, search_clip, search_scale, weight_magnitude
from edgepress.quantize.statistics import output_error
from edgepress.recipe import Scheme

SCHEME = Scheme(group_size=32)


@pytest.fixture
def layer() -> tuple[Tensor, Tensor]:
    """Weights (24, 64) with heavy tails, and tokens (400, 64) of which a few channels are far larger than the rest."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(24, 64, generator=generator) ** 3
    tokens = torch.randn(400, 64, generator=generator)
    tokens[:, ::13] *= 20
    return weight, tokens


def loss_on(tokens: Tensor, weight: Tensor, scale: Tensor) -> float:
    """The mean squared output error with the weight rounded on the plain grid after scaling, by multiplying it out."""
    scaled = weight * scale
    rounded = dequantize(quantize(scaled, grid_for(scaled, SCHEME.group_size)))
    return float(((tokens / scale) @ rounded.T - tokens @ weight.T).square().sum(1).mean())


def test_the_scale_found_is_the_best_candidate_and_beats_rounding(layer: tuple[Tensor, Tensor]) -> None:
    weight, tokens = layer
    magnitude = tokens.abs().mean(0)
    found = search_scale([weight], tokens.T @ tokens / len(tokens), magnitude, SCHEME)
    tried = [loss_on(tokens, weight, scale) for scale in candidates(magnitude, weight_magnitude([weight], 32))]
    assert loss_on(tokens, weight, found) <= min(tried) * 1.001
    assert loss_on(tokens, weight, found) < 0.9 * loss_on(tokens, weight, torch.ones(64))


def test_the_identity_is_kept_where_rounding_loses_nothing() -> None:
    """Weights that stand on the grid already: every other scale could only lose."""
    weight = torch.randint(0, 16, (16, 64)).float() - 7
    weight[:, 0], weight[:, 1] = -7.0, 8.0
    weight[:, 32], weight[:, 33] = -7.0, 8.0
    assert torch.equal(search_scale([weight], torch.eye(64), torch.rand(64) + 0.1, SCHEME), torch.ones(64))


def test_shared_channels_get_one_scale_that_is_best_for_all_readers(layer: tuple[Tensor, Tensor]) -> None:
    weight, tokens = layer
    channel = torch.arange(64) % 32
    gram = tokens.T @ tokens / len(tokens)
    found = search_scale([weight], gram, tokens.abs().mean(0), SCHEME, channel)
    assert found.shape == (32,)
    assert loss_on(tokens, weight, found[channel]) <= loss_on(tokens, weight, torch.ones(64)) * 1.001


def test_candidates_hold_the_identity_and_activations_alone(layer: tuple[Tensor, Tensor]) -> None:
    x = layer[1].abs().mean(0)
    scales = list(candidates(x, torch.rand(64)))
    assert torch.equal(scales[0], torch.ones(64))
    alone = x / (x.max() * x.min()).sqrt()
    assert any(torch.allclose(scale, alone) for scale in scales)


def test_weight_magnitude_is_relative_to_the_largest_of_its_group() -> None:
    weight = torch.ones(2, 64)
    weight[:, 0] = 4.0
    expected = torch.cat([torch.tensor([1.0]), torch.full((31,), 0.25), torch.ones(32)])
    torch.testing.assert_close(weight_magnitude([weight], 32), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("zero_point", [True, False])
def test_clipping_never_loses_more_in_a_group_than_the_whole_range(
    layer: tuple[Tensor, Tensor], zero_point: bool
) -> None:
    weight, tokens = layer
    scheme = Scheme(group_size=32, zero_point=zero_point)
    clipped = dequantize(quantize(weight, search_clip(weight, tokens.T @ tokens, scheme)))
    plain = round_to_nearest(weight, scheme)
    for group in range(2):
        part = tokens[:, group * 32 : (group + 1) * 32]

        def loss(candidate: Tensor, group: int = group, part: Tensor = part) -> Tensor:
            error = grouped(candidate - weight, 32)[:, group]
            return (part @ error.T).square().sum(0)

        assert (loss(clipped) <= loss(plain) * 1.001 + 1e-6).all()


def test_clipping_helps_where_one_outlier_is_never_read() -> None:
    """A weight that meets no activation may be clipped for free."""
    weight = torch.randn(64, 32, generator=torch.Generator().manual_seed(2)).clamp(min=0)
    weight[:, 0] = 12.0
    gram = torch.eye(32)
    gram[0, 0] = 0.0
    grid = search_clip(weight, gram, SCHEME)
    assert grid.scales.max() < 0.9 * 12 / 15, "a range was left whole"
    clipped = dequantize(quantize(weight, grid))
    assert output_error(clipped - weight, gram) < 0.6 * output_error(round_to_nearest(weight, SCHEME) - weight, gram)
