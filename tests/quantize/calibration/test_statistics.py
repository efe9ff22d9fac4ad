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
def one_thread_again() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def tokens(count: int, width: int, seed: int = 0) -> Tensor:
    """Tokens of which a few channels are far larger than the rest."""
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    x[:, ::13] *= 20
    return x


def mean_gram(x: Tensor) -> Tensor:
    return x.double().T @ x.double() / len(x)


@pytest.mark.parametrize("count", [1, CHUNK_TOKENS, 3 * CHUNK_TOKENS + 7])
def test_sums_over_tokens_that_come_in_parts(count: int) -> None:
    x = tokens(count, 48)
    found = ActivationStats.empty(48, gram=True)
    for part in x.split(101):
        found.add(part)
    assert found.count == count
    assert found.hessian is not None
    torch.testing.assert_close(found.hessian.double() / count, mean_gram(x), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(found.mean_abs().double(), x.double().abs().mean(0), rtol=1e-5, atol=1e-6)


def test_the_largest_value_of_each_channel_is_kept_whatever_its_sign() -> None:
    x = tokens(3 * CHUNK_TOKENS, 48)
    x[7, 3], x[CHUNK_TOKENS + 1, 4] = -1e4, 1e4
    found = ActivationStats.empty(48, gram=False)
    for part in x.split(101):
        found.add(part)
    assert torch.equal(found.abs_max, x.abs().amax(0))


def test_tokens_that_are_set_aside_stay_as_they_were() -> None:
    x = tokens(30, 8).bfloat16()
    found = ActivationStats.empty(8, gram=True)
    assert "a/tokens" not in found.state_dict("a")
    found.keep_tokens(x[:10])
    found.keep_tokens(x[10:])
    again = ActivationStats.from_state_dict("a", found.state_dict("a"))
    assert again.tokens is not None
    assert again.tokens.dtype == torch.bfloat16
    assert torch.equal(again.tokens, x)


def test_tokens_in_bfloat16_are_summed_in_float32() -> None:
    x = tokens(1000, 16).bfloat16()
    found = ActivationStats.empty(16, gram=True)
    found.add(x)
    assert found.hessian is not None
    torch.testing.assert_close(found.hessian.double() / 1000, mean_gram(x), rtol=1e-5, atol=1e-4)


def test_without_a_gram_matrix_only_magnitudes_are_kept() -> None:
    found = ActivationStats.empty(8, gram=False)
    found.add(tokens(10, 8))
    assert found.hessian is None
    assert "a/gram" not in found.state_dict("a")


@pytest.mark.parametrize("gram", [True, False])
def test_storing_and_restoring_changes_nothing_that_follows(gram: bool) -> None:
    first, second = tokens(300, 12, seed=1), tokens(300, 12, seed=2)
    whole, cut = ActivationStats.empty(12, gram), ActivationStats.empty(12, gram)
    whole.add(first)
    whole.add(second)
    cut.add(first)
    stored = {name: tensor.clone() for name, tensor in cut.state_dict("block.a").items()}
    cut = ActivationStats.from_state_dict("block.a", stored)
    cut.add(second)
    assert cut.count == whole.count
    assert all(torch.equal(whole.state_dict("x")[name], tensor) for name, tensor in cut.state_dict("x").items())
    assert len(cut.state_dict("x")) == 3 + gram


@pytest.mark.parametrize(
    ("value", "finite"), [(1.0, True), (1e18, True), (1e20, False), (float("inf"), False), (float("nan"), False)]
)
def test_an_input_that_overflowed_is_noticed(value: float, finite: bool) -> None:
    found = ActivationStats.empty(4, gram=True)
    found.add(torch.tensor([[1.0, value, 0.0, -1.0]]))
    assert found.hessian is not None
    assert found.is_finite() == finite == bool(torch.isfinite(found.hessian).all())


@pytest.mark.parametrize("width", SIZES)
def test_gram_of_is_the_mean_of_products_and_symmetric(width: int) -> None:
    x = tokens(40, width)
    found = compute_hessian(x)
    assert torch.equal(found, found.T)
    torch.testing.assert_close(found.double(), mean_gram(x), rtol=1e-5, atol=1e-4)


def test_gram_of_tokens_in_bfloat16_is_computed_in_float32() -> None:
    x = tokens(500, 32).bfloat16()
    torch.testing.assert_close(compute_hessian(x).double(), mean_gram(x), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("width", SIZES)
def test_output_errors_are_the_diagonal_of_the_quadratic_form(width: int) -> None:
    x, error = tokens(40, width), torch.randn(width, 5, generator=torch.Generator().manual_seed(3))
    expected = (x.double() @ error.double()).square().mean(0)
    found = output_errors(error, compute_hessian(x))
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    # Products in bfloat16: each of its numbers is rounded by up to 2^-9, and the roundings average out over sums.
    torch.testing.assert_close(output_errors(error, compute_hessian(x).bfloat16()), expected, rtol=2e-2, atol=0)


def test_output_errors_do_not_depend_on_how_the_matrix_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    x, error = tokens(200, 96), torch.randn(96, 5)
    whole = output_errors(error, compute_hessian(x))
    monkeypatch.setattr(statistics, "PANEL", 32)
    torch.testing.assert_close(output_errors(error, compute_hessian(x)), whole, rtol=1e-5, atol=0)


def _accumulated(x: Tensor) -> Tensor:
    found = ActivationStats.empty(x.shape[1], gram=True)
    found.add(x)
    assert found.hessian is not None
    return found.hessian


def _errors(x: Tensor) -> Tensor:
    return output_errors(x[: x.shape[1]], _accumulated(x))


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread_again")
@pytest.mark.parametrize("compute", [_accumulated, compute_hessian, _errors])
@pytest.mark.parametrize(("count", "width"), [(1400, 1300), (5000, 200)])
def test_any_number_of_threads_gives_the_same_bits(compute: Callable[[Tensor], Tensor], count: int, width: int) -> None:
    x = tokens(count, width)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(compute(x))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
