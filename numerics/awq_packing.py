"""AutoAWQ's GEMM layout: 4-bit codes packed in eights along the output channels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .affine import QParams, QuantizedWeight

QMAX = 15  # the largest code
# Nibble i of an AWQ int32 holds output channel 8 k + AWQ_ORDER[i] (AutoAWQ, packing of WQLinear_GEMM).
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def bits_per_weight(group_size: int) -> float:
    """Stored bits a weight: 4, and for each group an fp16 scale and a zero point of 4 bits.

    The layout holds zero points even where all of them are 8.
    """
    return 4 + (16 + 4) / group_size


class AwqTensors(NamedTuple):
    """AutoAWQ's GEMM layout: qweight int32 (in, out / 8), qzeros int32 (groups, out / 8), scales fp16 (groups, out)."""

    qweight: Tensor
    qzeros: Tensor
    scales: Tensor


def pack_awq(quantized: QuantizedWeight) -> AwqTensors:
    """The tensors that AutoAWQ's GEMM kernels read.

    Raises:
        ValueError: the output width is not a multiple of 8.
    """
    codes, grid = quantized
    return AwqTensors(
        qweight=pack_nibbles(codes.T),
        qzeros=pack_nibbles(grid.zero_points.T),
        scales=grid.scales.T.to(torch.float16).contiguous(),
    )


def unpack_awq(packed: AwqTensors) -> QuantizedWeight:
    """The codes and grid of a packed weight; the exact inverse of `pack_awq`."""
    zeros = unpack_nibbles(packed.qzeros).T.contiguous()
    grid = QParams(packed.scales.T.float().contiguous(), zeros)
    return QuantizedWeight(unpack_nibbles(packed.qweight).T.contiguous(), grid)


def pack_nibbles(values: Tensor) -> Tensor:
    """(rows, columns) uint8 in 0..15 to (rows, columns / 8) int32, nibbles in AWQ's order."""
    if values.shape[1] % 8:
        raise ValueError(f"output width {values.shape[1]} is not a multiple of 8, which AWQ's layout needs")
    eights = values.reshape(values.shape[0], -1, 8).to(torch.int64)
    packed = torch.zeros(eights.shape[:2], dtype=torch.int64, device=values.device)
    for nibble, channel in enumerate(AWQ_ORDER):
        packed |= eights[..., channel] << (4 * nibble)
    return packed.to(torch.int32)


def unpack_nibbles(packed: Tensor) -> Tensor:
    """The exact inverse of `pack_nibbles`."""
    values = torch.empty(*packed.shape, 8, dtype=torch.uint8, device=packed.device)
    for nibble, channel in enumerate(AWQ_ORDER):
        values[..., channel] = ((packed >> (4 * nibble)) & QMAX).to(torch.uint8)
    return values.reshape(packed.shape[0], -1)
