"""AutoAWQ's 4-bit tensors in ONNX's layouts, code for code: MatMulNBits, and DequantizeLinear over blocks.

Nibbles move as they stand in AWQ's words, eight to an int32: unpacking them to bytes first takes longer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...numerics.awq_packing import AWQ_ORDER, AwqTensors

LOW_NIBBLES = 0x0F0F0F0F  # the low nibble of each byte of a word
PACKED_ZERO_POINTS = -0x77777778  # a word of eight zero points of 8, as int32
# What is worked on at once: it stays in the cache, and is too little for torch to share out among threads. A matrix of
# 3840 x 10240 took 29 ms of CPU so, 142 ms in one piece.
TILE_ROWS, TILE_WORDS = 512, 128


def has_symmetric_zero_points(qzeros: Tensor) -> bool:
    """Whether all zero points of AWQ's qzeros, int32 (groups, out / 8), are 8."""
    return bool((qzeros == PACKED_ZERO_POINTS).all())


def to_matmul_nbits_operand(packed: AwqTensors, operand: str) -> Tensor:
    """An operand of MatMulNBits for the same weight, to the bit.

    qweight: uint8 (out, groups, size / 2), in each byte the even input's code low. scales: float32 (out, groups).
    zero_points: uint8 (out, groups / 2, rounded up), in each byte the even group's low.
    """
    groups, outputs = packed.scales.shape
    if operand == "qweight":
        return _pack_row_pairs(packed.qweight).reshape(outputs, groups, -1)
    if operand == "scales":
        return packed.scales.T.float().contiguous()
    padding = packed.qzeros.new_zeros(groups % 2, outputs // 8)
    return _pack_row_pairs(torch.cat([packed.qzeros, padding]))


def to_dequantize_linear_operand(packed: AwqTensors, operand: str) -> Tensor:
    """An operand of DequantizeLinear along axis 0 for the same weight, to the bit.

    qweight: INT4 (in, out) as uint8 (in, out / 2), in each byte the even output's code low. scales: float32 (groups,
    out).

    Raises:
        ValueError: a zero point is not 8, and signed codes cannot say so.
    """
    if not has_symmetric_zero_points(packed.qzeros):
        raise ValueError("signed codes need all zero points at 8")
    return _to_signed_in_order(packed.qweight) if operand == "qweight" else packed.scales.float()


def _pack_row_pairs(words: Tensor) -> Tensor:
    """AWQ's words int32 (rows, out / 8) as uint8 (out, rows / 2): in each byte the even row's code low."""
    rows, width = words.shape
    pairs = torch.empty(width, len(AWQ_ORDER), rows // 2, dtype=torch.uint8)
    for left in range(0, width, TILE_WORDS):
        for top in range(0, rows, TILE_ROWS):
            tile = words[top : top + TILE_ROWS, left : left + TILE_WORDS]
            _pack_tile(tile, pairs[left : left + TILE_WORDS, :, top // 2 : (top + TILE_ROWS) // 2])
    return pairs.flatten(0, 1)


def _pack_tile(words: Tensor, pairs: Tensor) -> None:
    """Puts words (rows, words) into pairs (words, 8, rows / 2).

    Every second nibble of the two rows goes into one word, the others into another; their bytes are output channels.
    """
    even, odd = words[::2], words[1::2]
    first = (even & LOW_NIBBLES) | ((odd & LOW_NIBBLES) << 4)
    second = ((even >> 4) & LOW_NIBBLES) | (odd & ~LOW_NIBBLES)
    for word, channels in ((first, AWQ_ORDER[::2]), (second, AWQ_ORDER[1::2])):
        transposed = word.T.clone(memory_format=torch.contiguous_format)
        bytes_ = transposed.view(torch.uint8).unflatten(1, (-1, 4))
        for byte, channel in enumerate(channels):
            pairs[:, channel] = bytes_[..., byte]


def _to_signed_in_order(words: Tensor) -> Tensor:
    """AWQ's words int32 (in, out / 8) as uint8 (in, out / 2), channels in their order, each code less 8 as INT4."""
    ordered = torch.full_like(words, PACKED_ZERO_POINTS)  # flipping a code's highest bit subtracts 8
    step = max(1, TILE_ROWS * TILE_WORDS // 2 // words.shape[1])
    for old, new in zip(words.split(step), ordered.split(step), strict=True):
        for nibble, channel in enumerate(AWQ_ORDER):
            new ^= ((old >> (4 * nibble)) & 15) << (4 * channel)
    return ordered.view(torch.uint8)
