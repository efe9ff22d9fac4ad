"""Folds a scale: it leaves the inputs of some linears and enters the module before them. The output does not change."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from ...models.base.family import NOT_SCALED, Fold

Weights = dict[str, Tensor]  # by the parameter's name within the block


@dataclass(frozen=True)
class ScaleLayout:
    """Where the values of a fold's scale go.

    Attributes:
        rows: The output channel of `prev_op` that each value divides, (channels,).
        channel: The value that each input of the linears is multiplied by, (in,); NOT_SCALED if by none.
    """

    rows: Tensor
    channel: Tensor

    @property
    def is_scaled(self) -> Tensor:
        """Which inputs are multiplied, (in,) bool."""
        return self.channel != NOT_SCALED

    def to(self, device: torch.device) -> ScaleLayout:
        """Returns the same layout on a device."""
        return ScaleLayout(self.rows.to(device), self.channel.to(device))

    def expand(self, scale: Tensor) -> Tensor:
        """Returns what each input is multiplied by, (in,), of a scale (channels,)."""
        return torch.where(self.is_scaled, scale[self.channel.clamp(min=0)], scale.new_ones(()))


def find_layout(fold: Fold, config: dict[str, Any], width: int) -> ScaleLayout:
    """Finds where the values of a fold's scale go.

    Args:
        fold: The fold.
        config: The component's config.json.
        width: Number of inputs of the fold's linears.
    """
    if fold.channels:
        module, _, name = fold.channels.partition(":")
        read = torch.tensor(getattr(import_module(module), name)(config, width))
        rows, channel = read[read != NOT_SCALED].unique(return_inverse=True)
        return ScaleLayout(rows, torch.full_like(read, NOT_SCALED).masked_scatter(read != NOT_SCALED, channel))
    if fold.gqa_config_keys is None:
        return ScaleLayout(torch.arange(width), torch.arange(width))
    sections = config.get("text_config") or {}  # of a model that also reads images
    heads, kv_heads = (int(config.get(key) or sections[key]) for key in fold.gqa_config_keys)
    size = width // heads
    head = torch.arange(heads) // (heads // kv_heads)
    return ScaleLayout(torch.arange(kv_heads * size), (head[:, None] * size + torch.arange(size)).reshape(-1))


def fold_scale(weights: Weights, fold: Fold, scale: Tensor, layout: ScaleLayout, storage_dtype: torch.dtype) -> Tensor:
    """Divides `prev_op` by a scale and multiplies the input columns of the fold's linears by it, in place.

    A norm is stored in `storage_dtype`, and rounding it there changes the scale slightly. The columns are multiplied by
    what the norm was really divided by, so that the output is exact, but for a bias, which is rounded when it is
    stored.

    Args:
        weights: The block's parameters, (out, in) for linears; those that the fold touches are replaced.
        fold: The fold.
        scale: (channels,)
        layout: Where its values go.
        storage_dtype: Of a norm.

    Returns:
        The scale that was really folded, (channels,).
    """
    if fold.kind == "norm":
        scale = _divide_norm(weights, fold.prev_op, scale, storage_dtype)
    else:
        for prev_op in fold.prev_ops:
            _divide_rows(weights, prev_op, scale, layout.rows)
    for linears in fold.readers:
        for linear in linears:
            weights[f"{linear}.weight"] = weights[f"{linear}.weight"] * layout.expand(scale)
    return scale


def _divide_norm(weights: Weights, norm: str, scale: Tensor, storage_dtype: torch.dtype) -> Tensor:
    """Divides a norm; returns what it was really divided by, (channels,)."""
    weight, bias = weights[f"{norm}.weight"], f"{norm}.bias"
    divided = (weight / scale).to(storage_dtype).float()
    scale = torch.where(divided != 0, weight / divided, torch.ones_like(scale))
    weights[f"{norm}.weight"] = torch.where(scale == 1, weight, divided)
    if bias in weights:
        weights[bias] = weights[bias] / scale
    return scale


def _divide_rows(weights: Weights, linear: str, scale: Tensor, rows: Tensor) -> None:
    """Divides some outputs of a linear, whose indices are `rows`, (channels,)."""
    divisor = torch.ones(len(weights[f"{linear}.weight"]), device=scale.device).index_copy_(0, rows, scale.float())
    weights[f"{linear}.weight"] = weights[f"{linear}.weight"] / divisor[:, None]
    if (bias := f"{linear}.bias") in weights:
        weights[bias] = weights[bias] / divisor
