"""The 4-bit grid and AutoAWQ's GEMM layout, against vectors worked out by hand and an independent packer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgepress import grid as affine
from edgepress import int4

GROUP_SIZES = (32, 64, 128)
FP16_SLACK = 15 * 2.0**-11  # fp16 rounds a scale by up to 2^-11 of itself, and a weight stands up to 15 steps away

# Two inputs of eight output channels, channel o of input 0 holding code o and of input 1 code 15 - o. From the lowest
# nibble up, an int32 holds channels 0 2 4 6 1 3 5 7, so as hexadecimal digits, highest first, channels 7 5 3 1 6 4 2 0:
#   input 0: 0x75316420 = 1966171168
#   input 1: 0x8ACE9BDF = 2328796127, which as int32 is 2328796127 - 2^32 = -1966171169
CODES = torch.tensor([[o, 15 - o] for o in range(8)], dtype=torch.uint8)
QWEIGHT = [[1966171168], [-1966171169]]
# Zero points 8 7 6 5 4 3 2 1 of the eight channels: 0x13572468 = 324478056.
ZEROS = torch.tensor([[8 - o] for o in range(8)], dtype=torch.uint8)
QZEROS = [[324478056]]


def weights(height: int, width: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    return torch.randn(height, width, generator=torch.Generator().manual_seed(seed)) * scale + shift


def expanded(values: Tensor, group_size: int) -> Tensor:
    """(out, groups) to (out, in)."""
    return values.repeat_interleave(group_size, dim=1).double()


def worst_error_in_steps(weight: Tensor, group_size: int, zero_point: bool = True) -> float:
    quantized = affine.quantize(weight, affine.grid_for(weight, group_size, zero_point))
    error = (weight.double() - affine.dequantize(quantized).double()).abs()
    return float((error / expanded(quantized.grid.scales, group_size)).max())


def packed_by_the_book(values: list[list[int]]) -> list[list[int]]:
    """AWQ GEMM packing in plain Python: rows of ints in 0..15 to rows of signed 32-bit ints."""
    packed = []
    for row in values:
        words = []
        for start in range(0, len(row), 8):
            eight = row[start : start + 8]
            word = "".join(f"{eight[channel]:04b}" for channel in (7, 5, 3, 1, 6, 4, 2, 0))
            words.append(int.from_bytes(int(word, 2).to_bytes(4, "big"), "big", signed=True))
        packed.append(words)
    return packed


@st.composite
def quantized_weights(draw: st.DrawFn) -> affine.Codes:
    """Arbitrary codes on an arbitrary grid whose scales fp16 can hold."""
    height, groups = 8 * draw(st.integers(1, 3)), draw(st.integers(1, 3))
    group_size = draw(st.sampled_from(GROUP_SIZES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    codes = torch.randint(0, 16, (height, groups * group_size), generator=generator, dtype=torch.uint8)
    zeros = torch.randint(0, 16, (height, groups), generator=generator, dtype=torch.uint8)
    scales = torch.rand(height, groups, generator=generator).clamp_min(2.0**-20).half().float()
    return affine.Codes(codes, affine.Grid(scales, zeros))


# ---------------------------------------------------------------- layout


def test_packing_gives_the_words_worked_out_by_hand() -> None:
    packed = int4.pack_awq(affine.Codes(CODES, affine.Grid(torch.full((8, 1), 0.5), ZEROS)))
    assert packed.qweight.dtype == packed.qzeros.dtype == torch.int32
    assert packed.qweight.tolist() == QWEIGHT
    assert packed.qzeros.tolist() == QZEROS
    assert packed.scales.dtype == torch.float16
    assert packed.scales.tolist() == [[0.5] * 8]


def test_unpacking_reads_the_words_worked_out_by_hand() -> None:
    tensors = int4.AwqTensors(
        torch.tensor(QWEIGHT, dtype=torch.int32),
        torch.tensor(QZEROS, dtype=torch.int32),
        torch.full((1, 8), 0.5, dtype=torch.float16),
    )
    codes, grid = int4.unpack_awq(tensors)
    assert codes.tolist() == CODES.tolist()
    assert grid.zeros.tolist() == ZEROS.tolist()
    weight = affine.dequantize(affine.Codes(codes, grid))
    assert weight[0].tolist() == [(0 - 8) * 0.5, (15 - 8) * 0.5]
    assert weight[7].tolist() == [(7 - 1) * 0.5, (8 - 1) * 0.5]


@settings(max_examples=25, deadline=None)
@given(quantized_weights())
def test_packing_equals_a_packer_written_from_the_description(quantized: affine.Codes) -> None:
    packed = int4.pack_awq(quantized)
    groups, (height, width) = quantized.grid.scales.shape[1], quantized.codes.shape
    assert packed.qweight.shape == (width, height // 8)
    assert packed.qzeros.shape == (groups, height // 8)
    assert packed.scales.shape == (groups, height)
    assert packed.qweight.tolist() == packed_by_the_book(quantized.codes.T.tolist())
    assert packed.qzeros.tolist() == packed_by_the_book(quantized.grid.zeros.T.tolist())
    assert torch.equal(packed.scales.float(), quantized.grid.scales.T)
    assert all(tensor.is_contiguous() for tensor in packed)


@settings(max_examples=25, deadline=None)
@given(quantized_weights())
def test_unpacking_undoes_packing(quantized: affine.Codes) -> None:
    codes, grid = int4.unpack_awq(int4.pack_awq(quantized))
    assert torch.equal(codes, quantized.codes)
    assert torch.equal(grid.zeros, quantized.grid.zeros)
    assert torch.equal(grid.scales, quantized.grid.scales)


@pytest.mark.parametrize("zero_point", [True, False])
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_a_weight_is_the_same_to_the_bit_after_storing(group_size: int, zero_point: bool) -> None:
    weight = weights(16, 256, seed=1, scale=0.02)
    quantized = affine.quantize(weight, affine.grid_for(weight, group_size, zero_point))
    stored = int4.unpack_awq(int4.pack_awq(quantized))
    assert torch.equal(affine.dequantize(stored), affine.dequantize(quantized))


def test_an_output_width_that_is_no_multiple_of_8_is_refused() -> None:
    weight = weights(12, 64, seed=2)
    with pytest.raises(ValueError, match="output width 12 is not a multiple of 8"):
        int4.pack_awq(affine.quantize(weight, affine.grid_for(weight, 64)))


# ---------------------------------------------------------------- grid


def test_a_group_size_that_does_not_divide_the_input_width_is_refused() -> None:
    with pytest.raises(ValueError, match="group size 128 does not divide the input width 192"):
        affine.grid_for(weights(8, 192, seed=3), 128)


def test_group_g_is_input_channels_g_times_size_and_following() -> None:
    weight = torch.cat([torch.full((8, 32), 0.15), torch.full((8, 32), -30.0)], dim=1)
    scales, zeros, *_ = affine.grid_for(weight, 32)
    assert scales.tolist() == [[torch.tensor(0.15 / 15).half().item(), 2.0]] * 8
    assert zeros.tolist() == [[0, 15]] * 8


@pytest.mark.parametrize("zero_point", [True, False])
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_codes_are_the_nearest_of_all_sixteen(group_size: int, zero_point: bool) -> None:
    """Brute force; weights partly outside the grid's range, so that clamping is seen as well."""
    weight = weights(8, 256, seed=4)
    grid = affine.grid_for(0.7 * weight, group_size, zero_point)
    found = affine.dequantize(affine.quantize(weight, grid)).double()
    levels = torch.arange(16)[:, None, None] - expanded(grid.zeros, group_size)
    nearest = (levels * expanded(grid.scales, group_size) - weight.double()).abs().amin(dim=0)
    excess = float(((found - weight.double()).abs() - nearest).max())
    assert excess < 1e-6, f"a code is {excess} farther away than the nearest"


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    scale=st.floats(1e-2, 1e3),
    shift=st.floats(-5, 5),
    group_size=st.sampled_from(GROUP_SIZES),
    zero_point=st.booleans(),
)
def test_the_error_is_at_most_half_a_step(
    seed: int, scale: float, shift: float, group_size: int, zero_point: bool
) -> None:
    weight = weights(8, 128, seed, scale, shift * scale)
    steps = worst_error_in_steps(weight, group_size, zero_point)
    assert steps <= 0.5 + FP16_SLACK, f"a weight is off by {steps} steps"


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_a_one_sided_group_does_not_come_back_constant(group_size: int, sign: int) -> None:
    """AutoAWQ's own grid turns weights in [0.5, 1] into a constant."""
    weight = sign * torch.linspace(0.5, 1.0, 8 * group_size).reshape(8, group_size)
    quantized = affine.quantize(weight, affine.grid_for(weight, group_size))
    error = float((affine.dequantize(quantized) - weight).abs().max())
    assert error <= (0.5 + FP16_SLACK) / 15, f"off by {error}, where half a step is {0.5 / 15}"
    assert affine.dequantize(quantized).unique().numel() >= 8


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    scale=st.floats(1e-6, 1e4),
    shift=st.floats(-5, 5),
    zero_point=st.booleans(),
)
def test_zero_comes_back_as_zero(seed: int, scale: float, shift: float, zero_point: bool) -> None:
    weight = weights(8, 64, seed, scale, shift * scale)
    weight[:, 3] = 0
    found = affine.dequantize(affine.quantize(weight, affine.grid_for(weight, 32, zero_point)))[:, 3]
    assert found.tolist() == [0.0] * 8


@pytest.mark.parametrize("zero_point", [True, False])
def test_a_group_of_zeros_comes_back_as_zeros_with_a_scale_that_is_not_zero(zero_point: bool) -> None:
    weight = torch.zeros(8, 64)
    quantized = affine.quantize(weight, affine.grid_for(weight, 64, zero_point))
    stored = int4.unpack_awq(int4.pack_awq(quantized))
    assert torch.equal(affine.dequantize(stored), weight)
    assert (stored.grid.scales > 0).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(GROUP_SIZES))
def test_pressing_a_pressed_weight_changes_nothing(seed: int, group_size: int) -> None:
    weight = weights(8, 128, seed)
    quantized = affine.quantize(weight, affine.grid_for(weight, group_size))
    again = affine.quantize(affine.dequantize(quantized), quantized.grid)
    assert torch.equal(again.codes, quantized.codes)


@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_the_symmetric_grid_has_its_zero_at_8_and_reaches_both_ends(group_size: int) -> None:
    weight = weights(8, 128, seed=5)
    scales, zeros, *_ = affine.grid_for(weight, group_size, zero_point=False)
    assert zeros.unique().tolist() == [8]
    low, high = -8 * expanded(scales, group_size), 7 * expanded(scales, group_size)
    outside = float(torch.maximum(low - weight, weight - high).max() / scales.max())
    assert outside <= FP16_SLACK, f"a weight lies {outside} steps outside the range"


def test_the_symmetric_grid_is_the_hand_computed_one() -> None:
    weight = torch.zeros(8, 32)
    weight[:, 0], weight[:, 1] = -4.0, 3.0
    assert affine.grid_for(weight, 32, zero_point=False).scales.unique().tolist() == [0.5]  # max(4 / 8, 3 / 7)
    weight[:, 1] = 7.0
    assert affine.grid_for(weight, 32, zero_point=False).scales.unique().tolist() == [1.0]  # max(4 / 8, 7 / 7)


def test_huge_weights_stay_finite() -> None:
    weight = weights(8, 64, seed=6, scale=1e6)
    quantized = affine.quantize(weight, affine.grid_for(weight, 64))
    assert torch.isfinite(affine.dequantize(int4.unpack_awq(int4.pack_awq(quantized)))).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_in_16_bits_give_what_the_same_weights_in_32_bits_give(dtype: torch.dtype) -> None:
    weight = weights(8, 128, seed=7).to(dtype)
    quantized = affine.quantize(weight, affine.grid_for(weight, 64))
    expected = affine.quantize(weight.float(), affine.grid_for(weight.float(), 64))
    assert torch.equal(quantized.codes, expected.codes)
    assert torch.equal(quantized.grid.scales, expected.grid.scales)


@pytest.mark.parametrize(("group_size", "bits"), [(128, 4.15625), (64, 4.3125), (32, 4.625)])
def test_bits_per_weight(group_size: int, bits: float) -> None:
    assert int4.bits_per_weight(group_size) == bits


@pytest.mark.parametrize("zero_point", [True, False])
def test_bits_per_weight_are_the_bits_that_packing_makes(zero_point: bool) -> None:
    weight = weights(16, 256, seed=8)
    packed = int4.pack_awq(affine.quantize(weight, affine.grid_for(weight, 128, zero_point)))
    assert 8 * sum(tensor.nbytes for tensor in packed) / weight.numel() == int4.bits_per_weight(128)
