"""The ladder: never worse than rounding, errors as real tokens show them, the same codes however it is cut."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from helpers.adversarial import SCHEMES, SIZE, Case, cases, make
from hypothesis import given, settings
from torch import Tensor

from edgepress.numerics.affine import QuantizedWeight, dequantize, minmax_qparams, quantize
from edgepress.quantize.algorithms.rounding import Rounded, nearest, value_of
from edgepress.quantize.solver import layer
from edgepress.quantize.solver.layer import LayerInput, LayerResult, quantize_layer
from edgepress.recipes.schema import METHOD_STEPS, Scheme, Step

LADDERS: dict[str, tuple[Step, ...]] = {
    "best": METHOD_STEPS["best"],
    "awq": METHOD_STEPS["awq"],
    "all": ("scale", "clip", "range", "gptq", "refit"),
    "refit": ("refit",),
}
NARROW = [name for name, scheme in SCHEMES.items() if scheme.narrow_range]


@pytest.fixture
def one_thread_again() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def error_on(tokens: Tensor, weight: Tensor, found: Tensor) -> Tensor:
    """The mean squared error of each output, (out,), by multiplying out in float64."""
    return (tokens.double() @ (found.double() - weight.double()).T).square().mean(0)


def climbed_by(
    steps: tuple[Step, ...], case: Case, scheme: Scheme, products: torch.dtype = torch.float32
) -> LayerResult:
    return quantize_layer("to_out", case.weight, LayerInput(case.gram, scheme, products), steps)


def same(one: LayerResult, other: LayerResult) -> bool:
    pairs = zip(
        (one.quantized.codes, *one.quantized.qparams[:2]),
        (other.quantized.codes, *other.quantized.qparams[:2]),
        strict=True,
    )
    return all(torch.equal(a, b) for a, b in pairs) and one.quantized.qparams[2:] == other.quantized.qparams[2:]


def noise_of(case: Case, found: Tensor) -> Tensor:
    """What float32 may get wrong in each output's error, (out,), with room for some sums.

    H's entries are known to a share of what their products hold without signs, and so are the weights.
    """
    tokens, weight = case.tokens.double().abs(), case.weight.double()
    held, differing = ((tokens @ value.abs().T).square().mean(0) for value in (weight, found.double() - weight))
    return 1e-6 * differing + 1e-9 * held


# ---------------------------------------------------------------- what must hold for any weight


@pytest.mark.parametrize("steps", LADDERS)
@pytest.mark.parametrize("name", SCHEMES)
@settings(max_examples=12, deadline=None)
@given(case=cases())
def test_no_step_raises_the_error_and_no_output_is_worse_than_rounding(name: str, steps: str, case: Case) -> None:
    scheme = SCHEMES[name]
    climbed = climbed_by(LADDERS[steps], case, scheme)
    errors = list(climbed.errors.values())
    assert errors == sorted(errors, reverse=True)
    found = dequantize(climbed.quantized)
    assert torch.isfinite(found).all()
    grid = climbed.quantized.qparams
    assert climbed.quantized.codes.min() >= grid.qmin
    assert climbed.quantized.codes.max() <= grid.qmax
    assert torch.equal(grid.scales, grid.scales.half().float())
    assert (grid.scales > 0).all()
    size = scheme.resolve_group_size(case.weight.shape[1])
    plain = quantize(
        case.weight, minmax_qparams(case.weight, size, scheme.zero_point, scheme.bits, scheme.narrow_range)
    )
    rtn, best = (error_on(case.tokens, case.weight, value) for value in (dequantize(plain), found))
    assert (best <= rtn * (1 + 1e-3) + noise_of(case, found)).all()


@pytest.mark.parametrize("steps", LADDERS)
@settings(max_examples=15, deadline=None)
@given(case=cases())
def test_the_errors_told_are_those_on_real_tokens(steps: str, case: Case) -> None:
    climbed = climbed_by(LADDERS[steps], case, SCHEMES["asymmetric"])
    plain, last = dequantize(quantize(case.weight, minmax_qparams(case.weight, SIZE))), dequantize(climbed.quantized)
    errors = list(climbed.errors.values())
    for told, found in ((errors[0], plain), (errors[-1], last)):
        noise = float(noise_of(case, found).sum())
        assert told == pytest.approx(float(error_on(case.tokens, case.weight, found).sum()), rel=1e-3, abs=noise)
    power = (case.tokens.double() @ case.weight.double().T).square().sum(1).mean()
    assert climbed.output_power == pytest.approx(float(power), rel=1e-3, abs=float(noise_of(case, last).sum()))


@pytest.mark.parametrize("steps", LADDERS)
@pytest.mark.parametrize("name", NARROW)
@settings(max_examples=12, deadline=None)
@given(case=cases())
def test_a_reader_who_finds_scales_by_the_largest_weight_finds_the_same_codes(
    name: str, steps: str, case: Case
) -> None:
    """As RKNN does: each group's max|w| / 7 (127 with 8 bits) in float32, then rounding.

    Groups too faint for fp16's smallest scale are passed over.
    """
    scheme = SCHEMES[name]
    codes, grid = climbed_by(LADDERS[steps], case, scheme).quantized
    middle = 2 ** (scheme.bits - 1)
    groups = dequantize(QuantizedWeight(codes, grid)).reshape(len(codes), grid.scales.shape[1], -1)
    sound = (grid.scales > 2.0**-24)[..., None].expand_as(groups)
    scales = groups.abs().amax(-1, keepdim=True) / (middle - 1)
    again = torch.where(scales > 0, torch.round(groups / scales), 0)
    torch.testing.assert_close((again * scales)[sound], groups[sound], rtol=1e-6, atol=0)
    filled = sound & (scales > 0)
    assert torch.equal((again + middle)[filled], codes.reshape(groups.shape)[filled].float())


# ---------------------------------------------------------------- steps


def test_every_step_gains_on_a_layer_with_outliers() -> None:
    case = make(1, 128, ["heavy", "normal", "heavy", "positive"], "normal")
    errors = climbed_by(("clip", "range", "gptq", "refit"), case, SCHEMES["asymmetric"]).errors
    assert list(errors) == ["rtn", "clip", "range", "gptq", "refit"]
    values = list(errors.values())
    assert all(after < 0.99 * before for before, after in itertools.pairwise(values)), errors


def test_best_beats_awqs_clipping_and_rounding_by_far() -> None:
    case = make(2, 64, ["heavy", "normal"] * 2, "normal")
    best = list(climbed_by(METHOD_STEPS["best"], case, SCHEMES["asymmetric"]).errors.values())
    awq = list(climbed_by(METHOD_STEPS["awq"], case, SCHEMES["asymmetric"]).errors.values())
    assert best[-1] < 0.6 * best[0]
    assert best[-1] < 0.7 * awq[-1]


def test_without_steps_it_is_rounding() -> None:
    case = make(3, 16, ["normal", "heavy"], "normal")
    climbed = climbed_by((), case, SCHEMES["asymmetric"])
    expected = quantize(case.weight, minmax_qparams(case.weight, SIZE))
    assert list(climbed.errors) == ["rtn"]
    assert torch.equal(climbed.quantized.codes, expected.codes)
    assert torch.equal(climbed.quantized.qparams.scales, expected.qparams.scales)
    assert torch.equal(climbed.quantized.qparams.zero_points, expected.qparams.zero_points)


def test_queries_and_keys_are_not_clipped() -> None:
    case = make(4, 16, ["heavy"] * 2, "normal")
    source = LayerInput(case.gram, SCHEMES["asymmetric"])
    assert list(quantize_layer("to_out", case.weight, source, ("clip",)).errors) == ["rtn", "clip"]
    assert list(quantize_layer("q_proj", case.weight, source, ("clip",)).errors) == ["rtn"]


def test_after_range_the_grids_stay_and_only_codes_move() -> None:
    case = make(5, 16, ["heavy"] * 3, "normal")
    ranged = climbed_by(("range",), case, SCHEMES["asymmetric"])
    rounded = climbed_by(("range", "gptq"), case, SCHEMES["asymmetric"])
    assert torch.equal(ranged.quantized.qparams.scales, rounded.quantized.qparams.scales)
    assert torch.equal(ranged.quantized.qparams.zero_points, rounded.quantized.qparams.zero_points)
    assert not torch.equal(ranged.quantized.codes, rounded.quantized.codes)


def test_weights_in_bfloat16_give_what_the_same_weights_in_float32_give() -> None:
    case = make(6, 16, ["normal"] * 2, "normal")
    short = case._replace(weight=case.weight.bfloat16())
    assert same(
        climbed_by(METHOD_STEPS["best"], short, SCHEMES["asymmetric"]),
        climbed_by(METHOD_STEPS["best"], short._replace(weight=short.weight.float()), SCHEMES["asymmetric"]),
    )


def test_rounding_and_values_are_those_of_the_grid_module_transposed() -> None:
    weight = make(7, 24, ["heavy", "negative"], "normal").weight
    expected = quantize(weight, minmax_qparams(weight, SIZE))
    grid = expected.qparams._replace(scales=expected.qparams.scales.T, zeros=expected.qparams.zero_points.T)
    found = nearest(weight.T.contiguous(), grid)
    assert isinstance(found, Rounded)
    assert torch.equal(found.codes.T, expected.codes)
    assert torch.equal(value_of(found).T, dequantize(expected))


# ---------------------------------------------------------------- however it is computed


@pytest.mark.parametrize("name", ["asymmetric", "narrow"])
def test_many_outputs_are_worked_on_in_parts_with_the_same_result(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make(8, 40, ["heavy", "normal"], "normal")
    whole = climbed_by(LADDERS["all"], case, SCHEMES[name])
    monkeypatch.setattr(layer, "OUTPUTS", 16)
    parts = climbed_by(LADDERS["all"], case, SCHEMES[name])
    # Products of other shapes may round otherwise in the last bit, and a tie then falls the other way.
    assert (whole.quantized.codes != parts.quantized.codes).float().mean() < 0.005
    assert list(parts.errors.values()) == pytest.approx(list(whole.errors.values()), rel=1e-2)
    assert parts.output_power == pytest.approx(whole.output_power, rel=1e-5)


@pytest.mark.parametrize("steps", ["best", "all"])
def test_products_in_bfloat16_cost_little(steps: str) -> None:
    case = make(9, 96, ["heavy", "normal", "positive", "normal"] * 2, "normal")
    exact, rough = (
        dequantize(climbed_by(LADDERS[steps], case, SCHEMES["asymmetric"], dtype).quantized)
        for dtype in (torch.float32, torch.bfloat16)
    )
    lost = error_on(case.tokens, case.weight, rough).sum() / error_on(case.tokens, case.weight, exact).sum()
    assert lost < 1.04, f"bfloat16 loses {lost - 1:.1%}"


@pytest.mark.parametrize("inputs", ["loud", "dead", "one", "zero", "faint", "shifted"])
def test_products_in_bfloat16_stay_finite_and_no_worse_than_rounding(inputs: str) -> None:
    """By 2 % at most: how well bfloat16 can tell two errors apart."""
    case = make(10, 16, ["normal", "outlier", "zero", "constant"], inputs)
    found = dequantize(climbed_by(METHOD_STEPS["best"], case, SCHEMES["asymmetric"], torch.bfloat16).quantized)
    plain = dequantize(quantize(case.weight, minmax_qparams(case.weight, SIZE)))
    rtn, best = (error_on(case.tokens, case.weight, value) for value in (plain, found))
    assert torch.isfinite(found).all()
    assert best.sum() <= 1.02 * rtn.sum()


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread_again")
@pytest.mark.parametrize("products", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "groups"), [(8, 20), (160, 12)])
def test_any_number_of_threads_gives_the_same_codes(rows: int, groups: int, products: torch.dtype) -> None:
    case = make(11, rows, ["heavy"] * groups, "normal")
    scheme = Scheme(group_size=128)
    source = case.gram
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(quantize_layer("to_out", case.weight, LayerInput(source, scheme, products), METHOD_STEPS["best"]))
    assert same(found[0], found[1])
    assert same(found[0], found[2])
    assert found[0].errors == found[1].errors == found[2].errors
