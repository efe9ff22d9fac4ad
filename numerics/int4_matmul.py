"""Matrix products with a packed int4 weight, by PyTorch's int4 kernels where they are faster, else by dequantizing.

All functions work on the stored tensors (`AwqTensors`), so that a CPU holds no second copy of a weight. A dequantized
weight exists only during its product, and only some of its columns at a time.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .awq_packing import AWQ_ORDER, AwqTensors, unpack_awq

# Up to this many rows the int4 kernel is faster in bfloat16 on a CPU: `make bench-kernels` finds both equal at 66 to
# 105 rows in layers of 3840 and more. Its cost grows two to three times as fast with the rows as a dense product's.
CPU_MAX_ROWS = 64
CUDA_MAX_ROWS = 16  # tinygemm reads a weight once for 16 rows; not measured, since no CUDA device was available
KERNEL_ZERO_POINT = 8  # the code that the kernels read as 0
KERNEL_GROUP_SIZES = (32, 64, 128, 256)
NIBBLE_PAIR_MASK = 0x000F000F  # AWQ's order puts channels 2 i and 2 i + 1 of eight at bits 4 i and 4 i + 16
# Sizes of what is dequantized at once: large enough to hide PyTorch's overhead, small enough for caches and for memory
# to be reused from the heap instead of requested from the system.
TILE_BYTES, TILE_COLUMNS, TILE_CODES = 2**23, 2048, 2**19


def group_size(packed: AwqTensors) -> int:
    """Returns the number of input channels that share a scale."""
    return packed.qweight.shape[0] // packed.scales.shape[0]


def _needs_grad(x: Tensor) -> bool:
    """Returns whether the product must be differentiable, which only the dequantized one is."""
    return x.requires_grad and torch.is_grad_enabled()


# ---------------------------------------------------------------- by dequantizing


def dequantize_awq(packed: AwqTensors, dtype: torch.dtype = torch.float32) -> Tensor:
    """Returns the weight (out, in), rounded once to `dtype`."""
    return _restore_channel_order(_dequantize_pairs(packed, dtype)).T


def dequant_matmul(x: Tensor, packed: AwqTensors) -> Tensor:
    """Multiplies x (rows, in) by the dequantized weight, in x's dtype.

    The columns of the product are put in order, not those of the weight: an image has fewer rows than a weight.

    Returns:
        (rows, out)
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


def _slice_channels(packed: AwqTensors, channels: slice) -> AwqTensors:
    """Selects output channels of all three tensors. The slice begins and ends at multiples of 8, or ends at the end."""
    packed_channels = slice(channels.start // 8, channels.stop // 8)
    return AwqTensors(packed.qweight[:, packed_channels], packed.qzeros[:, packed_channels], packed.scales[:, channels])


def _dequantize_pairs(packed: AwqTensors, dtype: torch.dtype) -> Tensor:
    """Returns the weight (in, out) with its output channels in the order of `_unpack_pairs`.

    q * s - z * s is exact in float32, since both products have at most 15 bits: it equals (q - z) * s to the bit.
    """
    size, groups = group_size(packed), packed.scales.shape[0]
    scales = _reorder_scales(packed.scales).float()[:, None]
    offsets = _unpack_pairs(packed.qzeros).float()[:, None] * -scales
    weight = torch.empty(groups, size, packed.scales.shape[1], dtype=dtype, device=packed.scales.device)
    step = max(1, TILE_CODES // (size * weight.shape[2]))
    for start in range(0, groups, step):
        tile = slice(start, start + step)
        codes = _unpack_pairs(packed.qweight[start * size : (start + step) * size]).float().unflatten(0, (-1, size))
        weight[tile] = torch.addcmul(offsets[tile], codes, scales[tile], out=codes)
    return weight.flatten(0, 1)


def _unpack_pairs(packed: Tensor) -> Tensor:
    """Unpacks nibbles (rows, n / 8) int32 to (rows, n) int16, in an order of channels that needs only shift and mask.

    The order is channels 0 1 of every eight, then 2 3 of every eight, then 4 5, then 6 7.
    """
    shifts = torch.arange(0, 16, 4, dtype=torch.int32, device=packed.device)
    pairs: Tensor = (packed[:, None] >> shifts[:, None]).bitwise_and_(NIBBLE_PAIR_MASK)
    return pairs.view(torch.int16).flatten(1)


def _reorder_scales(scales: Tensor) -> Tensor:
    """Puts fp16 scales (groups, n) in the order of `_unpack_pairs`."""
    pairs: Tensor = scales.contiguous().view(torch.int32).unflatten(1, (-1, 4))
    return pairs.transpose(1, 2).flatten(1).view(scales.dtype)


def _restore_channel_order(values: Tensor) -> Tensor:
    """Puts (rows, n) from the order of `_unpack_pairs` back in order. Pairs move as one number, ten times as fast."""
    pairs = values.view({2: torch.int32, 4: torch.int64, 8: torch.complex128}[values.element_size()])
    quarters: Tensor = pairs.unflatten(1, (4, -1))
    return quarters.transpose(1, 2).flatten(1).view(values.dtype)


# ---------------------------------------------------------------- by the CPU's int4 kernel


def cpu_int4_supported(x: Tensor, packed: AwqTensors) -> bool:
    """Returns whether the CPU's int4 kernel is the fastest way to multiply.

    In float32 and float16 the kernel is a scalar loop, 50 times as slow as in bfloat16.
    """
    if x.device.type != "cpu" or x.dtype != torch.bfloat16 or x.shape[0] > CPU_MAX_ROWS or _needs_grad(x):
        return False
    fits = group_size(packed) in KERNEL_GROUP_SIZES and packed.scales.shape[1] % 64 == 0
    return fits and cpu_channel_order() is not None


def int4_matmul_cpu(x: Tensor, packed: AwqTensors) -> Tensor:
    """Multiplies x (rows, in) by the weight with the CPU's int4 kernel, scales rounded to x's dtype.

    The kernel reads blocks of output channels whose nibbles are stored input channel by input channel, as AWQ's are,
    but in its own order of channels. So AWQ's integers are copied block by block as they are, and the kernel's output
    channels are permuted. Keeping the kernel's packing would double the memory. For a weight of 10240 x 3840 the copy
    takes 5 ms on one core, the product with one row 2 ms, and dequantizing 25 ms.

    Returns:
        (rows, out)

    Raises:
        ValueError: The kernel of this CPU has another layout.
    """
    order = cpu_channel_order()
    if order is None:
        raise ValueError("this CPU's int4 kernel has a layout that does not match AWQ's")
    rows, width = packed.qweight.shape
    blocks = packed.qweight.reshape(rows, -1, len(order) // 8).transpose(0, 1).contiguous()
    weight = blocks.view(torch.uint8).view(width * 8, rows // 2)
    scale_and_zero = _permute_channels(_scale_and_zero(packed, x.dtype), order)
    out: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x.contiguous(), weight, group_size(packed), scale_and_zero)
    return _permute_channels(out, order.argsort())


def _scale_and_zero(packed: AwqTensors, dtype: torch.dtype) -> Tensor:
    """Returns the kernels' parameters, (groups, out, 2): w = (q - 8) * scale + zero."""
    zero_points = _restore_channel_order(_unpack_pairs(packed.qzeros)).float()
    scales = packed.scales.float()
    return torch.stack([scales, (KERNEL_ZERO_POINT - zero_points) * scales], dim=-1).to(dtype)


def _permute_channels(values: Tensor, order: Tensor) -> Tensor:
    """Permutes (rows, out, ...) within blocks of channels: channel `order[i]` of a block moves to place i."""
    blocks: Tensor = values.unflatten(1, (-1, len(order)))
    return blocks[:, :, order].flatten(1, 2)


@cache
def cpu_channel_order() -> Tensor | None:
    """Returns AWQ's channel at the place where a block of the CPU's kernel has channel 0, 1, ..., (block,).

    The kernel's packing is undocumented and differs between processors, so it is probed: weights whose codes are the
    numbers of their channels are packed, and the place of each number reveals the order.

    Returns:
        None if AWQ's integers cannot be read by the kernel.
    """
    with torch.device("cpu"):
        for block in (64, 32, 16):
            kernel_order = _probe_block_layout(block)
            if kernel_order is not None:
                awq_order = torch.arange(0, block, 8)[:, None] + torch.tensor(AWQ_ORDER)
                return awq_order.flatten()[kernel_order.argsort()]
    return None


def _probe_block_layout(block: int) -> Tensor | None:
    """Returns the channel at each nibble of a packed block, (block,), or None if the layout has no such blocks.

    The low nibble of a byte comes first. Codes have 4 bits, so a channel below 64 takes two packings. A third one,
    whose codes are the numbers of the input channels, checks that these are stored one after the other.
    """
    inputs, channels = torch.arange(16, dtype=torch.int32), torch.arange(64, dtype=torch.int32)[:, None].expand(64, 16)
    low, high, packed_inputs = (
        _pack_probe(codes, block) for codes in (channels % 16, channels // 16, inputs.expand(64, 16))
    )
    nibbles = low + 16 * high  # the output channel at each nibble, (blocks, 16, block)
    starts = torch.arange(0, 64, block)[:, None, None]
    blocks_are_alike = torch.equal(nibbles - starts, nibbles[:1, :1].expand_as(nibbles))
    inputs_are_in_order = torch.equal(packed_inputs, inputs[:, None].expand_as(packed_inputs))
    block_is_complete = torch.equal(nibbles[0, 0].sort().values, channels[:block, 0])
    return nibbles[0, 0].long() if blocks_are_alike and inputs_are_in_order and block_is_complete else None


def _pack_probe(codes: Tensor, block: int) -> Tensor:
    """Packs codes (64, 16) for the kernel and reads the result as (blocks, 16, block) nibbles."""
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.contiguous(), 1).view(-1, 16, block // 2)
    return torch.stack([packed & 15, packed >> 4], dim=-1).flatten(2).to(torch.int32)


# ---------------------------------------------------------------- by tinygemm, on CUDA


def tinygemm_supported(x: Tensor, packed: AwqTensors) -> bool:
    """Returns whether tinygemm multiplies: few rows of bfloat16 on CUDA, and widths that fill its tiles."""
    in_features, out_features = packed.qweight.shape[0], packed.scales.shape[1]
    fits = in_features % 128 == 0 and out_features % 8 == 0 and group_size(packed) in KERNEL_GROUP_SIZES
    has_few_rows = x.dtype == torch.bfloat16 and x.shape[0] <= CUDA_MAX_ROWS
    return fits and has_few_rows and x.device.type == "cuda" and not _needs_grad(x)


def pack_for_tinygemm(packed: AwqTensors, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor]:
    """Returns tinygemm's packed codes, and its scales and zeros (groups, out, 2)."""
    codes = unpack_awq(packed).codes
    pairs = (codes[:, ::2] << 4) | codes[:, 1::2]
    weight: Tensor = torch.ops.aten._convert_weight_to_int4pack(pairs.contiguous(), 8)
    return weight, _scale_and_zero(packed, dtype).contiguous()


def int4_matmul_cuda(x: Tensor, weight: Tensor, scale_and_zero: Tensor, group_size: int) -> Tensor:
    """Multiplies x (rows, in) by what `pack_for_tinygemm` returned; (rows, out)."""
    out: Tensor = torch.ops.aten._weight_int4pack_mm(x.contiguous(), weight, group_size, scale_and_zero)
    return out
