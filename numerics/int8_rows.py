"""Token embeddings in 8 bits: rows of symmetric codes with a scale each.

A row is read whole, and its values are of one size: one scale a row loses 0.70 % (relative, root mean square) on the
demo's embeddings, scales for groups of 128 would lose 0.66 %.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .affine import MIN_SCALE

QMAX = 127  # the code -128 is not used: the range is symmetric


class Int8Rows(NamedTuple):
    """A matrix in 8 bits: codes int8 (rows, width), scales fp16 (rows, 1); a value is a code times its row's scale."""

    codes: Tensor
    scales: Tensor


def quantize_rows(weight: Tensor) -> Int8Rows:
    """The nearest codes of a matrix (rows, width), its rows' largest values at 127.

    Raises:
        ValueError: a row's scale is beyond fp16, or not a number.
    """
    weight = weight.float()
    exact = weight.abs().amax(dim=1, keepdim=True) / QMAX
    scales = _round_up_to_fp16(exact)
    if not scales.isfinite().all():
        raise ValueError("a row's largest value is not a number or too large for a scale in fp16")
    codes = torch.round(weight / scales.float()).clamp(-QMAX, QMAX)
    return Int8Rows(codes.to(torch.int8), scales)


def dequantize_rows(rows: Int8Rows) -> Tensor:
    """The matrix in float32 that the codes stand for."""
    return rows.codes.float() * rows.scales.float()


def _round_up_to_fp16(scales: Tensor) -> Tensor:
    """The next fp16 value that is not smaller: below it, the largest value of a row would be cut off."""
    nearest = scales.clamp(min=MIN_SCALE).to(torch.float16)
    above = torch.nextafter(nearest, torch.full_like(nearest, torch.inf))
    return torch.where(nearest.float() < scales, above, nearest)
