"""Folding: a scale leaves the inputs of some linears and enters what comes before them; the output stays."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...models.base.family import Fold

Weights = dict[str, Tensor]  # parameter name, relative to the block -> tensor


def channel_map(fold: Fold, config: dict[str, Any], width: int) -> Tensor:
    """For each of `width` inputs of `fold.into`, the output channel of `fold.source` that feeds it, (width,)."""
    if fold.gqa_config_keys is None:
        return torch.arange(width)
    heads, shared = (int(config[key]) for key in fold.gqa_config_keys)
    size = width // heads
    head = torch.arange(heads) // (heads // shared)
    return (head[:, None] * size + torch.arange(size)).reshape(-1)


def fold_scale(weights: Weights, fold: Fold, scale: Tensor, channel: Tensor, storage_dtype: torch.dtype) -> Tensor:
    """Divides the source by `scale`, (channels,), and multiplies the readers' columns, in place.

    A norm is kept in the dtype `stored`, and rounding it there changes the scale a little; the columns are multiplied
    by what was really divided by, so that nothing is lost. Returns that scale, (channels,).
    """
    source = weights[f"{fold.prev_op}.weight"]
    if fold.kind == "norm":
        divided = (source / scale).to(storage_dtype).float()
        scale = torch.where(divided != 0, source / divided, torch.ones_like(scale))
        divided = torch.where(scale == 1, source, divided)
    else:
        divided = source / scale[:, None]
        _divide_bias(weights, fold, scale)
    weights[f"{fold.prev_op}.weight"] = divided
    for name in fold.linears:
        weights[f"{name}.weight"] = weights[f"{name}.weight"] * scale[channel]
    return scale


def _divide_bias(weights: Weights, fold: Fold, scale: Tensor) -> None:
    if f"{fold.prev_op}.bias" in weights:
        weights[f"{fold.prev_op}.bias"] = weights[f"{fold.prev_op}.bias"] / scale
