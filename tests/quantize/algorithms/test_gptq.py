"""Rounding with error feedback against GPTQ as it was published, brute force, and the identity that it rests on."""

from __future__ import annotations

import itertools

import pytest
import torch
from helpers.adversarial import INPUTS, SIZE, Case, cases, make
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgepress.numerics.affine import QParams
from edgepress.quantize.algorithms import gptq
from edgepress.quantize.algorithms.gptq import (
    DAMPING,
    abs_max_mask,
    activation_order,
    add_damping,
    cholesky,
    gptq_quantize,
    group_qparams,
    ldl_factorize,
)
from edgepress.quantize.algorithms.range_search import group_grid
from edgepress.quantize.algorithms.rounding import Rounded, nearest, stacked, value_of
from edgepress.recipes.schema import Scheme

SCHEME = Scheme(group_size=SIZE)


def plain_grid(weight: Tensor, size: int = SIZE, scheme: Scheme = SCHEME) -> QParams:
    """Min-max grids of a weight (in, out)."""
    return stacked([group_grid(part, scheme) for part in weight.split(size)])


def on_grid(weight: Tensor, gram: Tensor, grid: QParams) -> Rounded:
    """GPTQ on grids (groups, out)."""
    return gptq_quantize(weight, ldl_factorize(gram, len(weight) // len(grid.scales)), grid)


def remaining_of(gram: Tensor, order: Tensor, feedback: Tensor) -> Tensor:
    """M^-1 H M^-T in float64: D, if M is the factor of the reordered H."""
    inverse = torch.linalg.inv(feedback.double())
    return inverse @ gram.double()[order][:, order] @ inverse.T


def objective(weight: Tensor, rounded: Rounded, gram: Tensor) -> Tensor:
    """e^T H e of each output, in float64."""
    error = value_of(rounded).double() - weight.double()
    return (error * (gram.double() @ error)).sum(0)


def published(weight: Tensor, gram: Tensor, grid: QParams, order: Tensor) -> tuple[Tensor, Tensor]:
    """GPTQ as Frantar et al. give it, with the Cholesky factor of the inverse Hessian, channel by channel in float64.

    Returns the codes (in, out) and, for each, how far its argument was from a tie between two codes, in steps.
    """
    size = len(weight) // len(grid.scales)
    inverse = torch.linalg.inv(gram.double()[order][:, order])
    upper = torch.linalg.cholesky(inverse, upper=True)
    held = weight.double()[order]
    codes, distance = torch.empty_like(held), torch.empty_like(held)
    for row, channel in enumerate(order.tolist()):
        scale, zero = grid.scales[channel // size].double(), grid.zero_points[channel // size].double()
        steps = held[row] / scale
        codes[channel] = (torch.round(steps) + zero).clamp(grid.qmin, grid.qmax)
        distance[channel] = ((steps - steps.floor()) - 0.5).abs()
        error = (held[row] - (codes[channel] - zero) * scale) / upper[row, row]
        held[row + 1 :] -= upper[row, row + 1 :, None] * error
    return codes.to(torch.uint8), distance


# ---------------------------------------------------------------- the factor


@pytest.mark.parametrize("width", [1, 32, gptq.CHOLESKY_BLOCK, gptq.CHOLESKY_BLOCK + 1, 3 * gptq.CHOLESKY_BLOCK + 5])
def test_the_cholesky_factor_is_the_one_of_lapack(width: int) -> None:
    x = torch.randn(2 * width, width, generator=torch.Generator().manual_seed(width))
    gram = add_damping(x.T @ x / len(x))
    found = cholesky(gram)
    assert found is not None
    expected = torch.linalg.cholesky(gram.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-5)
    assert not found.triu(1).any()


@pytest.mark.parametrize("width", [2, gptq.CHOLESKY_BLOCK + 9])
def test_an_indefinite_matrix_has_no_factor(width: int) -> None:
    gram = torch.eye(width)
    gram[-1, -1] = -0.1
    assert cholesky(gram) is None


@settings(max_examples=30, deadline=None)
@given(cases(), st.sampled_from([SIZE, None]))
def test_the_factor_makes_the_reordered_matrix_diagonal(case: Case, size: int | None) -> None:
    """H = M D M^T with M unit upper triangular and D positive."""
    gram = add_damping(case.gram)
    order, feedback = ldl_factorize(gram, size or len(gram))
    assert torch.equal(feedback.diagonal(), torch.ones(len(gram)))
    assert not feedback.tril(-1).any()
    remaining = remaining_of(gram, order, feedback)
    diagonal = remaining.diagonal()
    assert (diagonal > 0).all()
    relative = remaining / (diagonal[:, None] * diagonal).sqrt()
    assert (relative - torch.eye(len(gram))).abs().max() < 1e-3


@pytest.mark.parametrize("inputs", INPUTS)
def test_damping_adds_its_share_of_the_mean_of_the_diagonal(inputs: str) -> None:
    gram = make(1, 8, ["normal"] * 2, inputs).gram
    found, mean = add_damping(gram), gram.diagonal().mean()
    expected = gram + DAMPING * mean * torch.eye(len(gram)) if mean else torch.eye(len(gram))
    torch.testing.assert_close(found, expected)
    assert torch.linalg.eigvalsh(found.double()).min() > 0


def test_a_matrix_that_float32_cannot_factorize_is_damped_further() -> None:
    """Indefinite by more than the usual damping: the factor is that of the matrix with ten times as much."""
    gram = torch.ones(64, 64)
    gram[0, 1] = gram[1, 0] = 1.3
    assert cholesky(add_damping(gram)) is None
    order, feedback = ldl_factorize(add_damping(gram), 32)
    remaining = remaining_of(add_damping(add_damping(gram), 10 * DAMPING), order, feedback)
    assert (remaining - remaining.diagonal().diag()).abs().max() < 1e-4


@settings(max_examples=20, deadline=None)
@given(cases())
def test_groups_stay_whole_and_the_loud_come_first(case: Case) -> None:
    energy = case.gram.diagonal()
    order = activation_order(case.gram, SIZE)
    assert sorted(order.tolist()) == list(range(len(energy)))
    parts = order.reshape(-1, SIZE)
    assert (parts // SIZE == parts[:, :1] // SIZE).all()
    assert (energy[parts].diff(dim=1) <= 0).all()
    assert (energy[parts].double().sum(1).diff() <= 1e-5 * energy.sum()).all()


# ---------------------------------------------------------------- rounding


@settings(max_examples=30, deadline=None)
@given(cases())
def test_the_error_is_the_sum_over_channels_of_what_remains(case: Case) -> None:
    """LDLQ: e^T H e = sum_k D_k (target_k - q_k)^2, target_k being w_k with the feedback of all channels before."""
    weight, gram = case.weight.T.contiguous(), add_damping(case.gram)
    rounded = on_grid(weight, gram, plain_grid(weight))
    order, feedback = ldl_factorize(gram, SIZE)
    error = (weight.double() - value_of(rounded).double())[order]
    terms = remaining_of(gram, order, feedback).diagonal()[:, None] * (feedback.double().T @ error).square()
    torch.testing.assert_close(terms.sum(0), objective(weight, rounded, gram), rtol=1e-3, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(cases(), st.integers(0, 2**31))
def test_with_a_diagonal_matrix_it_is_plain_rounding(case: Case, seed: int) -> None:
    weight = case.weight.T.contiguous()
    gram = torch.diag(torch.rand(len(weight), generator=torch.Generator().manual_seed(seed)) + 0.01)
    grid = plain_grid(weight)
    assert torch.equal(on_grid(weight, gram, grid).codes, nearest(weight, grid).codes)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**31),
    st.lists(st.sampled_from(["normal", "heavy", "positive", "outlier"]), min_size=1, max_size=5),
    st.sampled_from(["normal", "loud", "dead", "short", "shifted"]),
)
def test_the_codes_are_those_of_gptq_as_published(seed: int, kinds: list[str], inputs: str) -> None:
    """Until an argument is so near a tie that float32 may decide it the other way; later channels then differ too."""
    case = make(seed, 16, kinds, inputs)
    weight, gram = case.weight.T.contiguous(), add_damping(case.gram)
    grid = plain_grid(weight)
    order = activation_order(gram, SIZE)
    found = on_grid(weight, gram, grid).codes[order]
    codes, distance = published(weight, gram, grid, order)
    certain = (distance[order] > 1e-3).cummin(0).values
    assert certain.float().mean() > 0.5, "the comparison saw too little"
    assert torch.equal(found[certain], codes[order][certain])


def test_panels_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make(2, 16, ["normal", "heavy", "normal"], "normal")
    weight, gram = case.weight.T.contiguous(), add_damping(case.gram)
    grid = plain_grid(weight, 96)
    found = on_grid(weight, gram, grid)
    monkeypatch.setattr(gptq, "PANEL", 7)
    monkeypatch.setattr(gptq, "BLOCK", 11)
    again = on_grid(weight, gram, grid)
    assert (found.codes != again.codes).float().mean() < 0.01  # ties that rounding decides
    torch.testing.assert_close(
        objective(weight, found, gram).sum(), objective(weight, again, gram).sum(), rtol=1e-2, atol=0
    )


def test_it_is_near_the_best_of_all_codes_and_nearer_than_rounding() -> None:
    """Brute force over all 16^4 codes of four correlated channels, for 64 outputs."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(4, 64, generator=generator)
    x = torch.randn(50, 4, generator=generator) @ torch.randn(4, 4, generator=generator) + 1
    gram = add_damping(x.T @ x / len(x))
    grid = plain_grid(weight, 4)
    every = torch.tensor(list(itertools.product(range(16), repeat=4)), dtype=torch.float32)
    best = torch.stack([_least(every, weight[:, o], gram, grid, o) for o in range(64)])
    rtn = objective(weight, nearest(weight, grid), gram)
    found = objective(weight, on_grid(weight, gram, grid), gram)
    assert (found >= best * (1 - 1e-4) - 1e-9).all()
    assert (found <= rtn * 1.0001 + 1e-9).float().mean() > 0.8
    gained = (rtn.sum() - found.sum()) / (rtn.sum() - best.sum())
    assert gained > 0.5, f"only {gained:.0%} of what could be gained"


def _least(every: Tensor, weight: Tensor, gram: Tensor, grid: QParams, output: int) -> Tensor:
    values = (every - grid.zero_points[0, output].float()) * grid.scales[0, output]
    error = (values - weight).double()
    return (error @ gram.double() * error).sum(1).min()


def test_a_group_is_rounded_for_what_the_groups_before_left_it_to_make_up_for() -> None:
    """The channel after all others of the first group holds its weight plus M^T e of that group."""
    case = make(4, 8, ["normal", "normal"], "normal")
    weight, gram = case.weight.T.contiguous(), add_damping(case.gram)
    grid = plain_grid(weight)
    order, feedback = ldl_factorize(gram, SIZE)
    rounded = on_grid(weight, gram, grid)
    first, next_one = order[:SIZE], int(order[SIZE])
    target = weight[next_one] + feedback[:SIZE, SIZE] @ (weight[first] - value_of(rounded)[first])
    held = group_qparams(grid, next_one // SIZE)
    expected = (torch.round(target / held.scales) + held.zero_points).clamp(0, 15)
    assert torch.equal(rounded.codes[next_one].float(), expected)


@settings(max_examples=20, deadline=None)
@given(cases())
def test_a_narrow_grid_keeps_the_largest_weight_at_an_end(case: Case) -> None:
    weight = case.weight.T.contiguous()
    grid = plain_grid(weight, scheme=Scheme(group_size=SIZE, zero_point=False, narrow_range=True))
    codes = on_grid(weight, add_damping(case.gram), grid).codes
    assert codes.min() >= 1
    ends = (codes == 1) | (codes == 15)
    assert ends.reshape(-1, SIZE, codes.shape[1]).any(1).all()


def test_the_largest_of_each_output_is_marked_once() -> None:
    weight = torch.tensor([[1.0, 0.0, 2.0], [-3.0, 0.0, 2.0]])
    assert abs_max_mask(weight).int().tolist() == [[0, 1, 1], [1, 0, 0]]


def test_products_in_bfloat16_cost_little() -> None:
    case = make(5, 32, ["heavy"] * 8, "normal")
    weight, gram = case.weight.T.contiguous(), add_damping(case.gram)
    grid = plain_grid(weight)
    exact = objective(weight, on_grid(weight, gram, grid), gram).sum()
    factor = ldl_factorize(gram, SIZE, torch.bfloat16)
    assert factor.feedback.dtype == torch.bfloat16
    assert objective(weight, gptq_quantize(weight, factor, grid), gram).sum() < 1.03 * exact
