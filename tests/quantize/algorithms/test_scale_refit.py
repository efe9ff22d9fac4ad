"""The descent of scales and codes: no step raises the error, scales stay in fp16, codes stay whole."""

from __future__ import annotations

import itertools

import pytest
import torch
from helpers.adversarial import SPECS, Case, cases, make_case, make_spec
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgepress.numerics.affine import QParams, QuantizedWeight, dequantize, minmax_qparams, quantize
from edgepress.quantize.algorithms import scale_refit
from edgepress.quantize.algorithms.gptq import add_damping, gptq_quantize, ldl_factorize
from edgepress.quantize.algorithms.scale_refit import refit_scales


def compute_errors(weight: Tensor, quantized: QuantizedWeight, hessian: Tensor) -> Tensor:
    """e H e^T of each output, in float64."""
    error = dequantize(quantized).double() - weight.double()
    return (error @ hessian.double() * error).sum(1)


def quantize_with(method: str, weight: Tensor, hessian: Tensor, name: str) -> QuantizedWeight:
    spec = make_spec(name, weight.shape[1])
    qparams = minmax_qparams(weight, spec)
    if method == "rtn":
        return quantize(weight, qparams)
    return gptq_quantize(weight, ldl_factorize(hessian, spec.group_size), qparams).quantized


def assert_improved(weight: Tensor, before: QuantizedWeight, after: QuantizedWeight, hessian: Tensor) -> None:
    old, new = compute_errors(weight, before, hessian), compute_errors(weight, after, hessian)
    # Float32: an error is known to about 1e-7 of the weight that it is left of.
    noise = 1e-5 * old + 1e-10 * compute_errors(weight, before._replace(codes=before.codes * 0), hessian)
    worst = ((new - old) / (noise + 1e-300)).max()
    assert (new <= old + noise).all(), f"an output lost {worst} times the noise"
    assert torch.isfinite(dequantize(after)).all()
    qparams = after.qparams
    assert (qparams.scales > 0).all()
    assert torch.equal(qparams.scales, qparams.scales.half().float())
    assert torch.equal(qparams.zero_points, before.qparams.zero_points)
    assert after.codes.min() >= qparams.qmin
    assert after.codes.max() <= qparams.qmax


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rtn", "gptq"])
@pytest.mark.parametrize("name", SPECS)
@settings(max_examples=12, deadline=None)
@given(case=cases())
def test_no_output_ever_gets_worse(name: str, method: str, case: Case) -> None:
    weight, hessian = case.weight, add_damping(case.hessian)
    before = quantize_with(method, weight, hessian, name)
    assert_improved(weight, before, refit_scales(weight, before, hessian), hessian)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(cases(), st.sampled_from(["narrow", "channel"]))
def test_a_narrow_range_keeps_a_code_at_an_end(case: Case, name: str) -> None:
    weight, hessian = case.weight, add_damping(case.hessian)
    before = quantize_with("gptq", weight, hessian, name)
    codes = refit_scales(weight, before, hessian).codes
    ends = ((codes == 1) | (codes == 15)).reshape(*before.qparams.scales.shape, -1)
    assert ends.any(-1).all()


def test_it_helps_both_plain_rounding_and_gptq() -> None:
    case = make_case(1, 64, ["normal", "heavy", "normal", "positive"], "normal")
    weight, hessian = case.weight, add_damping(case.hessian)
    for method, limit in (("rtn", 0.8), ("gptq", 0.97)):
        before = quantize_with(method, weight, hessian, "asymmetric")
        after = refit_scales(weight, before, hessian)
        ratio = compute_errors(weight, after, hessian).sum() / compute_errors(weight, before, hessian).sum()
        assert ratio < limit, f"{method}: {ratio:.3f} of the error is left"


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(cases(), st.sampled_from(list(SPECS)))
def test_nothing_changes_where_there_is_no_error(case: Case, name: str) -> None:
    """Weights whose values the codes represent exactly."""
    hessian = add_damping(case.hessian)
    before = quantize_with("rtn", case.weight, hessian, name)
    after = refit_scales(dequantize(before), before, hessian)
    assert torch.equal(after.codes, before.codes)
    assert torch.equal(after.qparams.scales, before.qparams.scales)


def test_nothing_changes_at_the_best_of_all_codes_and_scales() -> None:
    """Brute force: of 3 channels all codes 0..15 around a zero point of 7, each with its own best scale in fp16."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(40, 3, generator=generator) @ torch.randn(3, 3, generator=generator)
    hessian = add_damping(x.T @ x / len(x)).double()
    steps = torch.tensor(list(itertools.product(range(-7, 9), repeat=3))).double()
    for _ in range(8):
        weight = torch.randn(3, generator=generator).double()
        bend = (steps @ hessian * steps).sum(1).clamp(min=1e-9)
        scale = ((steps @ hessian @ weight) / bend).half().double()
        error = steps * scale[:, None] - weight
        best = int(torch.where(scale > 0, (error @ hessian * error).sum(1), torch.inf).argmin())
        qparams = QParams(scale[best].float().reshape(1, 1), torch.full((1, 1), 7, dtype=torch.uint8))
        before = QuantizedWeight((steps[best] + 7).to(torch.uint8)[None], qparams)
        after = refit_scales(weight.float()[None], before, hessian.float())
        assert torch.equal(dequantize(after), dequantize(before))


def test_a_scale_is_the_least_squares_solution() -> None:
    """Of one group with one channel: the scale that makes the step fit, rounded to fp16."""
    weight = torch.tensor([[0.7]])
    qparams = QParams(torch.tensor([[0.1]]).half().float(), torch.tensor([[8]], dtype=torch.uint8))
    before = QuantizedWeight(torch.tensor([[12]], dtype=torch.uint8), qparams)
    after = refit_scales(weight, before, torch.eye(1))
    assert after.codes.item() == 12
    assert after.qparams.scales.item() == torch.tensor(0.7 / 4).half().item()


def test_the_arguments_are_not_changed() -> None:
    case = make_case(3, 8, ["normal", "heavy"], "normal")
    weight, hessian = case.weight, add_damping(case.hessian)
    before = quantize_with("rtn", weight, hessian, "asymmetric")
    arguments = (weight, hessian, before.codes, before.qparams.scales)
    copies = [tensor.clone() for tensor in arguments]
    refit_scales(weight, before, hessian)
    assert all(map(torch.equal, copies, arguments))


def test_more_sweeps_never_lose(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(4, 32, ["normal", "heavy", "outlier"], "shifted")
    weight, hessian = case.weight, add_damping(case.hessian)
    before = quantize_with("rtn", weight, hessian, "asymmetric")
    errors = []
    for sweeps in (1, 2, 4):
        monkeypatch.setattr(scale_refit, "NUM_SWEEPS", sweeps)
        errors.append(compute_errors(weight, refit_scales(weight, before, hessian), hessian))
    assert (errors[1] <= errors[0] * 1.0001 + 1e-12).all()
    assert (errors[2] <= errors[1] * 1.0001 + 1e-12).all()


def test_matrix_products_in_bfloat16_cost_little() -> None:
    case = make_case(5, 64, ["normal", "heavy"] * 4, "normal")
    weight, hessian = case.weight, add_damping(case.hessian)
    before = quantize_with("gptq", weight, hessian, "asymmetric")
    exact = compute_errors(weight, refit_scales(weight, before, hessian), hessian).sum()
    rough = compute_errors(weight, refit_scales(weight, before, hessian, torch.bfloat16), hessian).sum()
    assert rough < 1.03 * exact
