"""INT8 linear layers of a solution: their tensors, their operands in ONNX, and a torch module for reference."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...numerics.quant_spec import GROUP_SIZES, require_group_size

ZERO_POINT = 128  # of unsigned codes


class Int8Tensors(NamedTuple):
    """An INT8 linear layer with one scale per output.

    Attributes:
        qweight: Codes, uint8 (in, out).
        scales: Scales, fp16 (1, out).
    """

    qweight: Tensor
    scales: Tensor


def to_int8_operand(linear: Int8Tensors, operand: str) -> Tensor:
    """Returns an operand of an int8 product that encodes the same weight exactly.

    Args:
        linear: The layer's tensors.
        operand: `qweight` for int8 (in, out), or `scales` for float32 (out,).
    """
    return _to_signed(linear.qweight) if operand == "qweight" else linear.scales.float().flatten()


def to_matmul_8bits_operand(linear: Int8Tensors, operand: str) -> Tensor:
    """Returns an operand of MatMulNBits with 8 bits that encodes the same weight exactly.

    Args:
        linear: The layer's tensors.
        operand: `qweight` for uint8 (out, blocks, block size), where 128 is zero, or `scales` for float32
            (out, blocks), which repeat that of the output.
    """
    inputs, outputs = linear.qweight.shape
    size = get_block_size(inputs)
    if operand == "scales":
        return linear.scales.float().T.expand(outputs, inputs // size).contiguous()
    return linear.qweight.T.reshape(outputs, inputs // size, size).contiguous()


def get_block_size(inputs: int) -> int:
    """Returns the number of inputs of a block of MatMulNBits, of which it wants a power of two, at least 16."""
    return require_group_size(GROUP_SIZES[0], inputs)


def dequantize_int8(linear: Int8Tensors) -> Tensor:
    """Returns the weight, float32 (out, in)."""
    return (_to_signed(linear.qweight).float() * linear.scales.float()).T


class Int8Linear(nn.Module):
    """A linear layer that dequantizes its INT8 weight on use. Activations stay floats.

    Args:
        inputs: Number of input channels.
        outputs: Number of output channels.
        bias: Whether there is a bias.
    """

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
    """Returns codes less 128 as int8; flipping the highest bit subtracts it."""
    return (codes ^ ZERO_POINT).view(torch.int8)
