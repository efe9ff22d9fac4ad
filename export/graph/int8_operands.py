"""Linears of a solution (quantize.also) in 8 bits: their codes in ONNX's layouts, code for code, and in torch."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ZERO_POINT = 128  # the code that stands for 0


class Int8Tensors(NamedTuple):
    """A linear in 8 bits, a scale for each output: qweight uint8 (in, out), scales fp16 (1, out)."""

    qweight: Tensor
    scales: Tensor


def to_int8_operand(linear: Int8Tensors, kind: str) -> Tensor:
    """An operand of a product with 8-bit integers for the same weight, to the bit.

    qweight: int8 (in, out). scales: float32 (out,).
    """
    return _to_signed(linear.qweight) if kind == "qweight" else linear.scales.float().flatten()


def dequantize_int8(linear: Int8Tensors) -> Tensor:
    """The weight (out, in) float32 that the codes stand for."""
    return (_to_signed(linear.qweight).float() * linear.scales.float()).T


class Int8Linear(nn.Module):
    """A linear whose weight is dequantized as it is used; its inputs are not rounded."""

    qweight: Tensor
    scales: Tensor
    bias: Tensor | None

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.register_buffer("qweight", torch.zeros(inputs, outputs, dtype=torch.uint8))
        self.register_buffer("scales", torch.zeros(1, outputs, dtype=torch.float16))
        self.register_buffer("bias", torch.zeros(outputs) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, dequantize_int8(Int8Tensors(self.qweight, self.scales)), self.bias)


def _to_signed(codes: Tensor) -> Tensor:
    """Codes less 128 as int8: flipping the highest bit subtracts it."""
    return (codes ^ ZERO_POINT).view(torch.int8)
