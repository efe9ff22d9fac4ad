"""AutoAWQ's algorithm: its formulas by hand, its searches against brute force with real tokens."""

from __future__ import annotations

import pytest
import torch
from helpers.adversarial import SPECS, Case, cases, make_spec
from hypothesis import given, settings
from torch import Tensor

from edgepress.models.base.family import NOT_SCALED
from edgepress.numerics.affine import (
    QParams,
    choose_qparams,
    dequantize,
    minmax_qparams,
    quantize,
    to_groups,
)
from edgepress.numerics.quant_spec import QuantSpec
from edgepress.quantize.algorithms import awq
from edgepress.quantize.algorithms.awq import (
    LinearInput,
    is_clippable,
    relative_weight_magnitude,
    scale_candidates,
    search_clip,
    search_scale,
)
from edgepress.quantize.algorithms.scale_folding import ScaleLayout

SPEC = QuantSpec(group_size=32)


@pytest.fixture
def layer() -> tuple[Tensor, Tensor]:
    """Weights (24, 64) with heavy tails, and tokens (400, 64) of which a few channels are far larger than the rest."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(24, 64, generator=generator) ** 3
    tokens = torch.randn(400, 64, generator=generator)
    tokens[:, ::13] *= 20
    return weight, tokens


def compute_loss(tokens: Tensor, weight: Tensor, scale: Tensor) -> float:
    """The mean squared output error with the weight rounded to nearest after scaling, by multiplying it out."""
    scaled = weight * scale
    rounded = dequantize(quantize(scaled, minmax_qparams(scaled, SPEC)))
    return float(((tokens / scale) @ rounded.T - tokens @ weight.T).square().sum(1).mean())


# ---------------------------------------------------------------- scale


def test_candidates_are_autoawqs_twenty() -> None:
    """Duo scaling as published: s = clamp(x^r / (w^(1-r) + 1e-4), 1e-4), then s / sqrt(max(s) min(s))."""
    x, w = torch.rand(64).double() + 0.01, torch.rand(64).double() + 0.01
    candidates = list(scale_candidates(x, w))
    assert len(candidates) == 20
    for number, scale in enumerate(candidates):
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


def test_weight_magnitude_is_the_mean_over_the_rows_of_all_linears() -> None:
    first, second = torch.randn(4, 64), torch.randn(12, 64)
    expected = relative_weight_magnitude([torch.cat([first, second])], 32)
    torch.testing.assert_close(relative_weight_magnitude([first, second], 32), expected)


def test_the_scale_is_the_best_candidate_and_beats_rounding(layer: tuple[Tensor, Tensor]) -> None:
    weight, tokens = layer
    mean_abs = tokens.abs().mean(0)
    loss = compute_loss(
        tokens, weight, search_scale([LinearInput([weight], tokens.T @ tokens / len(tokens), mean_abs)], SPEC)
    )
    candidates = scale_candidates(mean_abs, relative_weight_magnitude([weight], 32))
    assert loss <= min(compute_loss(tokens, weight, scale) for scale in candidates) * 1.001
    assert loss < 0.9 * compute_loss(tokens, weight, torch.ones(64))


def test_the_losses_of_linears_are_added_relative_to_their_outputs(layer: tuple[Tensor, Tensor]) -> None:
    """A linear whose weights are a thousand times larger counts no more than the other."""
    weight, tokens = layer
    hessian, mean_abs = tokens.T @ tokens / len(tokens), tokens.abs().mean(0)
    flipped = weight.flip(0, 1)
    best = search_scale([LinearInput([weight, 1000 * flipped], hessian, mean_abs)], SPEC)
    candidates = scale_candidates(mean_abs, relative_weight_magnitude([weight, 1000 * flipped], 32))

    def compute_joint_loss(scale: Tensor) -> float:
        powers = {w: float((tokens @ w.T).square().sum(1).mean()) for w in (weight, flipped)}
        return sum(compute_loss(tokens, w, scale) / power for w, power in powers.items())

    assert compute_joint_loss(best) <= min(map(compute_joint_loss, candidates)) * 1.01


def test_nothing_is_scaled_where_rounding_has_no_error() -> None:
    """Weights that the codes represent exactly: any scale could only add an error."""
    weight = torch.randint(0, 16, (16, 64), generator=torch.Generator().manual_seed(3)).float() - 7
    weight[:, 0], weight[:, 1] = -7.0, 8.0
    weight[:, 32], weight[:, 33] = -7.0, 8.0
    assert torch.equal(search_scale([LinearInput([weight], torch.eye(64), torch.rand(64) + 0.1)], SPEC), torch.ones(64))


def test_shared_channels_get_the_scale_that_is_best_for_all_their_inputs(layer: tuple[Tensor, Tensor]) -> None:
    weight, tokens = layer
    channel = torch.arange(64) % 32
    mean_abs = tokens.abs().mean(0)
    best = search_scale(
        [LinearInput([weight], tokens.T @ tokens / len(tokens), mean_abs)], SPEC, ScaleLayout(torch.arange(32), channel)
    )
    x, w = ((values[:32] + values[32:]) / 2 for values in (mean_abs, relative_weight_magnitude([weight], 32)))
    losses = [compute_loss(tokens, weight, scale[channel]) for scale in scale_candidates(x, w)]
    assert best.shape == (32,)
    assert compute_loss(tokens, weight, best[channel]) <= min(losses) * 1.001


def test_inputs_of_two_streams_share_the_scale_that_is_best_for_both(layer: tuple[Tensor, Tensor]) -> None:
    """Other tokens, other weights: the errors of both streams are added, each relative to its output."""
    weight, tokens = layer
    second = tokens.flip(1) * torch.linspace(0.5, 2, 64)
    streams = ((tokens, weight), (second, weight.flip(0)))
    inputs = [LinearInput([w], x.T @ x / len(x), x.abs().mean(0)) for x, w in streams]
    best = search_scale(inputs, SPEC)
    mean_abs = torch.stack([x.abs().mean(0) for x, _ in streams]).mean(0)
    candidates = scale_candidates(mean_abs, relative_weight_magnitude([w for _, w in streams], 32))

    def compute_joint_loss(scale: Tensor) -> float:
        return sum(compute_loss(x, w, scale) / float((x @ w.T).square().sum(1).mean()) for x, w in streams)

    assert compute_joint_loss(best) <= min(map(compute_joint_loss, (torch.ones(64), *candidates))) * 1.001


def test_inputs_that_no_value_of_the_scale_reaches_are_not_scaled(layer: tuple[Tensor, Tensor]) -> None:
    weight, tokens = layer
    channel = torch.cat([torch.arange(32), torch.full((32,), NOT_SCALED)])
    layout = ScaleLayout(torch.arange(32), channel)
    mean_abs = tokens.abs().mean(0)
    best = search_scale([LinearInput([weight], tokens.T @ tokens / len(tokens), mean_abs)], SPEC, layout)
    magnitude = relative_weight_magnitude([weight], 32)
    padded = [torch.cat([scale, torch.ones(32)]) for scale in scale_candidates(mean_abs[:32], magnitude[:32])]
    assert torch.equal(layout.expand(best)[32:], torch.ones(32))
    losses = [compute_loss(tokens, weight, scale) for scale in (torch.ones(64), *padded)]
    assert compute_loss(tokens, weight, layout.expand(best)) <= min(losses) * 1.001


def test_large_weights_are_represented_by_some_rows(
    layer: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    weight, tokens = layer
    hessian, mean_abs = tokens.T @ tokens / len(tokens), tokens.abs().mean(0)
    repeated = weight.repeat_interleave(8, 0)
    expected = search_scale([LinearInput([repeated], hessian, mean_abs)], SPEC)
    monkeypatch.setattr(awq, "MAX_ROWS", 24)
    assert torch.equal(search_scale([LinearInput([repeated], hessian, mean_abs)], SPEC), expected)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(cases())
def test_a_scale_is_finite_and_positive_for_any_weight_and_input(case: Case) -> None:
    scale = search_scale([LinearInput([case.weight], case.hessian, case.tokens.abs().mean(0))], SPEC)
    assert torch.isfinite(scale).all()
    assert (scale > 0).all()


# ---------------------------------------------------------------- clip


@pytest.mark.parametrize("linear", ["attention.to_q", "to_k", "self_attn.q_proj", "k_proj", "query", "key", "Wqkv"])
def test_names_that_autoawq_never_clips(linear: str) -> None:
    """As AutoAWQ searches for parts of names, diffusers' to_q and to_k are not among them."""
    assert is_clippable(linear) == linear.endswith(("to_q", "to_k"))


@pytest.mark.parametrize("linear", ["v_proj", "attention.to_v", "to_out.0", "mlp.gate_proj", "feed_forward.w2"])
def test_names_that_autoawq_clips(linear: str) -> None:
    assert is_clippable(linear)


def compute_group_losses(weight: Tensor, hessian: Tensor, qparams: QParams, size: int) -> Tensor:
    """e H_gg e^T of each group, (out, groups), in float64."""
    error = to_groups(dequantize(quantize(weight, qparams)).double() - weight.double(), size)
    starts = range(0, len(hessian), size)
    blocks = torch.stack([hessian[start : start + size, start : start + size] for start in starts]).double()
    return torch.einsum("ogi,gij,ogj->og", error, blocks, error)


@pytest.mark.parametrize("name", SPECS)
@settings(max_examples=8, deadline=None)
@given(case=cases())
def test_each_group_is_clipped_to_the_best_of_ten_limits(name: str, case: Case) -> None:
    """max|w| (1 - i / 20), i = 0 ... 9, as AutoAWQ tries them; the first leaves the range whole."""
    weight, hessian = case.weight, case.hessian
    spec = make_spec(name, weight.shape[1])
    groups = to_groups(weight, spec.group_size)
    low, high = groups.amin(-1), groups.amax(-1)
    candidates = []
    for number in range(10):
        limit = groups.abs().amax(-1) * (1 - number / 20)
        qparams = choose_qparams(torch.maximum(low, -limit), torch.minimum(high, limit), spec)
        candidates.append(compute_group_losses(weight, hessian, qparams, spec.group_size))
    losses = compute_group_losses(weight, hessian, search_clip(weight, hessian, spec), spec.group_size)
    noise = 1e-3 * candidates[0] + 1e-9 * hessian.diagonal().mean() * groups.square().sum(-1)
    assert (losses <= torch.stack(candidates).min(0).values + noise).all()


def test_clipping_helps_where_an_outlier_meets_no_activation() -> None:
    """Such a weight may be clipped for free."""
    weight = torch.randn(64, 32, generator=torch.Generator().manual_seed(2)).clamp(min=0)
    weight[:, 0] = 12.0
    hessian = torch.eye(32)
    hessian[0, 0] = 0.0
    clipped, whole = search_clip(weight, hessian, SPEC), minmax_qparams(weight, SPEC)
    assert clipped.scales.max() < 0.9 * 12 / 15, "a range was left whole"
    losses, whole_losses = (compute_group_losses(weight, hessian, qparams, 32) for qparams in (clipped, whole))
    assert losses.sum() < 0.6 * whole_losses.sum()
