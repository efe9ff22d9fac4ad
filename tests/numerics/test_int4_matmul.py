"""Matrix products with packed weights, against weights unpacked by hand and PyTorch's own packing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from edgepress.numerics import int4_matmul
from edgepress.numerics.awq_packing import AwqTensors

CHANNEL_OF_NIBBLE = (0, 2, 4, 6, 1, 3, 5, 7)  # lowest nibble first
BF16 = torch.bfloat16


def random_weight(out: int, inner: int, group_size: int, seed: int = 0) -> AwqTensors:
    """Every bit of every integer is random, the sign's too."""
    generator = torch.Generator().manual_seed(seed)
    groups = inner // group_size
    integers = torch.randint(-(2**31), 2**31, (inner + groups, out // 8), generator=generator).to(torch.int32)
    scales = (torch.rand(groups, out, generator=generator) + 0.01) * 2.0 ** -torch.randint(2, 14, (groups, out))
    return AwqTensors(integers[:inner].clone(), integers[inner:].clone(), scales.to(torch.float16))


def unpack_by_hand(packed: Tensor) -> Tensor:
    """(rows, n / 8) int32 to (rows, n) int64, a nibble at a time."""
    values = torch.zeros(packed.shape[0], packed.shape[1] * 8, dtype=torch.int64)
    unsigned = packed.to(torch.int64) & 0xFFFFFFFF
    for nibble, channel in enumerate(CHANNEL_OF_NIBBLE):
        values[:, channel::8] = unsigned // 16**nibble % 16
    return values


def compute_reference(packed: AwqTensors) -> Tensor:
    """The weight (out, in) in float64, where nothing is rounded."""
    size = packed.qweight.shape[0] // packed.scales.shape[0]
    zero_points, scales = (
        t.repeat_interleave(size, 0) for t in (unpack_by_hand(packed.qzeros), packed.scales.double())
    )
    return ((unpack_by_hand(packed.qweight) - zero_points) * scales).T


def make_inputs(rows: int, inner: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(rows, inner, generator=torch.Generator().manual_seed(rows)).to(dtype)


def relative_error(value: Tensor, expected: Tensor) -> float:
    return float((value.double() - expected.double()).norm() / expected.double().norm())


# ---------------------------------------------------------------- dequantization


@pytest.mark.slow
@given(
    eights=st.integers(1, 20),
    groups=st.integers(1, 5),
    group_size=st.sampled_from([2, 32, 64, 128]),
    dtype=st.sampled_from([torch.float32, torch.float16, BF16, torch.float64]),
    seed=st.integers(0, 2**31),
)
def test_the_weight_is_rounded_once(eights: int, groups: int, group_size: int, dtype: torch.dtype, seed: int) -> None:
    packed = random_weight(8 * eights, groups * group_size, group_size, seed)
    weight = int4_matmul.dequantize_awq(packed, dtype)
    assert weight.dtype == dtype
    assert torch.equal(weight, compute_reference(packed).to(dtype))


@pytest.mark.parametrize("tile", [1, 10_000, 2**23])  # bytes: tiles of 64 columns, some, all at once
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-6), (torch.float16, 2e-3), (BF16, 6e-3)])
@pytest.mark.parametrize("out", [8, 64, 72, 200])
def test_the_product_is_that_of_the_dequantized_weight(
    out: int, dtype: torch.dtype, limit: float, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int4_matmul, "TILE_BYTES", tile)
    packed, x = random_weight(out, 256, 64), make_inputs(5, 256, dtype)
    product = int4_matmul.dequant_matmul(x, packed)
    assert (product.shape, product.dtype) == ((5, out), dtype)
    assert relative_error(product, x.double() @ compute_reference(packed).T) < limit


def test_the_product_is_differentiable_in_its_input() -> None:
    packed = random_weight(64, 128, 64)
    x = make_inputs(3, 128, BF16).requires_grad_()
    assert not int4_matmul.cpu_int4_supported(x, packed)
    int4_matmul.dequant_matmul(x, packed).sum().backward()
    assert x.grad is not None
    assert relative_error(x.grad, compute_reference(packed).sum(0).expand(3, -1)) < 6e-3


# ---------------------------------------------------------------- the int4 kernel of the CPU


def multiply_with_the_kernels_packing(x: Tensor, packed: AwqTensors) -> Tensor:
    """The product with operands that PyTorch packs for the kernel."""
    codes, zero_points = unpack_by_hand(packed.qweight).T.to(torch.int32), unpack_by_hand(packed.qzeros)
    weight = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.contiguous(), 1)
    scales = packed.scales.float()
    scale_and_zero = torch.stack([scales, (8 - zero_points) * scales], dim=-1).to(x.dtype)
    size = packed.qweight.shape[0] // packed.scales.shape[0]
    product: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x, weight, size, scale_and_zero)
    return product


@pytest.mark.parametrize("dtype", [BF16, torch.float32])
@pytest.mark.parametrize("group_size", int4_matmul.KERNEL_GROUP_SIZES)
@pytest.mark.parametrize("out", [64, 192, 1088])
@pytest.mark.parametrize("rows", [1, 5, 64])
def test_the_kernel_reads_awqs_integers_as_if_packed_for_it(
    rows: int, out: int, group_size: int, dtype: torch.dtype
) -> None:
    packed, x = random_weight(out, 512, group_size), make_inputs(rows, 512, dtype)
    product = int4_matmul.int4_matmul_cpu(x, packed)
    assert torch.equal(product, multiply_with_the_kernels_packing(x, packed))
    assert relative_error(product, x.double() @ compute_reference(packed).T) < 6e-3


def test_the_order_is_a_permutation_of_a_block() -> None:
    order = int4_matmul.cpu_channel_order()
    assert order is not None, "this processor's kernel is not used"
    assert sorted(order.tolist()) == list(range(len(order)))
    assert 64 % len(order) == 0


def shuffled_inputs(codes: Tensor, _: int) -> Tensor:
    """A packing that puts two input channels in a byte."""
    return (codes[:, ::2] | codes[:, 1::2] << 4).to(torch.uint8)


def swapped_inputs(codes: Tensor, _: int) -> Tensor:
    """A packing of blocks of channels, with input channels out of order."""
    swapped = codes.T[[1, 0, *range(2, codes.shape[1])]]
    return (swapped[:, ::2] | swapped[:, 1::2] << 4).to(torch.uint8).reshape(codes.shape[0], -1)


@pytest.mark.parametrize("packing", [shuffled_inputs, swapped_inputs])
def test_an_unknown_layout_is_not_used(
    packing: Callable[[Tensor, int], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.aten, "_convert_weight_to_int4pack_for_cpu", packing)
    int4_matmul.cpu_channel_order.cache_clear()
    packed, x = random_weight(64, 128, 64), make_inputs(1, 128, BF16)
    try:
        assert int4_matmul.cpu_channel_order() is None
        assert not int4_matmul.cpu_int4_supported(x, packed)
        with pytest.raises(ValueError, match="does not match AWQ's"):
            int4_matmul.int4_matmul_cpu(x, packed)
    finally:
        int4_matmul.cpu_channel_order.cache_clear()


@pytest.mark.parametrize(
    ("rows", "out", "inner", "group_size", "dtype", "expected"),
    [
        (1, 64, 128, 64, BF16, True),
        (int4_matmul.CPU_MAX_ROWS, 128, 512, 256, BF16, True),
        (int4_matmul.CPU_MAX_ROWS + 1, 64, 128, 64, BF16, False),
        (1, 64, 128, 64, torch.float32, False),
        (1, 64, 128, 64, torch.float16, False),
        (1, 72, 128, 64, BF16, False),  # no whole blocks
        (1, 64, 128, 16, BF16, False),  # groups that the kernel rejects
    ],
)
def test_the_kernel_is_chosen_where_it_is_faster(
    rows: int, out: int, inner: int, group_size: int, dtype: torch.dtype, expected: bool
) -> None:
    packed, x = random_weight(out, inner, group_size), make_inputs(rows, inner, dtype)
    assert int4_matmul.cpu_int4_supported(x, packed) is expected
    assert not int4_matmul.tinygemm_supported(x, packed)


# ---------------------------------------------------------------- tinygemm


@pytest.mark.device
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("rows", [1, int4_matmul.CUDA_MAX_ROWS])
@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_tinygemm_computes_the_product(rows: int, group_size: int) -> None:
    packed, x = random_weight(256, 512, group_size), make_inputs(rows, 512, BF16).cuda()
    on_cuda = AwqTensors(*(tensor.cuda() for tensor in packed))
    assert int4_matmul.tinygemm_supported(x, on_cuda)
    product = int4_matmul.int4_matmul_cuda(x, *int4_matmul.pack_for_tinygemm(on_cuda), group_size)
    assert relative_error(product.cpu(), F.linear(x.cpu().double(), compute_reference(packed))) < 6e-3


@pytest.mark.device
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_the_weight_is_rounded_once_too() -> None:
    packed = random_weight(256, 512, 128)
    weight = int4_matmul.dequantize_awq(AwqTensors(*(tensor.cuda() for tensor in packed)), BF16)
    assert torch.equal(weight.cpu(), compute_reference(packed).to(BF16))
