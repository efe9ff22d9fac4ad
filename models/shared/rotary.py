"""Rotary position embedding without complex numbers, which ONNX lacks."""

from __future__ import annotations

from torch import Tensor
from torch.onnx.ops import rotary_embedding


def apply_rotary_embedding(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates neighbouring channels in pairs by the angles of their tokens, in float32.

    Args:
        x: Queries or keys, (1, tokens, heads, head size).
        cos: Cosines, (tokens, head size / 2).
        sin: Sines, (tokens, head size / 2).

    Returns:
        The rotated tensor, of the shape and dtype of `x`.
    """
    heads = x.shape[2]
    rows: Tensor = rotary_embedding(x.flatten(2).float(), cos[None], sin[None], interleaved=True, num_heads=heads)
    output: Tensor = rows.unflatten(-1, (heads, -1))
    return output.to(x.dtype)
