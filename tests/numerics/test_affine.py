"""Affine quantization against brute force and vectors worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgepress.numerics.affine import (
    MIN_SCALE,
    QParams,
    QuantizedWeight,
    choose_qparams,
    dequantize,
    minmax_qparams,
    quantize,
    scales_fit_fp16,
    to_groups,
)
from edgepress.numerics.quant_spec import QuantSpec

GROUP_SIZES = (32, 64, 128)
KINDS = {
    "asymmetric": QuantSpec(),
    "symmetric": QuantSpec(symmetric=True),
    "narrow": QuantSpec(symmetric=True, narrow_range=True),
    "8 bits": QuantSpec(bits=8),
    "8 bits, symmetric": QuantSpec(bits=8, symmetric=True),
    "8 bits, narrow": QuantSpec(bits=8, symmetric=True, narrow_range=True),
}
SYMMETRIC = [name for name, spec in KINDS.items() if spec.symmetric]
NARROW = [name for name, spec in KINDS.items() if spec.narrow_range]

of_any_kind = pytest.mark.parametrize("kind", KINDS)


def make_weights(height: int, width: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    return torch.randn(height, width, generator=torch.Generator().manual_seed(seed)) * scale + shift


def expand(values: Tensor, group_size: int) -> Tensor:
    """(out, groups) to (out, in)."""
    return values.repeat_interleave(group_size, dim=1).double()


def make_spec(kind: str, group_size: int) -> QuantSpec:
    return replace(KINDS[kind], group_size=group_size)


def tolerance(kind: str) -> float:
    """In steps: fp16 rounds a scale by up to 2^-11 of itself, and a weight is up to 15 (255) steps from zero."""
    return 2 ** KINDS[kind].bits * 2.0**-11


def worst_error_in_steps(weight: Tensor, group_size: int, kind: str) -> float:
    quantized = quantize(weight, minmax_qparams(weight, make_spec(kind, group_size)))
    error = (weight.double() - dequantize(quantized).double()).abs()
    return float((error / expand(quantized.qparams.scales, group_size)).max())


# ---------------------------------------------------------------- groups


def test_a_group_size_that_does_not_divide_the_input_width_is_rejected() -> None:
    with pytest.raises(ValueError, match="group size 128 does not divide the input width 192"):
        minmax_qparams(make_weights(8, 192, seed=3), QuantSpec(group_size=128))


def test_group_g_is_input_channels_g_times_size_and_following() -> None:
    weight = torch.cat([torch.full((8, 32), 0.15), torch.full((8, 32), -30.0)], dim=1)
    qparams = minmax_qparams(weight, QuantSpec(group_size=32))
    assert qparams.scales.tolist() == [[torch.tensor(0.15 / 15).half().item(), 2.0]] * 8
    assert qparams.zero_points.tolist() == [[0, 15]] * 8
    assert torch.equal(to_groups(weight, 32)[:, 1], weight[:, 32:])


@of_any_kind
def test_one_group_may_be_a_whole_row(kind: str) -> None:
    weight = make_weights(8, 96, seed=9)
    qparams = minmax_qparams(weight, make_spec(kind, 96))
    assert qparams.scales.shape == (8, 1)
    assert worst_error_in_steps(weight, 96, kind) <= 0.5 + tolerance(kind)


# ---------------------------------------------------------------- codes


@of_any_kind
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_codes_are_the_nearest_of_all_that_are_allowed(group_size: int, kind: str) -> None:
    """Brute force; weights partly outside the range, so that clamping is seen as well."""
    weight = make_weights(8, 128, seed=4)
    qparams = minmax_qparams(0.7 * weight, make_spec(kind, group_size))
    values = dequantize(quantize(weight, qparams)).double()
    allowed = torch.arange(1 if "narrow" in kind else 0, 2 ** KINDS[kind].bits)
    levels = allowed[:, None, None] - expand(qparams.zero_points, group_size)
    nearest = (levels * expand(qparams.scales, group_size) - weight.double()).abs().amin(dim=0)
    excess = float(((values - weight.double()).abs() - nearest).max())
    assert excess < 1e-6, f"a code is {excess} farther away than the nearest"


@of_any_kind
@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    scale=st.floats(1e-2, 1e3),
    shift=st.floats(-5, 5),
    group_size=st.sampled_from(GROUP_SIZES),
)
def test_the_error_is_at_most_half_a_step(kind: str, seed: int, scale: float, shift: float, group_size: int) -> None:
    weight = make_weights(8, 128, seed, scale, shift * scale)
    steps = worst_error_in_steps(weight, group_size, kind)
    assert steps <= 0.5 + tolerance(kind), f"a weight is off by {steps} steps"


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_a_one_sided_group_does_not_come_back_constant(group_size: int, sign: int) -> None:
    """AutoAWQ's own parameters turn weights in [0.5, 1] into a constant."""
    weight = sign * torch.linspace(0.5, 1.0, 8 * group_size).reshape(8, group_size)
    quantized = quantize(weight, minmax_qparams(weight, QuantSpec(group_size=group_size)))
    error = float((dequantize(quantized) - weight).abs().max())
    assert error <= (0.5 + tolerance("asymmetric")) / 15, f"off by {error}, where half a step is {0.5 / 15}"
    assert dequantize(quantized).unique().numel() >= 8


@of_any_kind
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-6, 1e4), shift=st.floats(-5, 5))
def test_zero_comes_back_as_zero(kind: str, seed: int, scale: float, shift: float) -> None:
    weight = make_weights(8, 64, seed, scale, shift * scale)
    weight[:, 3] = 0
    values = dequantize(quantize(weight, minmax_qparams(weight, make_spec(kind, 32))))[:, 3]
    assert values.tolist() == [0.0] * 8


@of_any_kind
def test_a_group_of_zeros_comes_back_as_zeros_with_a_scale_that_is_not_zero(kind: str) -> None:
    weight = torch.zeros(8, 64)
    quantized = quantize(weight, minmax_qparams(weight, make_spec(kind, 64)))
    assert torch.equal(dequantize(quantized), weight)
    assert quantized.qparams.scales.unique().tolist() == [MIN_SCALE]
    assert quantized.qparams.scales.half().min() > 0


@of_any_kind
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(GROUP_SIZES))
def test_quantizing_a_quantized_weight_changes_nothing(kind: str, seed: int, group_size: int) -> None:
    weight = make_weights(8, 128, seed)
    quantized = quantize(weight, minmax_qparams(weight, make_spec(kind, group_size)))
    second = quantize(dequantize(quantized), quantized.qparams)
    assert torch.equal(second.codes, quantized.codes)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_in_16_bits_give_what_the_same_weights_in_32_bits_give(dtype: torch.dtype) -> None:
    weight = make_weights(8, 128, seed=7).to(dtype)
    quantized = quantize(weight, minmax_qparams(weight, QuantSpec(group_size=64)))
    expected = quantize(weight.float(), minmax_qparams(weight.float(), QuantSpec(group_size=64)))
    assert torch.equal(quantized.codes, expected.codes)
    assert torch.equal(quantized.qparams.scales, expected.qparams.scales)


def test_values_are_steps_from_the_zero_point() -> None:
    qparams = QParams(torch.tensor([[0.5, 2.0]]), torch.tensor([[3, 15]], dtype=torch.uint8))
    codes = QuantizedWeight(torch.tensor([[0, 15, 0, 15]], dtype=torch.uint8), qparams)
    assert dequantize(codes).tolist() == [[-1.5, 6.0, -30.0, 0.0]]


# ---------------------------------------------------------------- ranges


@pytest.mark.parametrize("group_size", GROUP_SIZES)
@pytest.mark.parametrize("kind", SYMMETRIC)
def test_a_symmetric_format_has_its_zero_point_in_the_middle_and_covers_both_ends(kind: str, group_size: int) -> None:
    weight = make_weights(8, 128, seed=5)
    qparams = minmax_qparams(weight, make_spec(kind, group_size))
    middle = 2 ** (KINDS[kind].bits - 1)
    assert qparams.zero_points.unique().tolist() == [middle]
    low, high = ((end - middle) * expand(qparams.scales, group_size) for end in (qparams.qmin, qparams.qmax))
    outside = float(torch.maximum(low - weight, weight - high).max() / qparams.scales.max())
    assert outside <= tolerance(kind), f"a weight is {outside} steps outside the range"


@pytest.mark.parametrize(
    ("kind", "low", "high", "scale"),
    [
        ("symmetric", -4.0, 3.0, 0.5),  # max(4 / 8, 3 / 7)
        ("symmetric", -4.0, 7.0, 1.0),  # max(4 / 8, 7 / 7)
        ("narrow", -7.0, 3.0, 1.0),  # max(7, 3) / 7
        ("narrow", 0.0, 3.5, 0.5),
        ("asymmetric", -4.0, 3.5, 0.5),  # (4 + 3.5) / 15
        ("asymmetric", 1.0, 3.75, 0.25),  # the range includes 0
        ("asymmetric", -3.75, -1.0, 0.25),
        ("8 bits", -127.5, 0.0, 0.5),  # 127.5 / 255
        ("8 bits, symmetric", -64.0, 0.0, 0.5),  # 64 / 128
        ("8 bits, narrow", -63.5, 0.0, 0.5),  # 63.5 / 127
    ],
)
def test_scales_are_the_hand_computed_ones(kind: str, low: float, high: float, scale: float) -> None:
    qparams = choose_qparams(torch.tensor([[low]]), torch.tensor([[high]]), KINDS[kind])
    assert qparams.scales.tolist() == [[scale]]


@pytest.mark.parametrize("kind", NARROW)
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.floats(1e-3, 1e2))
def test_the_largest_weight_of_a_narrow_group_is_at_an_end(kind: str, seed: int, scale: float) -> None:
    weight = make_weights(8, 128, seed, scale)
    codes, qparams = quantize(weight, minmax_qparams(weight, make_spec(kind, 32)))
    largest = to_groups(weight, 32).abs().argmax(-1, keepdim=True)
    steps = to_groups(codes, 32).gather(2, largest).int() - qparams.zero_points[..., None].int()
    assert qparams.qmin == 1
    assert steps.abs().unique().tolist() == [2 ** (KINDS[kind].bits - 1) - 1]


# fp16's subnormal scales are coarse: a scale that is rounded up would leave the last code unused, and a reader that
# takes max|w| / 127 would get another scale. With 8 bits this could happen where max|w| of a group is below 1e-3.
def test_the_largest_weight_of_a_small_narrow_group_is_at_an_end_as_well() -> None:
    peaks = 127 * 2.0**-24 * torch.tensor([1.6, 4.7, 10.6, 60.7])  # scales that fp16 rounds to 2, 5, 11, 61 times 2^-24
    weight = peaks[:, None] * torch.linspace(-1, 1, 32)
    codes = quantize(weight, minmax_qparams(weight, make_spec("8 bits, narrow", 32))).codes
    assert codes.amax(1).unique().tolist() == [255]


def test_a_narrow_range_must_be_symmetric() -> None:
    with pytest.raises(ValueError, match="narrow_range needs symmetric=True"):
        QuantSpec(narrow_range=True)


@of_any_kind
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_the_memory_layout_of_a_weight_is_kept_and_changes_nothing(kind: str, group_size: int) -> None:
    weight = make_weights(24, 128, seed=8)
    by_channel = weight.T.contiguous().T
    expected = quantize(weight, minmax_qparams(weight, make_spec(kind, group_size)))
    codes, qparams = quantized = quantize(by_channel, minmax_qparams(by_channel, make_spec(kind, group_size)))
    assert torch.equal(codes, expected.codes)
    assert torch.equal(qparams.scales, expected.qparams.scales)
    assert torch.equal(dequantize(quantized), dequantize(expected))
    assert codes.stride() == dequantize(quantized).stride() == by_channel.stride()


@of_any_kind
@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1e6])
def test_tiny_and_huge_weights_stay_finite_with_scales_that_fp16_holds(kind: str, scale: float) -> None:
    weight = make_weights(8, 64, seed=6, scale=scale)
    quantized = quantize(weight, minmax_qparams(weight, make_spec(kind, 64)))
    scales = quantized.qparams.scales
    assert torch.isfinite(dequantize(quantized)).all()
    assert torch.equal(scales, scales.half().float())
    assert (scales > 0).all()


@pytest.mark.parametrize(
    ("scales", "shift", "fits"),
    [
        ([1e-3, 2e-3], 0, True),
        ([1e-3, 1e-8], 0, True),  # the small one hardly counts
        ([1e-8, 1e-8], 0, False),
        ([1e-3, 7e4], 0, False),
        ([0.0, 0.0], 0, True),
        ([1e-3, 2e-3], 20, False),
        ([1e6, 1e6], 10, True),
        ([1e-8, 1e-8], -20, True),
    ],
)
def test_scales_fit_where_float16_holds_those_that_count(scales: list[float], shift: int, fits: bool) -> None:
    assert scales_fit_fp16(torch.tensor(scales), shift) == fits
