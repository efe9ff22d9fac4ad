"""One linear: never worse than rounding to nearest, errors as real tokens show them, the same codes on any machine."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from helpers.adversarial import SPECS, Case, cases, make_case, make_spec
from hypothesis import given, settings
from torch import Tensor

from edgepress.numerics.affine import dequantize, minmax_qparams, quantize
from edgepress.numerics.quant_spec import QuantSpec
from edgepress.quantize.solver import layer
from edgepress.quantize.solver.layer import LayerInput, LayerResult, quantize_layer
from edgepress.recipes.schema import METHOD_STEPS, Step

STEPS: dict[str, tuple[Step, ...]] = {
    "gptq": METHOD_STEPS["gptq"],
    "awq": METHOD_STEPS["awq"],
    "all": ("scale", "clip", "range_search", "gptq", "scale_refit", "reround"),
    "scale_refit": ("scale_refit",),
}
NARROW = [name for name, spec in SPECS.items() if spec.narrow_range]


@pytest.fixture
def restored_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def compute_errors(case: Case, weight: Tensor) -> Tensor:
    """The mean squared error of each output, (out,), by multiplying out in float64."""
    return (case.tokens.double() @ (weight.double() - case.weight.double()).T).square().mean(0)


def solve(
    steps: tuple[Step, ...], case: Case, name: str = "asymmetric", matmul_dtype: torch.dtype = torch.float32
) -> LayerResult:
    spec = make_spec(name, case.weight.shape[1])
    return quantize_layer("to_out", case.weight, LayerInput(case.hessian, spec, matmul_dtype), steps)


def round_plainly(case: Case, name: str = "asymmetric") -> LayerResult:
    qparams = minmax_qparams(case.weight, make_spec(name, case.weight.shape[1]))
    return LayerResult(quantize(case.weight, qparams), 0.0)


def are_equal(first: LayerResult, second: LayerResult) -> bool:
    a, b = first.quantized, second.quantized
    pairs = zip((a.codes, *a.qparams[:2]), (b.codes, *b.qparams[:2]), strict=True)
    return all(torch.equal(*pair) for pair in pairs) and a.qparams[2:] == b.qparams[2:]


def estimate_noise(case: Case, weight: Tensor) -> Tensor:
    """What float32 may get wrong in each output's error, (out,), with room for some sums.

    H's entries are known to a share of what their products hold without signs, and so are the weights.
    """
    tokens, original = case.tokens.double().abs(), case.weight.double()
    power, difference = ((tokens @ value.abs().T).square().mean(0) for value in (original, weight.double() - original))
    return 1e-6 * difference + 1e-9 * power


# ---------------------------------------------------------------- what must hold for any weight


@pytest.mark.slow
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", SPECS)
@settings(max_examples=12, deadline=None)
@given(case=cases())
def test_no_step_raises_the_error_and_no_output_is_worse_than_rounding(name: str, steps: str, case: Case) -> None:
    result = solve(STEPS[steps], case, name)
    errors = list(result.errors.values())
    assert errors == sorted(errors, reverse=True)
    weight = dequantize(result.quantized)
    assert torch.isfinite(weight).all()
    qparams = result.quantized.qparams
    assert result.quantized.codes.min() >= qparams.qmin
    assert result.quantized.codes.max() <= qparams.qmax
    assert torch.equal(qparams.scales, qparams.scales.half().float())
    assert (qparams.scales > 0).all()
    rtn = compute_errors(case, dequantize(round_plainly(case, name).quantized))
    assert (compute_errors(case, weight) <= rtn * (1 + 1e-3) + estimate_noise(case, weight)).all()


@pytest.mark.slow
@pytest.mark.parametrize("steps", STEPS)
@settings(max_examples=15, deadline=None)
@given(case=cases())
def test_the_reported_errors_are_those_on_real_tokens(steps: str, case: Case) -> None:
    result = solve(STEPS[steps], case)
    first, last = dequantize(round_plainly(case).quantized), dequantize(result.quantized)
    errors = list(result.errors.values())
    for error, weight in ((errors[0], first), (errors[-1], last)):
        noise = float(estimate_noise(case, weight).sum())
        assert error == pytest.approx(float(compute_errors(case, weight).sum()), rel=1e-3, abs=noise)
    power = (case.tokens.double() @ case.weight.double().T).square().sum(1).mean()
    assert result.output_power == pytest.approx(float(power), rel=1e-3, abs=float(estimate_noise(case, last).sum()))


@pytest.mark.slow
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", NARROW)
@settings(max_examples=12, deadline=None)
@given(case=cases())
def test_scales_recovered_from_the_largest_weight_give_the_same_codes(name: str, steps: str, case: Case) -> None:
    """As RKNN does: each group's max|w| / 7 (127 with 8 bits) in float32, then rounding.

    Groups too small for fp16's smallest scale are passed over.
    """
    codes, qparams = quantized = solve(STEPS[steps], case, name).quantized
    middle = 2 ** (SPECS[name].bits - 1)
    groups = dequantize(quantized).reshape(*qparams.scales.shape, -1)
    is_large = (qparams.scales > 2.0**-24)[..., None].expand_as(groups)
    scales = groups.abs().amax(-1, keepdim=True) / (middle - 1)
    steps_from_zero = torch.where(scales > 0, torch.round(groups / scales), 0)
    torch.testing.assert_close((steps_from_zero * scales)[is_large], groups[is_large], rtol=1e-6, atol=0)
    nonzero = is_large & (scales > 0)
    assert torch.equal((steps_from_zero + middle)[nonzero], codes.reshape(groups.shape)[nonzero].float())


# ---------------------------------------------------------------- steps


def test_every_step_gains_on_a_layer_with_outliers() -> None:
    case = make_case(1, 128, ["heavy", "normal", "heavy", "positive"], "normal")
    errors = solve(("clip", "range_search", "gptq", "scale_refit"), case).errors
    assert list(errors) == ["rtn", "clip", "range_search", "gptq", "scale_refit"]
    values = list(errors.values())
    assert all(after < 0.99 * before for before, after in itertools.pairwise(values)), errors


def test_best_beats_awqs_clipping_and_rounding_by_far() -> None:
    case = make_case(2, 64, ["heavy", "normal"] * 2, "normal")
    best = list(solve(METHOD_STEPS["gptq"], case).errors.values())
    awq = list(solve(METHOD_STEPS["awq"], case).errors.values())
    assert best[-1] < 0.6 * best[0]
    assert best[-1] < 0.7 * awq[-1]


def test_without_steps_it_is_rounding_to_nearest() -> None:
    case = make_case(3, 16, ["normal", "heavy"], "normal")
    result = solve((), case)
    assert list(result.errors) == ["rtn"]
    assert are_equal(result, round_plainly(case))


def test_queries_and_keys_are_not_clipped() -> None:
    case = make_case(4, 16, ["heavy"] * 2, "normal")
    layer_input = LayerInput(case.hessian, SPECS["asymmetric"])
    assert list(quantize_layer("to_out", case.weight, layer_input, ("clip",)).errors) == ["rtn", "clip"]
    assert list(quantize_layer("q_proj", case.weight, layer_input, ("clip",)).errors) == ["rtn"]


def test_gptq_changes_codes_and_no_parameters() -> None:
    case = make_case(5, 16, ["heavy"] * 3, "normal")
    before = solve(("range_search",), case).quantized
    after = solve(("range_search", "gptq"), case).quantized
    assert torch.equal(before.qparams.scales, after.qparams.scales)
    assert torch.equal(before.qparams.zero_points, after.qparams.zero_points)
    assert not torch.equal(before.codes, after.codes)


def test_weights_in_bfloat16_give_what_the_same_weights_in_float32_give() -> None:
    case = make_case(6, 16, ["normal"] * 2, "normal")
    short = case._replace(weight=case.weight.bfloat16())
    wide = short._replace(weight=short.weight.float())
    assert are_equal(solve(METHOD_STEPS["gptq"], short), solve(METHOD_STEPS["gptq"], wide))


@pytest.mark.parametrize("steps", STEPS)
def test_the_result_is_stored_by_output(steps: str) -> None:
    """As `nn.Linear` stores its weight: what reads the codes computes the same whatever the steps were."""
    codes, qparams = solve(STEPS[steps], make_case(7, 24, ["heavy", "negative"], "normal")).quantized
    assert all(tensor.is_contiguous() for tensor in (codes, qparams.scales, qparams.zero_points))


# ---------------------------------------------------------------- however it is computed


@pytest.mark.parametrize("name", ["asymmetric", "narrow"])
def test_many_outputs_are_quantized_in_slices_with_the_same_result(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(8, 40, ["heavy", "normal"], "normal")
    whole = solve(STEPS["all"], case, name)
    monkeypatch.setattr(layer, "MAX_OUTPUTS", 16)
    sliced = solve(STEPS["all"], case, name)
    # Products of other shapes may be rounded differently in the last bit, and then a tie falls the other way.
    assert (whole.quantized.codes != sliced.quantized.codes).float().mean() < 0.005
    assert list(sliced.errors.values()) == pytest.approx(list(whole.errors.values()), rel=1e-2)
    assert sliced.output_power == pytest.approx(whole.output_power, rel=1e-5)


@pytest.mark.parametrize("steps", [(), ("gptq",)])
def test_in_a_large_layer_every_eighth_output_stands_for_all(
    steps: tuple[Step, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case(8, 100, ["heavy", "normal"] * 8, "normal")
    exact, refined = solve(steps, case), solve(STEPS["all"], case)
    monkeypatch.setattr(layer, "LARGE_LAYER", 0)
    result = solve(steps, case)
    lost = compute_errors(case, dequantize(result.quantized)).sum()
    assert lost <= 1.01 * compute_errors(case, dequantize(exact.quantized)).sum()
    assert solve(STEPS["all"], case).errors == refined.errors
    judged = slice(None, None, 8)
    share = len(case.weight[judged]) / 100
    errors = list(result.errors.values())
    assert errors == sorted(errors, reverse=True)
    for error, weight in ((errors[0], round_plainly(case)), (errors[-1], result)):
        expected = compute_errors(case, dequantize(weight.quantized))[judged].sum() / share
        assert error == pytest.approx(float(expected), rel=1e-3)
    power = (case.tokens.double() @ case.weight[judged].double().T).square().sum(1).mean() / share
    assert result.output_power == pytest.approx(float(power), rel=1e-3)


@pytest.mark.parametrize("steps", ["gptq", "all"])
def test_matrix_products_in_bfloat16_cost_little(steps: str) -> None:
    case = make_case(9, 96, ["heavy", "normal", "positive", "normal"] * 2, "normal")
    exact, rough = (
        compute_errors(case, dequantize(solve(STEPS[steps], case, matmul_dtype=dtype).quantized)).sum()
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert rough < 1.04 * exact, f"bfloat16 loses {rough / exact - 1:.1%}"


@pytest.mark.parametrize("inputs", ["loud", "dead", "single", "zero", "faint", "shifted"])
def test_matrix_products_in_bfloat16_stay_finite_and_no_worse_than_rounding(inputs: str) -> None:
    """By 2 % at most, since bfloat16 cannot tell errors apart that are closer."""
    case = make_case(10, 16, ["normal", "outlier", "zero", "constant"], inputs)
    weight = dequantize(solve(METHOD_STEPS["gptq"], case, matmul_dtype=torch.bfloat16).quantized)
    assert torch.isfinite(weight).all()
    rtn = compute_errors(case, dequantize(round_plainly(case).quantized))
    assert compute_errors(case, weight).sum() <= 1.02 * rtn.sum()


@pytest.mark.slow
@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize("matmul_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "groups"), [(8, 20), (160, 12)])
def test_any_number_of_threads_gives_the_same_codes(rows: int, groups: int, matmul_dtype: torch.dtype) -> None:
    case = make_case(11, rows, ["heavy"] * groups, "normal")
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        layer_input = LayerInput(case.hessian, QuantSpec(group_size=128), matmul_dtype)
        results.append(quantize_layer("to_out", case.weight, layer_input, METHOD_STEPS["gptq"]))
    assert are_equal(results[0], results[1])
    assert are_equal(results[0], results[2])
    assert results[0].errors == results[1].errors == results[2].errors
