"""AutoAWQ's GEMM layout: 4-bit codes, eight output channels packed into one int32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .affine import QParams, QuantizedWeight

QMAX = 15  # the highest code
# Nibble i of an int32 holds output channel 8 k + AWQ_ORDER[i] (AutoAWQ, packing of WQLinear_GEMM).
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def bits_per_weight(group_size: int) -> float:
    """Returns the stored bits per weight: 4 and, per group, an fp16 scale and a zero point of 4 bits.

    The layout stores zero points even where all of them are 8.
    """
    return 4 + (16 + 4) / group_size


class AwqTensors(NamedTuple):
    """A weight in AutoAWQ's GEMM layout.

    Attributes:
        qweight: Codes, (in, out / 8) int32.
        qzeros: Zero points, (groups, out / 8) int32.
        scales: (groups, out) float16.
    """

    qweight: Tensor
    qzeros: Tensor
    scales: Tensor


def pack_awq(quantized: QuantizedWeight) -> AwqTensors:
    """Packs a quantized weight as AutoAWQ's GEMM kernels read it.

    Raises:
        ValueError: The output width is not a multiple of 8.
    """
    codes, qparams = quantized
    return AwqTensors(
        qweight=pack_nibbles(codes.T),
        qzeros=pack_nibbles(qparams.zero_points.T),
        scales=qparams.scales.T.to(torch.float16).contiguous(),
    )


def pack_int8(quantized: QuantizedWeight) -> AwqTensors:
    """Arranges 8-bit codes as AWQ does, one byte each: qweight (in, out), qzeros and scales (groups, out)."""
    codes, qparams = quantized
    tensors = (codes.T, qparams.zero_points.T, qparams.scales.T.half())
    return AwqTensors(*(tensor.contiguous() for tensor in tensors))


def unpack_awq(packed: AwqTensors) -> QuantizedWeight:
    """Unpacks a weight; the exact inverse of `pack_awq`."""
    zero_points = unpack_nibbles(packed.qzeros).T.contiguous()
    qparams = QParams(packed.scales.T.float().contiguous(), zero_points)
    return QuantizedWeight(unpack_nibbles(packed.qweight).T.contiguous(), qparams)


def pack_nibbles(values: Tensor, order: Sequence[int] = AWQ_ORDER) -> Tensor:
    """Packs (rows, columns) uint8 in 0..15 into (rows, columns / 8) int32.

    Args:
        values: The values.
        order: The column, of each eight, that goes into each nibble, the lowest first.

    Raises:
        ValueError: The number of columns is not a multiple of 8.
    """
    if values.shape[1] % 8:
        raise ValueError(f"output width {values.shape[1]} is not a multiple of 8, which the layout needs")
    eights = values.reshape(values.shape[0], -1, 8).to(torch.int64)
    packed = torch.zeros(eights.shape[:2], dtype=torch.int64, device=values.device)
    for nibble, channel in enumerate(order):
        packed |= eights[..., channel] << (4 * nibble)
    return packed.to(torch.int32)


def unpack_nibbles(packed: Tensor) -> Tensor:
    """Unpacks (rows, columns / 8) int32; the exact inverse of `pack_nibbles`."""
    values = torch.empty(*packed.shape, 8, dtype=torch.uint8, device=packed.device)
    for nibble, channel in enumerate(AWQ_ORDER):
        values[..., channel] = ((packed >> (4 * nibble)) & QMAX).to(torch.uint8)
    return values.reshape(packed.shape[0], -1)
