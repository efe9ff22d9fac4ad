"""Input statistics against plain sums over all tokens."""

from __future__ import annotations

import torch

from edgepress.quantize.statistics import SAMPLE_TOKENS, WIDEST_GRAM, Statistics, output_error


def test_narrow_inputs_keep_the_gram_matrix() -> None:
    x = torch.randn(300, 48, dtype=torch.float64)
    statistics = Statistics.empty("a", 48)
    for number, part in enumerate(x.float().split(77)):
        statistics.add(part, number)
    torch.testing.assert_close(statistics.mean_gram().double(), x.T @ x / 300, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(statistics.mean_magnitude().double(), x.abs().mean(0), rtol=1e-5, atol=1e-5)
    assert statistics.count == 300


def test_wide_inputs_keep_tokens_that_were_seen_and_no_more_than_allowed() -> None:
    width = WIDEST_GRAM + 1
    x = torch.arange(3000.0)[:, None].expand(3000, width)
    statistics = Statistics.empty("a", width)
    for number, part in enumerate(x.split(1000)):
        statistics.add(part, number)
    kept = statistics.tokens[:, 0]
    assert len(kept) == SAMPLE_TOKENS == len(set(kept.tolist()))
    # A uniform sample of 0..2999 has mean 1499.5 and, for 1024 of them, a standard error of 22.
    assert abs(kept.mean() - 1499.5) < 100
    torch.testing.assert_close(statistics.mean_gram()[0, 0], kept.square().mean(), rtol=1e-5, atol=0)


def test_storing_and_restoring_changes_nothing_that_follows() -> None:
    width = WIDEST_GRAM + 1
    first, second = torch.randn(1500, width), torch.randn(1500, width)
    whole, cut = Statistics.empty("a", width), Statistics.empty("a", width)
    whole.add(first, 0)
    whole.add(second, 1)
    cut.add(first, 0)
    cut = Statistics.restore("a", cut.tensors())
    cut.add(second, 1)
    assert torch.equal(whole.tokens, cut.tokens)
    assert torch.equal(whole.magnitude, cut.magnitude)


def test_output_error_is_the_mean_squared_norm_over_tokens() -> None:
    x, error = torch.randn(500, 24), torch.randn(7, 24)
    expected = (x @ error.T).square().sum(1).mean().item()
    assert abs(output_error(error, x.T @ x / 500) - expected) < 1e-4 * expected
