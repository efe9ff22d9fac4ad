"""AutoAWQ's GEMM layout, against vectors worked out by hand and an independent packer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgepress.numerics import affine, awq_packing
from edgepress.numerics.quant_spec import QuantSpec

GROUP_SIZES = (32, 64, 128)

# Two inputs of eight output channels, channel o of input 0 holding code o and of input 1 code 15 - o. From the lowest
# nibble up, an int32 holds channels 0 2 4 6 1 3 5 7, so as hexadecimal digits, highest first, channels 7 5 3 1 6 4 2 0:
#   input 0: 0x75316420 = 1966171168
#   input 1: 0x8ACE9BDF = 2328796127, which as int32 is 2328796127 - 2^32 = -1966171169
CODES = torch.tensor([[o, 15 - o] for o in range(8)], dtype=torch.uint8)
QWEIGHT = [[1966171168], [-1966171169]]
# Zero points 8 7 6 5 4 3 2 1 of the eight channels: 0x13572468 = 324478056.
ZERO_POINTS = torch.tensor([[8 - o] for o in range(8)], dtype=torch.uint8)
QZEROS = [[324478056]]


def make_weights(height: int, width: int, seed: int, scale: float = 1.0) -> Tensor:
    return torch.randn(height, width, generator=torch.Generator().manual_seed(seed)) * scale


def pack_in_plain_python(values: list[list[int]]) -> list[list[int]]:
    """AWQ GEMM packing in plain Python: rows of ints in 0..15 to rows of signed 32-bit ints."""
    packed = []
    for row in values:
        integers = []
        for start in range(0, len(row), 8):
            eight = row[start : start + 8]
            digits = "".join(f"{eight[channel]:04b}" for channel in (7, 5, 3, 1, 6, 4, 2, 0))
            integers.append(int.from_bytes(int(digits, 2).to_bytes(4, "big"), "big", signed=True))
        packed.append(integers)
    return packed


@st.composite
def quantized_weights(draw: st.DrawFn) -> affine.QuantizedWeight:
    """Arbitrary codes with arbitrary parameters whose scales fp16 can hold."""
    height, groups = 8 * draw(st.integers(1, 3)), draw(st.integers(1, 3))
    group_size = draw(st.sampled_from(GROUP_SIZES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    codes = torch.randint(0, 16, (height, groups * group_size), generator=generator, dtype=torch.uint8)
    zero_points = torch.randint(0, 16, (height, groups), generator=generator, dtype=torch.uint8)
    scales = torch.rand(height, groups, generator=generator).clamp_min(2.0**-20).half().float()
    return affine.QuantizedWeight(codes, affine.QParams(scales, zero_points))


def test_packing_gives_the_integers_worked_out_by_hand() -> None:
    packed = awq_packing.pack_awq(affine.QuantizedWeight(CODES, affine.QParams(torch.full((8, 1), 0.5), ZERO_POINTS)))
    assert packed.qweight.dtype == packed.qzeros.dtype == torch.int32
    assert packed.qweight.tolist() == QWEIGHT
    assert packed.qzeros.tolist() == QZEROS
    assert packed.scales.dtype == torch.float16
    assert packed.scales.tolist() == [[0.5] * 8]


def test_unpacking_reads_the_integers_worked_out_by_hand() -> None:
    tensors = awq_packing.AwqTensors(
        torch.tensor(QWEIGHT, dtype=torch.int32),
        torch.tensor(QZEROS, dtype=torch.int32),
        torch.full((1, 8), 0.5, dtype=torch.float16),
    )
    codes, qparams = awq_packing.unpack_awq(tensors)
    assert codes.tolist() == CODES.tolist()
    assert qparams.zero_points.tolist() == ZERO_POINTS.tolist()
    weight = affine.dequantize(affine.QuantizedWeight(codes, qparams))
    assert weight[0].tolist() == [(0 - 8) * 0.5, (15 - 8) * 0.5]
    assert weight[7].tolist() == [(7 - 1) * 0.5, (8 - 1) * 0.5]


@settings(max_examples=25, deadline=None)
@given(quantized_weights())
def test_packing_equals_a_packer_written_from_the_description(quantized: affine.QuantizedWeight) -> None:
    packed = awq_packing.pack_awq(quantized)
    groups, (height, width) = quantized.qparams.scales.shape[1], quantized.codes.shape
    assert packed.qweight.shape == (width, height // 8)
    assert packed.qzeros.shape == (groups, height // 8)
    assert packed.scales.shape == (groups, height)
    assert packed.qweight.tolist() == pack_in_plain_python(quantized.codes.T.tolist())
    assert packed.qzeros.tolist() == pack_in_plain_python(quantized.qparams.zero_points.T.tolist())
    assert torch.equal(packed.scales.float(), quantized.qparams.scales.T)
    assert all(tensor.is_contiguous() for tensor in packed)


@settings(max_examples=25, deadline=None)
@given(quantized_weights())
def test_unpacking_undoes_packing(quantized: affine.QuantizedWeight) -> None:
    codes, qparams = awq_packing.unpack_awq(awq_packing.pack_awq(quantized))
    assert torch.equal(codes, quantized.codes)
    assert torch.equal(qparams.zero_points, quantized.qparams.zero_points)
    assert torch.equal(qparams.scales, quantized.qparams.scales)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_a_weight_is_the_same_to_the_bit_after_storing(group_size: int, symmetric: bool) -> None:
    weight = make_weights(16, 256, seed=1, scale=0.02)
    quantized = affine.quantize(
        weight, affine.minmax_qparams(weight, QuantSpec(group_size=group_size, symmetric=symmetric))
    )
    stored = awq_packing.unpack_awq(awq_packing.pack_awq(quantized))
    assert torch.equal(affine.dequantize(stored), affine.dequantize(quantized))


def test_an_output_width_that_is_not_a_multiple_of_8_is_rejected() -> None:
    weight = make_weights(12, 64, seed=2)
    with pytest.raises(ValueError, match="output width 12 is not a multiple of 8"):
        awq_packing.pack_awq(affine.quantize(weight, affine.minmax_qparams(weight, QuantSpec(group_size=64))))


@pytest.mark.parametrize("symmetric", [True, False])
def test_zeros_and_huge_weights_are_stored_with_valid_scales(symmetric: bool) -> None:
    for weight in (torch.zeros(8, 64), make_weights(8, 64, seed=6, scale=1e6)):
        qparams = affine.minmax_qparams(weight, QuantSpec(group_size=64, symmetric=symmetric))
        stored = awq_packing.unpack_awq(awq_packing.pack_awq(affine.quantize(weight, qparams)))
        assert torch.equal(stored.qparams.scales, qparams.scales)
        assert (stored.qparams.scales > 0).all()
        assert torch.isfinite(affine.dequantize(stored)).all()


@pytest.mark.parametrize(("group_size", "bits"), [(128, 4.15625), (64, 4.3125), (32, 4.625)])
def test_bits_per_weight(group_size: int, bits: float) -> None:
    assert awq_packing.bits_per_weight(group_size) == bits


@pytest.mark.parametrize("symmetric", [True, False])
def test_bits_per_weight_are_those_of_the_packed_tensors(symmetric: bool) -> None:
    weight = make_weights(16, 256, seed=8)
    packed = awq_packing.pack_awq(
        affine.quantize(weight, affine.minmax_qparams(weight, QuantSpec(group_size=128, symmetric=symmetric)))
    )
    assert 8 * sum(tensor.nbytes for tensor in packed) / weight.numel() == awq_packing.bits_per_weight(128)
