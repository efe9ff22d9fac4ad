"""AutoAWQ's 4-bit tensors in ONNX's layouts, code for code: MatMulNBits, and DequantizeLinear over blocks.

Nibbles move as they stand in AWQ's words, eight to an int32: unpacking them to bytes first takes five times as long.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...int4 import AWQ_ORDER, AwqTensors

LOW = 0x0F0F0F0F  # the low nibble of each byte of a word
MIDDLE = -0x77777778  # a word of eight zero points of 8, as int32


def is_symmetric(qzeros: Tensor) -> bool:
    """Whether all zero points of AWQ's qzeros, int32 (groups, out / 8), are 8."""
    return bool((qzeros == MIDDLE).all())


def nbits(packed: AwqTensors, operand: str) -> Tensor:
    """An operand of MatMulNBits for the same weight, to the bit.

    qweight: uint8 (out, groups, size / 2), in each byte the even input's code low. scales: float32 (out, groups).
    zero_points: uint8 (out, groups / 2, rounded up), in each byte the even group's low.
    """
    groups, outputs = packed.scales.shape
    if operand == "qweight":
        return _pairs_of_rows(packed.qweight).reshape(outputs, groups, -1)
    if operand == "scales":
        return packed.scales.T.float().contiguous()
    odd = packed.qzeros.new_zeros(groups % 2, outputs // 8)
    return _pairs_of_rows(torch.cat([packed.qzeros, odd]))


def blocks(packed: AwqTensors, operand: str) -> Tensor:
    """An operand of DequantizeLinear along axis 0 for the same weight, to the bit.

    qweight: INT4 (in, out) as uint8 (in, out / 2), in each byte the even output's code low. scales: float32 (groups,
    out).

    Raises:
        ValueError: a zero point is not 8, and signed codes cannot say so.
    """
    if not is_symmetric(packed.qzeros):
        raise ValueError("signed codes need all zero points at 8")
    return _signed_in_order(packed.qweight) if operand == "qweight" else packed.scales.float()


def _pairs_of_rows(words: Tensor) -> Tensor:
    """AWQ's words int32 (rows, out / 8) as uint8 (out, rows / 2): rows 2 i and 2 i + 1 share byte i, low nibble first.

    Every second nibble of the two rows goes into one word, the others into another; their bytes are output channels.
    """
    even, odd = (rows.T.contiguous() for rows in (words[::2], words[1::2]))
    first = (even & LOW) | ((odd & LOW) << 4)
    second = ((even >> 4) & LOW) | (odd & ~LOW)
    pairs = torch.empty(words.shape[1], len(AWQ_ORDER), words.shape[0] // 2, dtype=torch.uint8)
    for word, channels in ((first, AWQ_ORDER[::2]), (second, AWQ_ORDER[1::2])):
        for byte, channel in enumerate(channels):
            pairs[:, channel] = word.view(torch.uint8).unflatten(1, (-1, 4))[..., byte]
    return pairs.flatten(0, 1)


def _signed_in_order(words: Tensor) -> Tensor:
    """AWQ's words int32 (in, out / 8) as uint8 (in, out / 2), channels in their order, each code less 8 as INT4."""
    ordered = torch.full_like(words, MIDDLE)  # flipping a code's highest bit subtracts 8
    for nibble, channel in enumerate(AWQ_ORDER):
        ordered ^= ((words >> (4 * nibble)) & 15) << (4 * channel)
    return ordered.view(torch.uint8)
