"""GGUF's blocks of 32 weights, made from codes that are there already: nothing is rounded again but Q4_1's minimum.

A block of Q4_0 is an fp16 scale d and 32 codes, w = (q - 8) d. One of Q4_1 has an fp16 minimum m as well, w = q d + m.
One of Q8_0 has 32 signed bytes, w = q d. Larger groups repeat their scale in each of their blocks. (ggml-common.h and
ggml-quants.c of ggml.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from .affine import QuantizedWeight
from .int8_rows import Int8Rows

BLOCK_SIZE = 32  # weights
SYMMETRIC_ZERO_POINT = 8


def is_symmetric(weight: QuantizedWeight) -> bool:
    """Whether Q4_0 can hold a 4-bit weight: no zero point differs from 8."""
    return bool((weight.qparams.zero_points == SYMMETRIC_ZERO_POINT).all())


def pack_q4_0(weight: QuantizedWeight) -> Tensor:
    """Packs a 4-bit weight exactly.

    Args:
        weight: Codes (out, in) in groups of a multiple of 32.

    Returns:
        uint8 (out, in / 32 * 18).

    Raises:
        ValueError: A zero point differs from 8, or the groups are of another size.
    """
    if not is_symmetric(weight):
        raise ValueError("Q4_0 needs all zero points at 8")
    return _join_blocks(_fp16_per_block(weight.qparams.scales, weight), _pack_nibbles(weight))


def pack_q4_1(weight: QuantizedWeight) -> Tensor:
    """Packs a 4-bit weight; its codes and scales exactly, the minimum of each group rounded to fp16.

    Args:
        weight: Codes (out, in) in groups of a multiple of 32.

    Returns:
        uint8 (out, in / 32 * 20).

    Raises:
        ValueError: fp16 cannot hold the minimum of a group, or the groups are of another size.
    """
    minima = _fp16_minima(weight)
    if not minima.isfinite().all():
        raise ValueError("fp16 cannot hold the minimum of a group")
    return _join_blocks(
        _fp16_per_block(weight.qparams.scales, weight), _fp16_per_block(minima, weight), _pack_nibbles(weight)
    )


def pack_q8_0(rows: Int8Rows) -> Tensor:
    """Packs a matrix in 8 bits exactly.

    Args:
        rows: Codes (rows, width), with a width that is a multiple of 32.

    Returns:
        uint8 (rows, width / 32 * 34).

    Raises:
        ValueError: The width is not a multiple of 32.
    """
    height, width = rows.codes.shape
    if width % BLOCK_SIZE:
        raise ValueError(f"a width of {width} is not a multiple of {BLOCK_SIZE}")
    scales = rows.scales.to(torch.float16).expand(height, width // BLOCK_SIZE)
    codes = rows.codes.view(torch.uint8).reshape(height, -1, BLOCK_SIZE)
    return _join_blocks(_to_bytes(scales), codes)


def q4_1_difference(weight: QuantizedWeight) -> float:
    """The largest difference that rounding the minimum makes, in steps between codes."""
    scales, zero_points, _, _ = weight.qparams
    exact = -scales * zero_points
    return float(((_fp16_minima(weight).float() - exact).abs() / scales.clamp(min=2.0**-24)).max())


def _fp16_minima(weight: QuantizedWeight) -> Tensor:
    return (-weight.qparams.scales * weight.qparams.zero_points).to(torch.float16)


def _fp16_per_block(values: Tensor, weight: QuantizedWeight) -> Tensor:
    """Values (out, groups) as the bytes of fp16 for each block: (out, blocks, 2)."""
    width = weight.codes.shape[1]
    group_size = width // values.shape[1]
    if group_size % BLOCK_SIZE:
        raise ValueError(f"groups of {group_size} weights are no multiple of {BLOCK_SIZE}")
    return _to_bytes(values.to(torch.float16).repeat_interleave(group_size // BLOCK_SIZE, 1))


def _to_bytes(values: Tensor) -> Tensor:
    """fp16 (out, blocks) as bytes (out, blocks, 2)."""
    return values.contiguous().view(torch.uint8).reshape(*values.shape, 2)


def _pack_nibbles(weight: QuantizedWeight) -> Tensor:
    """Codes as bytes (out, blocks, 16): code i of a block in the low nibble of byte i, code i + 16 in the high one."""
    halves = weight.codes.reshape(weight.codes.shape[0], -1, 2, BLOCK_SIZE // 2)
    return halves[:, :, 0] | (halves[:, :, 1] << 4)


def _join_blocks(*parts: Tensor) -> Tensor:
    """Joins the bytes of each block, (out, blocks, ...), to rows."""
    return torch.cat(parts, dim=2).flatten(1)
