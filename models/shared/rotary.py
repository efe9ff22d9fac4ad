"""Rotary embedding without complex numbers, which ONNX does not have; several families' transformers turn so."""

from __future__ import annotations

from torch import Tensor
from torch.onnx.ops import rotary_embedding


def apply_rotary_embedding(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Neighbouring channels of x (1, tokens, heads, head size), turned in pairs by their token's angle, in float32.

    Args:
        cos, sin: (tokens, head size / 2).
    """
    heads = x.shape[2]
    rows: Tensor = rotary_embedding(x.flatten(2).float(), cos[None], sin[None], interleaved=True, num_heads=heads)
    turned: Tensor = rows.unflatten(-1, (heads, -1))
    return turned.to(x.dtype)
