"""Converts AutoAWQ's packed INT4 tensors to the layouts of MatMulNBits and DequantizeLinear, code for code.

Nibbles are moved within AWQ's int32 words, eight at a time: unpacking them to bytes first takes longer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...numerics.awq_packing import AWQ_ORDER, AwqTensors

LOW_NIBBLES = 0x0F0F0F0F  # the low nibble of each byte of a word
PACKED_ZERO_POINTS = -0x77777778  # a word of eight zero points of 8, as int32
# A tile stays in the cache, and is too small for torch to split among threads. A matrix of 3840 x 10240 took 29 ms of
# CPU time in tiles, and 142 ms in one piece.
TILE_ROWS, TILE_WORDS = 512, 128


def has_symmetric_zero_points(qzeros: Tensor) -> bool:
    """Whether all zero points of AWQ's qzeros, int32 (groups, out / 8), are 8."""
    return bool((qzeros == PACKED_ZERO_POINTS).all())


def to_matmul_nbits_operand(tensors: AwqTensors, operand: str) -> Tensor:
    """Returns an operand of MatMulNBits that encodes the same weight exactly.

    Args:
        tensors: A packed linear layer.
        operand: One of
            `qweight`: uint8 (out, groups, group size / 2), each byte with the code of the even input in the low nibble;
            `scales`: float32 (out, groups);
            `zero_points`: uint8 (out, ceil(groups / 2)), each byte with that of the even group in the low nibble.
    """
    groups, outputs = tensors.scales.shape
    if operand == "qweight":
        return _pack_row_pairs(tensors.qweight).reshape(outputs, groups, -1)
    if operand == "scales":
        return tensors.scales.T.float().contiguous()
    padding = tensors.qzeros.new_zeros(groups % 2, outputs // 8)
    return _pack_row_pairs(torch.cat([tensors.qzeros, padding]))


def to_dequantize_linear_operand(tensors: AwqTensors, operand: str) -> Tensor:
    """Returns an operand of DequantizeLinear with blocks along axis 0 that encodes the same weight exactly.

    Args:
        tensors: A packed linear layer.
        operand: One of
            `qweight`: INT4 (in, out) as uint8 (in, out / 2), each byte with the code of the even output in the low
            nibble;
            `scales`: float32 (groups, out).

    Raises:
        ValueError: A zero point is not 8, which signed codes cannot express.
    """
    if not has_symmetric_zero_points(tensors.qzeros):
        raise ValueError("signed codes need all zero points at 8")
    return _to_signed_in_order(tensors.qweight) if operand == "qweight" else tensors.scales.float()


def _pack_row_pairs(words: Tensor) -> Tensor:
    """Converts AWQ's words int32 (rows, out / 8) to uint8 (out, rows / 2), the even row's code in the low nibble."""
    rows, width = words.shape
    pairs = torch.empty(width, len(AWQ_ORDER), rows // 2, dtype=torch.uint8)
    for left in range(0, width, TILE_WORDS):
        for top in range(0, rows, TILE_ROWS):
            tile = words[top : top + TILE_ROWS, left : left + TILE_WORDS]
            _pack_tile(tile, pairs[left : left + TILE_WORDS, :, top // 2 : (top + TILE_ROWS) // 2])
    return pairs.flatten(0, 1)


def _pack_tile(words: Tensor, pairs: Tensor) -> None:
    """Writes words int32 (rows, width) into pairs uint8 (width, 8, rows / 2).

    Every second nibble of two rows goes into one word, the rest into another; their bytes are output channels.
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
    """Converts AWQ's words int32 (in, out / 8) to uint8 (in, out / 2): codes less 8 as INT4, channels in order."""
    ordered = torch.full_like(words, PACKED_ZERO_POINTS)  # flipping the highest bit of a code subtracts 8
    step = max(1, TILE_ROWS * TILE_WORDS // 2 // words.shape[1])
    for source, target in zip(words.split(step), ordered.split(step), strict=True):
        for nibble, channel in enumerate(AWQ_ORDER):
            target ^= ((source >> (4 * nibble)) & 15) << (4 * channel)
    return ordered.view(torch.uint8)
