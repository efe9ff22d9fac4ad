"""AutoAWQ's algorithm: its formulas by hand, its searches against brute force with real tokens."""

from __future__ import annotations

import pytest
import torch
from helpers.adversarial import SCHEMES, Case, cases
from hypothesis import given, settings
from torch import Tensor

from edgepress.numerics.affine import QParams, choose_qparams, dequantize, minmax_qparams, quantize, to_groups
from edgepress.quantize.algorithms import awq
from edgepress.quantize.algorithms.awq import (
    is_clippable,
    relative_weight_magnitude,
    scale_candidates,
    search_clip,
    search_scale,
)
from edgepress.quantize.algorithms.rounding import round_to_nearest
from edgepress.recipes.schema import Scheme

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
    rounded = dequantize(quantize(scaled, minmax_qparams(scaled, SCHEME.group_size)))
    return float(((tokens / scale) @ rounded.T - tokens @ weight.T).square().sum(1).mean())


# ---------------------------------------------------------------- scale


def test_candidates_are_autoawqs_twenty() -> None:
    """Duo scaling as published: s = clamp(x^r / (w^(1-r) + 1e-4), 1e-4), then s / sqrt(max(s) min(s))."""
    x, w = torch.rand(64).double() + 0.01, torch.rand(64).double() + 0.01
    found = list(scale_candidates(x, w))
    assert len(found) == 20
    for number, scale in enumerate(found):
        ratio = number / 20
        expected = [
            max(a**ratio / (b ** (1 - ratio) + 1e-4), 1e-4) for a, b in zip(x.tolist(), w.tolist(), strict=True)
        ]
        middle = (max(expected) * min(expected)) ** 0.5
        torch.testing.assert_close(scale, torch.tensor(expected).double() / middle, rtol=1e-6, atol=0)


def test_dead_channels_and_dead_weights_leave_candidates_finite() -> None:
    x, w = torch.rand(64), torch.rand(64)
    x[3] = w[5] = x[7] = w[7] = 0
    for scale in scale_candidates(x, w):
        assert torch.isfinite(scale).all()
        assert (scale > 0).all()
        assert float(scale.max() * scale.min()) == pytest.approx(1, rel=1e-4)


def test_weight_magnitude_is_relative_to_the_largest_of_its_group() -> None:
    weight = torch.ones(2, 64)
    weight[:, 0] = 4.0
    expected = torch.cat([torch.tensor([1.0]), torch.full((31,), 0.25), torch.ones(32)])
    torch.testing.assert_close(relative_weight_magnitude([weight], 32), expected, rtol=1e-4, atol=1e-4)


def test_weight_magnitude_is_the_mean_over_the_rows_of_all_readers() -> None:
    one, other = torch.randn(4, 64), torch.randn(12, 64)
    together = relative_weight_magnitude([torch.cat([one, other])], 32)
    torch.testing.assert_close(relative_weight_magnitude([one, other], 32), together)


def test_the_scale_found_is_the_best_candidate_and_beats_rounding(layer: tuple[Tensor, Tensor]) -> None:
    weight, tokens = layer
    magnitude = tokens.abs().mean(0)
    found = search_scale([weight], tokens.T @ tokens / len(tokens), magnitude, SCHEME)
    tried = [
        loss_on(tokens, weight, scale) for scale in scale_candidates(magnitude, relative_weight_magnitude([weight], 32))
    ]
    assert loss_on(tokens, weight, found) <= min(tried) * 1.001
    assert loss_on(tokens, weight, found) < 0.9 * loss_on(tokens, weight, torch.ones(64))


def test_the_losses_of_readers_are_added_relative_to_their_outputs(layer: tuple[Tensor, Tensor]) -> None:
    """A reader whose weights are a thousand times larger weighs no more than the other."""
    weight, tokens = layer
    gram, magnitude = tokens.T @ tokens / len(tokens), tokens.abs().mean(0)
    other = weight.flip(0, 1)
    found = search_scale([weight, 1000 * other], gram, magnitude, SCHEME)
    tried = list(scale_candidates(magnitude, relative_weight_magnitude([weight, 1000 * other], 32)))

    def joint(scale: Tensor) -> float:
        return sum(loss_on(tokens, w, scale) / float((tokens @ w.T).square().sum(1).mean()) for w in (weight, other))

    assert joint(found) <= min(map(joint, tried)) * 1.01


def test_the_identity_is_kept_where_rounding_loses_nothing() -> None:
    """Weights that stand on the grid already: every other scale could only lose."""
    weight = torch.randint(0, 16, (16, 64), generator=torch.Generator().manual_seed(3)).float() - 7
    weight[:, 0], weight[:, 1] = -7.0, 8.0
    weight[:, 32], weight[:, 33] = -7.0, 8.0
    assert torch.equal(search_scale([weight], torch.eye(64), torch.rand(64) + 0.1, SCHEME), torch.ones(64))


def test_shared_channels_get_one_scale_that_is_best_for_all_readers(layer: tuple[Tensor, Tensor]) -> None:
    weight, tokens = layer
    channel = torch.arange(64) % 32
    gram = tokens.T @ tokens / len(tokens)
    found = search_scale([weight], gram, tokens.abs().mean(0), SCHEME, channel)
    x, w = (
        (values[:32] + values[32:]) / 2 for values in (tokens.abs().mean(0), relative_weight_magnitude([weight], 32))
    )
    tried = [loss_on(tokens, weight, scale[channel]) for scale in scale_candidates(x, w)]
    assert found.shape == (32,)
    assert loss_on(tokens, weight, found[channel]) <= min(tried) * 1.001


def test_large_weights_are_judged_by_some_rows(layer: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    weight, tokens = layer
    gram, magnitude = tokens.T @ tokens / len(tokens), tokens.abs().mean(0)
    repeated = weight.repeat_interleave(8, 0)
    whole = search_scale([repeated], gram, magnitude, SCHEME)
    monkeypatch.setattr(awq, "ROWS", 24)
    assert torch.equal(search_scale([repeated], gram, magnitude, SCHEME), whole)


@settings(max_examples=15, deadline=None)
@given(cases())
def test_a_scale_is_finite_and_positive_for_any_weight_and_input(case: Case) -> None:
    found = search_scale([case.weight], case.gram, case.tokens.abs().mean(0), SCHEME)
    assert torch.isfinite(found).all()
    assert (found > 0).all()


# ---------------------------------------------------------------- clip


@pytest.mark.parametrize("linear", ["attention.to_q", "to_k", "self_attn.q_proj", "k_proj", "query", "key", "Wqkv"])
def test_names_that_autoawq_never_clips(linear: str) -> None:
    """As AutoAWQ searches for parts of names, diffusers' to_q and to_k are not among them."""
    assert is_clippable(linear) == linear.endswith(("to_q", "to_k"))


@pytest.mark.parametrize("linear", ["v_proj", "attention.to_v", "to_out.0", "mlp.gate_proj", "feed_forward.w2"])
def test_names_that_autoawq_clips(linear: str) -> None:
    assert is_clippable(linear)


def group_losses(weight: Tensor, gram: Tensor, grid: QParams, size: int) -> Tensor:
    """e^T H_gg e of each group, (out, groups), in float64."""
    error = to_groups(dequantize(quantize(weight, grid)).double() - weight.double(), size)
    starts = range(0, len(gram), size)
    blocks = torch.stack([gram[start : start + size, start : start + size] for start in starts]).double()
    return torch.einsum("ogi,gij,ogj->og", error, blocks, error)


@pytest.mark.parametrize("name", SCHEMES)
@settings(max_examples=8, deadline=None)
@given(case=cases())
def test_each_group_is_clipped_to_the_best_of_ten_limits(name: str, case: Case) -> None:
    """max|w| (1 - i / 20), i = 0 ... 9, as AutoAWQ tries them; the first leaves the range whole."""
    scheme = SCHEMES[name]
    size = scheme.resolve_group_size(case.weight.shape[1])
    groups = to_groups(case.weight, size)
    low, high = groups.amin(-1), groups.amax(-1)
    tried = []
    for number in range(10):
        limit = groups.abs().amax(-1) * (1 - number / 20)
        ends = torch.maximum(low, -limit), torch.minimum(high, limit)
        grid = choose_qparams(*ends, scheme.zero_point, scheme.bits, scheme.narrow_range)
        tried.append(group_losses(case.weight, case.gram, grid, size))
    found = group_losses(case.weight, case.gram, search_clip(case.weight, case.gram, scheme), size)
    noise = 1e-3 * tried[0] + 1e-9 * case.gram.diagonal().mean() * groups.square().sum(-1)
    assert (found <= torch.stack(tried).min(0).values + noise).all()


def test_clipping_helps_where_one_outlier_is_never_read() -> None:
    """A weight that meets no activation may be clipped for free."""
    weight = torch.randn(64, 32, generator=torch.Generator().manual_seed(2)).clamp(min=0)
    weight[:, 0] = 12.0
    gram = torch.eye(32)
    gram[0, 0] = 0.0
    grid = search_clip(weight, gram, SCHEME)
    assert grid.scales.max() < 0.9 * 12 / 15, "a range was left whole"
    plain = minmax_qparams(weight, 32)
    assert group_losses(weight, gram, grid, 32).sum() < 0.6 * group_losses(weight, gram, plain, 32).sum()


@pytest.mark.parametrize("name", SCHEMES)
def test_rounding_alone_is_on_the_min_max_grid(name: str) -> None:
    scheme = SCHEMES[name]
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(4))
    grid = minmax_qparams(weight, scheme.resolve_group_size(64), scheme.zero_point, scheme.bits, scheme.narrow_range)
    assert torch.equal(round_to_nearest(weight, scheme), dequantize(quantize(weight, grid)))
