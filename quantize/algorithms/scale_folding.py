"""Folds a scale: it leaves the inputs of some linears and enters the module before them. The output does not change."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...models.base.family import Fold

Weights = dict[str, Tensor]  # by the parameter's name within the block


def channel_map(fold: Fold, config: dict[str, Any], width: int) -> Tensor:
    """Return, for each of `width` inputs of the fold's linears, the output channel of `prev_op` it reads, (width,)."""
    if fold.gqa_config_keys is None:
        return torch.arange(width)
    sections = config.get("text_config") or {}  # of a model that also reads images
    heads, kv_heads = (int(config.get(key) or sections[key]) for key in fold.gqa_config_keys)
    size = width // heads
    head = torch.arange(heads) // (heads // kv_heads)
    return (head[:, None] * size + torch.arange(size)).reshape(-1)


def fold_scale(weights: Weights, fold: Fold, scale: Tensor, channel: Tensor, storage_dtype: torch.dtype) -> Tensor:
    """Divides `prev_op` by a scale and multiplies the input columns of the fold's linears by it, in place.

    A norm is stored in `storage_dtype`, and rounding it there changes the scale slightly. The columns are multiplied by
    what the norm was really divided by, so that the output is exact, but for a bias, which is rounded when it is
    stored.

    Args:
        weights: The block's parameters, (out, in) for linears; those that the fold touches are replaced.
        scale: (channels,) of `prev_op`.
        channel: The channel that each input of the linears reads, (in,).

    Returns:
        The scale that was really folded, (channels,).
    """
    name = f"{fold.prev_op}.weight"
    weight = weights[name]
    if fold.kind == "norm":
        divided = (weight / scale).to(storage_dtype).float()
        scale = torch.where(divided != 0, weight / divided, torch.ones_like(scale))
        weights[name] = torch.where(scale == 1, weight, divided)
    else:
        weights[name] = weight / scale[:, None]
    bias = f"{fold.prev_op}.bias"
    if bias in weights:
        weights[bias] = weights[bias] / scale
    for linear in fold.linears:
        weights[f"{linear}.weight"] = weights[f"{linear}.weight"] * scale[channel]
    return scale
