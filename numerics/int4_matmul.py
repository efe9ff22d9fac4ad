"""Products with a packed int4 weight: PyTorch's int4 kernel where it is the faster one, else by dequantizing.

Everything works on the tensors of the file (`AwqTensors`), which are the only form of a weight that stays in memory on
a CPU. A weight that is dequantized lives as long as its product, and only some columns of it at a time.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .awq_packing import AWQ_ORDER, AwqTensors, unpack_awq

# Up to so many rows the int4 kernel is the faster one in bfloat16 on a CPU: `make bench-kernels` finds both even at 66
# to 105 rows in layers of 3840 and more. Its cost grows two to three times as fast with the rows as a dense product's.
CPU_MAX_ROWS = 64
# Tinygemm reads a weight once for 16 rows. Not measured: no CUDA device was at hand.
CUDA_MAX_ROWS = 16
KERNEL_ZERO_POINT = 8  # the code that the kernels take for 0
KERNEL_GROUP_SIZES = (32, 64, 128, 256)
NIBBLE_PAIR_MASK = 0x000F000F  # AWQ's order puts channels 2 i and 2 i + 1 of eight at bits 4 i and 4 i + 16
# What is dequantized at once: enough for PyTorch's overhead not to count, little enough for caches, and for memory to
# be had again from the heap instead of fresh from the system.
TILE_BYTES, TILE_COLUMNS, TILE_CODES = 2**23, 2048, 2**19


def group_size(packed: AwqTensors) -> int:
    """Input channels that share a scale."""
    return packed.qweight.shape[0] // packed.scales.shape[0]


def _needs_grad(x: Tensor) -> bool:
    """Whether the product must be differentiable, which only that with a dequantized weight is."""
    return x.requires_grad and torch.is_grad_enabled()


# ---------------------------------------------------------------- by dequantization


def dequantize_awq(packed: AwqTensors, dtype: torch.dtype = torch.float32) -> Tensor:
    """The weight (out, in), rounded once to `dtype`."""
    return _restore_channel_order(_dequantize_pairs(packed, dtype)).T


def dequant_matmul(x: Tensor, packed: AwqTensors) -> Tensor:
    """x (rows, in) times the weight, in x's dtype; (rows, out).

    The product's columns are put in order instead of the weight's, since a picture has fewer rows than the weight.
    """
    if _needs_grad(x):
        return F.linear(x, dequantize_awq(packed, x.dtype))
    out = x.new_empty(x.shape[0], packed.scales.shape[1])
    fitting = TILE_BYTES // (x.shape[1] * x.element_size())
    width = min(TILE_COLUMNS, max(64, fitting - fitting % 8))
    for start in range(0, out.shape[1], width):
        columns = slice(start, start + width)
        out[:, columns] = _restore_channel_order(x @ _dequantize_pairs(_slice_channels(packed, columns), x.dtype))
    return out


def _slice_channels(packed: AwqTensors, columns: slice) -> AwqTensors:
    """The same output channels of all three tensors; the slice starts and ends at multiples of 8 or at the end."""
    words = slice(columns.start // 8, columns.stop // 8)
    return AwqTensors(packed.qweight[:, words], packed.qzeros[:, words], packed.scales[:, columns])


def _dequantize_pairs(packed: AwqTensors, dtype: torch.dtype) -> Tensor:
    """The weight (in, out) with its output channels in the order of `_pairs`.

    q s - z s is exact in float32, where both products have at most 15 bits: it equals (q - z) s to the bit.
    """
    size, groups = group_size(packed), packed.scales.shape[0]
    scales = _reorder_scales(packed.scales).float()[:, None]
    offsets = _unpack_pairs(packed.qzeros).float()[:, None] * -scales
    weight = torch.empty(groups, size, packed.scales.shape[1], dtype=dtype, device=packed.scales.device)
    step = max(1, TILE_CODES // (size * weight.shape[2]))
    for start in range(0, groups, step):
        part = slice(start, start + step)
        codes = _unpack_pairs(packed.qweight[start * size : (start + step) * size]).float().unflatten(0, (-1, size))
        weight[part] = torch.addcmul(offsets[part], codes, scales[part], out=codes)
    return weight.flatten(0, 1)


def _unpack_pairs(packed: Tensor) -> Tensor:
    """Nibbles (rows, n / 8) int32 as (rows, n) int16: channels 0 1 of every eight, then 2 3 of every eight, 4 5, 6 7.

    In this order they come out of a word with a shift and a mask, two at a time.
    """
    shifts = torch.arange(0, 16, 4, dtype=torch.int32, device=packed.device)
    words: Tensor = (packed[:, None] >> shifts[:, None]).bitwise_and_(NIBBLE_PAIR_MASK)
    return words.view(torch.int16).flatten(1)


def _reorder_scales(scales: Tensor) -> Tensor:
    """fp16 scales (groups, n) in the order of `_pairs`."""
    words: Tensor = scales.contiguous().view(torch.int32).unflatten(1, (-1, 4))
    return words.transpose(1, 2).flatten(1).view(scales.dtype)


def _restore_channel_order(values: Tensor) -> Tensor:
    """(rows, n) from the order of `_pairs` to the channels' own; pairs move as one number, ten times as fast."""
    pairs = values.view({2: torch.int32, 4: torch.int64, 8: torch.complex128}[values.element_size()])
    four: Tensor = pairs.unflatten(1, (4, -1))
    return four.transpose(1, 2).flatten(1).view(values.dtype)


# ---------------------------------------------------------------- by the int4 kernel of the CPU


def cpu_int4_supported(x: Tensor, packed: AwqTensors) -> bool:
    """Whether the CPU's int4 kernel is the faster one; in float32 and float16 it is a scalar loop, 50 times as slow."""
    if x.device.type != "cpu" or x.dtype != torch.bfloat16 or x.shape[0] > CPU_MAX_ROWS or _needs_grad(x):
        return False
    return (
        group_size(packed) in KERNEL_GROUP_SIZES
        and packed.scales.shape[1] % 64 == 0
        and cpu_channel_order() is not None
    )


def int4_matmul_cpu(x: Tensor, packed: AwqTensors) -> Tensor:
    """x (rows, in) times the weight by the CPU's int4 kernel, with scales rounded to x's dtype; (rows, out).

    The kernel reads blocks of output channels whose nibbles stand one input channel after the other, as AWQ's do, but
    in an order of their own. So AWQ's words are handed over block by block as they are, which is a copy of runs, and
    the kernel's output channels are renamed. To keep the kernel's packing would double the memory; for a weight of
    10240 x 3840 this copy takes 5 ms of one core, the product with one row 2, and dequantization 25.
    """
    order = cpu_channel_order()
    if order is None:
        raise ValueError("this CPU's int4 kernel has a layout that cannot be fed with AWQ's words")
    rows, width = packed.qweight.shape
    blocks = packed.qweight.reshape(rows, -1, len(order) // 8).transpose(0, 1).contiguous()
    weight = blocks.view(torch.uint8).view(width * 8, rows // 2)
    scale_and_zero = _permute_channels(_scale_and_zero(packed, x.dtype), order)
    out: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x.contiguous(), weight, group_size(packed), scale_and_zero)
    return _permute_channels(out, order.argsort())


def _scale_and_zero(packed: AwqTensors, dtype: torch.dtype) -> Tensor:
    """(groups, out, 2): w = (q - 8) * scale + zero."""
    zeros = _restore_channel_order(_unpack_pairs(packed.qzeros)).float()
    scales = packed.scales.float()
    return torch.stack([scales, (KERNEL_ZERO_POINT - zeros) * scales], dim=-1).to(dtype)


def _permute_channels(values: Tensor, order: Tensor) -> Tensor:
    """(rows, out, ...) with channel `order[i]` of every block of channels at its place i."""
    blocks: Tensor = values.unflatten(1, (-1, len(order)))
    return blocks[:, :, order].flatten(1, 2)


@cache
def cpu_channel_order() -> Tensor | None:
    """AWQ's channel that stands where a block of the kernel has channel 0, 1, ...; None: it cannot be fed AWQ's words.

    The kernel's packing is opaque and differs between processors, so it is asked: weights whose codes are the numbers
    of their channels are packed, and where those turn up tells the order.
    """
    with torch.device("cpu"):
        for block in (64, 32, 16):
            kernel = _probe_block_layout(block)
            if kernel is not None:
                awq = torch.arange(0, block, 8)[:, None] + torch.tensor(AWQ_ORDER)
                return awq.flatten()[kernel.argsort()]
    return None


def _probe_block_layout(block: int) -> Tensor | None:
    """The channel at each nibble of a packed block (block,), or None where the layout is no block of channels.

    The nibbles of a byte count low before high. Codes hold 4 bits: a channel below 64 takes two packings; a third one,
    whose codes are the numbers of the input channels, makes sure that these stand one after the other.
    """
    inputs, channels = torch.arange(16, dtype=torch.int32), torch.arange(64, dtype=torch.int32)[:, None].expand(64, 16)
    low, high, along = (_pack_probe(codes, block) for codes in (channels % 16, channels // 16, inputs.expand(64, 16)))
    channels_at_nibbles = low + 16 * high
    starts = torch.arange(0, 64, block)[:, None, None]
    alike = torch.equal(channels_at_nibbles - starts, channels_at_nibbles[:1, :1].expand_as(channels_at_nibbles))
    in_turn = torch.equal(along, inputs[:, None].expand_as(along))
    whole = torch.equal(channels_at_nibbles[0, 0].sort().values, channels[:block, 0])
    return channels_at_nibbles[0, 0].long() if alike and in_turn and whole else None


def _pack_probe(codes: Tensor, block: int) -> Tensor:
    """The kernel's packing of codes (64, 16), read as (blocks, 16, block) nibbles."""
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.contiguous(), 1).view(-1, 16, block // 2)
    return torch.stack([packed & 15, packed >> 4], dim=-1).flatten(2).to(torch.int32)


# ---------------------------------------------------------------- by tinygemm, on CUDA


def tinygemm_supported(x: Tensor, packed: AwqTensors) -> bool:
    """Whether tinygemm computes the product: few rows of bfloat16 on CUDA, with widths that fill its tiles."""
    inner, out = packed.qweight.shape[0], packed.scales.shape[1]
    fits = inner % 128 == 0 and out % 8 == 0 and group_size(packed) in KERNEL_GROUP_SIZES
    few = x.dtype == torch.bfloat16 and x.shape[0] <= CUDA_MAX_ROWS
    return fits and few and x.device.type == "cuda" and not _needs_grad(x)


def pack_for_tinygemm(packed: AwqTensors, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor]:
    """Tinygemm's packed codes, and its scales and zeros (groups, out, 2)."""
    codes = unpack_awq(packed).codes
    pairs = (codes[:, ::2] << 4) | codes[:, 1::2]
    weight: Tensor = torch.ops.aten._convert_weight_to_int4pack(pairs.contiguous(), 8)
    return weight, _scale_and_zero(packed, dtype).contiguous()


def int4_matmul_cuda(x: Tensor, weight: Tensor, scale_and_zero: Tensor, size: int) -> Tensor:
    """x (rows, in) times what `pack_for_tinygemm` packed; (rows, out)."""
    out: Tensor = torch.ops.aten._weight_int4pack_mm(x.contiguous(), weight, size, scale_and_zero)
    return out
