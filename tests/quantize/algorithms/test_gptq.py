"""GPTQ against the published algorithm, brute force, and the identity it rests on."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from helpers.adversarial import GROUP_SIZE, INPUT_KINDS, SPECS, Case, cases, make_case
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgepress.numerics.affine import QParams, QuantizedWeight, dequantize, minmax_qparams, quantize
from edgepress.numerics.quant_spec import QuantSpec
from edgepress.quantize.algorithms import gptq
from edgepress.quantize.algorithms.gptq import (
    DAMPING,
    abs_max_mask,
    activation_order,
    add_damping,
    cholesky_,
    compute_damping,
    gptq_quantize,
    group_qparams,
    ldl_factorize,
)

SPEC = QuantSpec(group_size=GROUP_SIZE)


def quantize_with_gptq(weight: Tensor, hessian: Tensor, qparams: QParams) -> QuantizedWeight:
    group_size = weight.shape[1] // qparams.scales.shape[1]
    return gptq_quantize(weight, ldl_factorize(hessian, group_size), qparams).quantized


def compute_d(hessian: Tensor, order: Tensor, feedback: Tensor) -> Tensor:
    """M^-1 H M^-T in float64: D, if M is the factor of the reordered H."""
    inverse = torch.linalg.inv(feedback.double())
    return inverse @ hessian.double()[order][:, order] @ inverse.T


def compute_errors(weight: Tensor, quantized: QuantizedWeight, hessian: Tensor) -> Tensor:
    """e H e^T of each output, in float64."""
    error = dequantize(quantized).double() - weight.double()
    return (error @ hessian.double() * error).sum(1)


def quantize_as_published(weight: Tensor, hessian: Tensor, qparams: QParams, order: Tensor) -> tuple[Tensor, Tensor]:
    """GPTQ as Frantar et al. give it, with the Cholesky factor of the inverse Hessian, channel by channel in float64.

    Returns the codes (out, in) and, for each, how far its argument was from a tie between two codes, in steps.
    """
    size = weight.shape[1] // qparams.scales.shape[1]
    inverse = torch.linalg.inv(hessian.double()[order][:, order])
    upper = torch.linalg.cholesky(inverse, upper=True)
    remaining = weight.double()[:, order]
    codes, distance = torch.empty_like(remaining), torch.empty_like(remaining)
    for column, channel in enumerate(order.tolist()):
        group = group_qparams(qparams, channel // size)
        scale, zero_point = group.scales.double(), group.zero_points.double()
        steps = remaining[:, column] / scale
        codes[:, channel] = (torch.round(steps) + zero_point).clamp(qparams.qmin, qparams.qmax)
        distance[:, channel] = ((steps - steps.floor()) - 0.5).abs()
        error = (remaining[:, column] - (codes[:, channel] - zero_point) * scale) / upper[column, column]
        remaining[:, column + 1 :] -= error[:, None] * upper[column, column + 1 :]
    return codes.to(torch.uint8), distance


# ---------------------------------------------------------------- the factor


@pytest.mark.parametrize("width", [1, 32, gptq.CHOLESKY_BLOCK, gptq.CHOLESKY_BLOCK + 1, 3 * gptq.CHOLESKY_BLOCK + 5])
def test_the_cholesky_factor_is_the_one_of_lapack(width: int) -> None:
    x = torch.randn(2 * width, width, generator=torch.Generator().manual_seed(width))
    hessian = add_damping(x.T @ x / len(x))
    lower = cholesky_(hessian.clone())
    assert lower is not None
    expected = torch.linalg.cholesky(hessian.double())
    torch.testing.assert_close(lower.double(), expected, rtol=1e-3, atol=1e-5)
    assert not lower.triu(1).any()


@pytest.mark.parametrize("width", [2, gptq.CHOLESKY_BLOCK + 9])
def test_an_indefinite_matrix_has_no_factor(width: int) -> None:
    hessian = torch.eye(width)
    hessian[-1, -1] = -0.1
    assert cholesky_(hessian) is None


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(cases(), st.sampled_from([GROUP_SIZE, None]))
def test_the_factor_makes_the_reordered_matrix_diagonal(case: Case, size: int | None) -> None:
    """H = M D M^T with M unit upper triangular and D positive."""
    hessian = add_damping(case.hessian)
    order, feedback, factor_diagonal, damping = ldl_factorize(hessian, size or len(hessian))
    assert damping == 0
    assert torch.equal(feedback.diagonal(), torch.ones(len(hessian)))
    assert not feedback.tril(-1).any()
    d = compute_d(hessian, order, feedback)
    diagonal = d.diagonal()
    assert (diagonal > 0).all()
    torch.testing.assert_close(factor_diagonal.double(), diagonal, rtol=1e-3, atol=0)
    relative = d / (diagonal[:, None] * diagonal).sqrt()
    assert (relative - torch.eye(len(hessian))).abs().max() < 1e-3


@pytest.mark.parametrize("inputs", INPUT_KINDS)
def test_damping_adds_its_share_of_the_mean_of_the_diagonal(inputs: str) -> None:
    hessian = make_case(1, 8, ["normal"] * 2, inputs).hessian
    damped, mean = add_damping(hessian), hessian.diagonal().mean()
    expected = hessian + DAMPING * mean * torch.eye(len(hessian)) if mean else torch.eye(len(hessian))
    torch.testing.assert_close(damped, expected)
    assert torch.linalg.eigvalsh(damped.double()).min() > 0


def test_a_matrix_that_float32_cannot_factorize_is_damped_further() -> None:
    """Indefinite by more than the usual damping: the factor is that of the matrix with ten times as much."""
    hessian = torch.ones(64, 64)
    hessian[0, 1] = hessian[1, 0] = 1.3
    assert cholesky_(add_damping(hessian)) is None
    order, feedback, _, damping = ldl_factorize(add_damping(hessian), 32)
    damped = add_damping(add_damping(hessian), 10 * DAMPING)
    assert damping == pytest.approx(float(damped[0, 0] - add_damping(hessian)[0, 0]))
    d = compute_d(damped, order, feedback)
    assert (d - d.diagonal().diag()).abs().max() < 1e-4


@settings(max_examples=20, deadline=None)
@given(cases())
def test_groups_stay_together_and_large_inputs_come_first(case: Case) -> None:
    energy = case.hessian.diagonal()
    order = activation_order(case.hessian, GROUP_SIZE)
    assert sorted(order.tolist()) == list(range(len(energy)))
    groups = order.reshape(-1, GROUP_SIZE)
    assert (groups // GROUP_SIZE == groups[:, :1] // GROUP_SIZE).all()
    assert (energy[groups].diff(dim=1) <= 0).all()
    assert (energy[groups].double().sum(1).diff() <= 1e-5 * energy.sum()).all()


# ---------------------------------------------------------------- rounding


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(cases())
def test_the_error_is_the_sum_of_what_each_channel_adds(case: Case) -> None:
    """LDLQ: e H e^T = sum_k D_k (target_k - q_k)^2, target_k being w_k with the feedback of all channels before."""
    weight, hessian = case.weight, add_damping(case.hessian)
    quantized = quantize_with_gptq(weight, hessian, minmax_qparams(weight, SPEC))
    order, feedback, *_ = ldl_factorize(hessian, GROUP_SIZE)
    error = (weight.double() - dequantize(quantized).double())[:, order]
    terms = compute_d(hessian, order, feedback).diagonal() * (error @ feedback.double()).square()
    torch.testing.assert_close(terms.sum(1), compute_errors(weight, quantized, hessian), rtol=1e-3, atol=1e-12)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(cases(), st.sampled_from([torch.float32, torch.bfloat16]))
def test_errors_come_with_the_codes(case: Case, dtype: torch.dtype) -> None:
    """As multiplied out in float64; with products in bfloat16 they are those of slightly other weights."""
    weight, hessian = case.weight, add_damping(case.hessian)
    result = gptq_quantize(weight, ldl_factorize(hessian, GROUP_SIZE, dtype), minmax_qparams(weight, SPEC))
    tolerance = 1e-3 if dtype is torch.float32 else 2e-2
    expected = compute_errors(weight, result.quantized, hessian)
    torch.testing.assert_close(result.output_errors, expected, rtol=tolerance, atol=1e-12)
    squares = (dequantize(result.quantized).double() - weight.double()).square().sum(1)
    torch.testing.assert_close(result.squared_errors, squares, rtol=1e-3, atol=1e-12)


def test_damping_on_the_way_is_that_of_a_damped_matrix() -> None:
    case = make_case(3, 8, ["normal"] * 2, "normal")
    before = case.hessian.clone()
    factor = ldl_factorize(case.hessian, GROUP_SIZE, damping=compute_damping(case.hessian))
    expected = ldl_factorize(add_damping(case.hessian), GROUP_SIZE)
    assert all(torch.equal(a, b) for a, b in zip(factor[:3], expected[:3], strict=True))
    assert factor.damping == pytest.approx(DAMPING * float(case.hessian.diagonal().mean()))
    assert torch.equal(case.hessian, before)


@settings(max_examples=20, deadline=None)
@given(cases(), st.integers(0, 2**31))
def test_with_a_diagonal_matrix_it_is_plain_rounding(case: Case, seed: int) -> None:
    width = case.weight.shape[1]
    hessian = torch.diag(torch.rand(width, generator=torch.Generator().manual_seed(seed)) + 0.01)
    qparams = minmax_qparams(case.weight, SPEC)
    quantized = quantize_with_gptq(case.weight, hessian, qparams)
    assert torch.equal(quantized.codes, quantize(case.weight, qparams).codes)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**31),
    st.lists(st.sampled_from(["normal", "heavy", "positive", "outlier"]), min_size=1, max_size=5),
    st.sampled_from(["normal", "loud", "dead", "short", "shifted"]),
)
def test_the_codes_are_those_of_gptq_as_published(seed: int, kinds: list[str], inputs: str) -> None:
    """Until an argument is so near a tie that float32 may decide it the other way; later channels then differ too."""
    case = make_case(seed, 16, kinds, inputs)
    weight, hessian = case.weight, add_damping(case.hessian)
    qparams = minmax_qparams(weight, SPEC)
    order = activation_order(hessian, GROUP_SIZE)
    codes = quantize_with_gptq(weight, hessian, qparams).codes[:, order]
    expected, distance = quantize_as_published(weight, hessian, qparams, order)
    certain = (distance[:, order] > 1e-3).cummin(1).values
    assert certain.float().mean() > 0.5, "the comparison saw too little"
    assert torch.equal(codes[certain], expected[:, order][certain])


def test_the_sizes_of_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(2, 16, ["normal", "heavy", "normal"], "normal")
    weight, hessian = case.weight, add_damping(case.hessian)
    qparams = minmax_qparams(weight, replace(SPEC, group_size=96))
    first = quantize_with_gptq(weight, hessian, qparams)
    monkeypatch.setattr(gptq, "BLOCK_SIZE", 7)
    monkeypatch.setattr(gptq, "CHOLESKY_BLOCK", 11)
    second = quantize_with_gptq(weight, hessian, qparams)
    assert (first.codes != second.codes).float().mean() < 0.01  # ties that rounding decides
    errors = [compute_errors(weight, quantized, hessian).sum() for quantized in (first, second)]
    torch.testing.assert_close(*errors, rtol=1e-2, atol=0)


def test_the_memory_layout_of_the_weight_changes_nothing() -> None:
    case = make_case(6, 16, ["normal", "heavy"], "normal")
    hessian, qparams = add_damping(case.hessian), minmax_qparams(case.weight, SPEC)
    by_channel = case.weight.T.contiguous().T
    first, second = (quantize_with_gptq(weight, hessian, qparams) for weight in (case.weight, by_channel))
    assert torch.equal(first.codes, second.codes)


@pytest.mark.slow
def test_it_is_near_the_best_of_all_codes_and_nearer_than_rounding() -> None:
    """Brute force over all 16^4 codes of four correlated channels, for 64 outputs."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(4, 64, generator=generator).T
    x = torch.randn(50, 4, generator=generator) @ torch.randn(4, 4, generator=generator) + 1
    hessian = add_damping(x.T @ x / len(x))
    qparams = minmax_qparams(weight, replace(SPEC, group_size=4))
    all_codes = torch.tensor(list(itertools.product(range(16), repeat=4)), dtype=torch.float32)
    best = torch.stack([_find_least_error(all_codes, weight, hessian, qparams, output) for output in range(64)])
    rtn = compute_errors(weight, quantize(weight, qparams), hessian)
    errors = compute_errors(weight, quantize_with_gptq(weight, hessian, qparams), hessian)
    assert (errors >= best * (1 - 1e-4) - 1e-9).all()
    assert (errors <= rtn * 1.0001 + 1e-9).float().mean() > 0.8
    gained = (rtn.sum() - errors.sum()) / (rtn.sum() - best.sum())
    assert gained > 0.5, f"only {gained:.0%} of what could be gained"


def _find_least_error(all_codes: Tensor, weight: Tensor, hessian: Tensor, qparams: QParams, output: int) -> Tensor:
    values = (all_codes - qparams.zero_points[output, 0].float()) * qparams.scales[output, 0]
    error = (values - weight[output]).double()
    return (error @ hessian.double() * error).sum(1).min()


def test_a_group_compensates_the_errors_of_the_groups_before() -> None:
    """The first channel after a group is rounded from its weight plus e M of that group."""
    case = make_case(4, 8, ["normal", "normal"], "normal")
    weight, hessian = case.weight, add_damping(case.hessian)
    qparams = minmax_qparams(weight, SPEC)
    order, feedback, *_ = ldl_factorize(hessian, GROUP_SIZE)
    quantized = quantize_with_gptq(weight, hessian, qparams)
    first, following = order[:GROUP_SIZE], int(order[GROUP_SIZE])
    error = (weight - dequantize(quantized))[:, first]
    target = weight[:, following] + error @ feedback[:GROUP_SIZE, GROUP_SIZE]
    group = group_qparams(qparams, following // GROUP_SIZE)
    expected = (torch.round(target / group.scales) + group.zero_points).clamp(0, 15)
    assert torch.equal(quantized.codes[:, following].float(), expected)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(cases())
def test_a_narrow_range_keeps_the_largest_weight_at_an_end(case: Case) -> None:
    qparams = minmax_qparams(case.weight, SPECS["narrow"])
    codes = quantize_with_gptq(case.weight, add_damping(case.hessian), qparams).codes
    assert codes.min() >= 1
    ends = (codes == 1) | (codes == 15)
    assert ends.reshape(len(codes), -1, GROUP_SIZE).any(-1).all()


def test_the_largest_weight_of_each_output_is_marked_once() -> None:
    weight = torch.tensor([[1.0, 0.0, 2.0], [-3.0, 0.0, 2.0]])
    assert abs_max_mask(weight).int().tolist() == [[0, 1, 1], [1, 0, 0]]


def test_matrix_products_in_bfloat16_cost_little() -> None:
    case = make_case(5, 32, ["heavy"] * 8, "normal")
    weight, hessian = case.weight, add_damping(case.hessian)
    qparams = minmax_qparams(weight, SPEC)
    exact = compute_errors(weight, quantize_with_gptq(weight, hessian, qparams), hessian).sum()
    factor = ldl_factorize(hessian, GROUP_SIZE, torch.bfloat16)
    assert factor.feedback.dtype == torch.bfloat16
    assert compute_errors(weight, gptq_quantize(weight, factor, qparams).quantized, hessian).sum() < 1.03 * exact
