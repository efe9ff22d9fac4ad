"""Input statistics and output errors against plain sums over all tokens in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from edgepress.quantize.calibration import statistics
from edgepress.quantize.calibration.statistics import (
    BLOCK_ROWS,
    CHUNK_TOKENS,
    ActivationStats,
    compute_hessian,
    output_errors,
)

SIZES = (1, 24, BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 1)


@pytest.fixture
def restored_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def make_tokens(count: int, width: int, seed: int = 0) -> Tensor:
    """Tokens of which a few channels are far larger than the rest."""
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    x[:, ::13] *= 20
    return x


def compute_mean_product(x: Tensor) -> Tensor:
    return x.double().T @ x.double() / len(x)


@pytest.mark.parametrize("count", [1, CHUNK_TOKENS, 3 * CHUNK_TOKENS + 7])
def test_sums_over_tokens_that_come_in_chunks(count: int) -> None:
    x = make_tokens(count, 48)
    stats = ActivationStats.empty(48, torch.zeros(48, 48))
    for chunk in x.split(101):
        stats.add(chunk)
    assert stats.count == count
    assert stats.hessian is not None
    torch.testing.assert_close(stats.hessian.double() / count, compute_mean_product(x), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(stats.mean_abs().double(), x.double().abs().mean(0), rtol=1e-5, atol=1e-6)


def test_abs_max_takes_the_largest_value_of_either_sign() -> None:
    x = make_tokens(3 * CHUNK_TOKENS, 48)
    x[7, 3], x[CHUNK_TOKENS + 1, 4] = -1e4, 1e4
    stats = ActivationStats.empty(48, None)
    for chunk in x.split(101):
        stats.add(chunk)
    assert torch.equal(stats.abs_max, x.abs().amax(0))


def test_the_token_sample_is_stored_as_it_is() -> None:
    x = make_tokens(30, 8).bfloat16()
    stats = ActivationStats.empty(8, torch.zeros(8, 8))
    assert "a/tokens" not in stats.state_dict("a")
    stats.keep_tokens(x[:10])
    stats.keep_tokens(x[10:])
    restored = ActivationStats.from_state_dict("a", stats.state_dict("a"))
    assert restored.tokens is not None
    assert restored.tokens.dtype == torch.bfloat16
    assert torch.equal(restored.tokens, x)


def test_tokens_in_bfloat16_are_summed_in_float32() -> None:
    x = make_tokens(1000, 16).bfloat16()
    stats = ActivationStats.empty(16, torch.zeros(16, 16))
    stats.add(x)
    assert stats.hessian is not None
    torch.testing.assert_close(stats.hessian.double() / 1000, compute_mean_product(x), rtol=1e-5, atol=1e-4)


def test_without_a_hessian_only_magnitudes_are_stored() -> None:
    stats = ActivationStats.empty(8, None)
    stats.add(make_tokens(10, 8))
    assert stats.hessian is None
    assert "a/hessian" not in stats.state_dict("a")


@pytest.mark.parametrize("stores_hessian", [True, False])
def test_storing_and_restoring_changes_nothing_that_follows(stores_hessian: bool) -> None:
    first, second = make_tokens(300, 12, seed=1), make_tokens(300, 12, seed=2)
    whole, resumed = (ActivationStats.empty(12, torch.zeros(12, 12) if stores_hessian else None) for _ in range(2))
    whole.add(first)
    whole.add(second)
    resumed.add(first)
    stored = {name: tensor.clone() for name, tensor in resumed.state_dict("block.a").items()}
    resumed = ActivationStats.from_state_dict("block.a", stored)
    resumed.add(second)
    assert resumed.count == whole.count
    assert all(torch.equal(whole.state_dict("x")[name], tensor) for name, tensor in resumed.state_dict("x").items())
    assert len(resumed.state_dict("x")) == 5 + stores_hessian


@pytest.mark.parametrize(
    ("value", "finite"), [(1.0, True), (1e18, True), (1e20, False), (float("inf"), False), (float("nan"), False)]
)
def test_an_input_that_overflowed_is_noticed(value: float, finite: bool) -> None:
    stats = ActivationStats.empty(4, torch.zeros(4, 4))
    stats.add(torch.tensor([[1.0, value, 0.0, -1.0]]))
    assert stats.hessian is not None
    assert stats.is_finite() == finite == bool(torch.isfinite(stats.hessian).all())


@pytest.mark.parametrize("width", SIZES)
def test_the_hessian_is_the_mean_of_products_and_symmetric(width: int) -> None:
    x = make_tokens(40, width)
    hessian = compute_hessian(x)
    assert torch.equal(hessian, hessian.T)
    torch.testing.assert_close(hessian.double(), compute_mean_product(x), rtol=1e-5, atol=1e-4)


def test_the_hessian_of_tokens_in_bfloat16_is_computed_in_float32() -> None:
    x = make_tokens(500, 32).bfloat16()
    torch.testing.assert_close(compute_hessian(x).double(), compute_mean_product(x), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("width", SIZES)
def test_output_errors_are_the_diagonal_of_the_quadratic_form(width: int) -> None:
    x, error = make_tokens(40, width), torch.randn(5, width, generator=torch.Generator().manual_seed(3))
    expected = (x.double() @ error.double().T).square().mean(0)
    errors = output_errors(error, compute_hessian(x))
    assert errors.dtype == torch.float64
    torch.testing.assert_close(errors, expected, rtol=1e-4, atol=0)
    # Products in bfloat16: each of its numbers is rounded by up to 2^-9, and the roundings average out over sums.
    torch.testing.assert_close(output_errors(error, compute_hessian(x).bfloat16()), expected, rtol=2e-2, atol=0)


def test_output_errors_do_not_depend_on_the_size_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, error = make_tokens(200, 96), torch.randn(5, 96)
    whole = output_errors(error, compute_hessian(x))
    monkeypatch.setattr(statistics, "BLOCK_ROWS", 32)
    torch.testing.assert_close(output_errors(error, compute_hessian(x)), whole, rtol=1e-5, atol=0)


def _accumulate(x: Tensor) -> Tensor:
    stats = ActivationStats.empty(x.shape[1], torch.zeros(x.shape[1], x.shape[1]))
    stats.add(x)
    assert stats.hessian is not None
    return stats.hessian


def _compute_errors(x: Tensor) -> Tensor:
    return output_errors(x[:64], _accumulate(x))


@pytest.mark.slow
@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize("compute", [_accumulate, compute_hessian, _compute_errors])
@pytest.mark.parametrize(("count", "width"), [(1400, 1300), (5000, 200)])
def test_any_number_of_threads_gives_the_same_bits(compute: Callable[[Tensor], Tensor], count: int, width: int) -> None:
    x = make_tokens(count, width)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(compute(x))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
