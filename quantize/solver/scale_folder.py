"""Searches the scales of a block's folds, and folds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...models.base.family import Fold
from ...recipes.schema import Scheme
from ..algorithms.activation_rounding import CalibrationActivations
from ..algorithms.awq import LinearInput, search_scale
from ..algorithms.scale_folding import ScaleLayout, Weights, find_layout, fold_scale
from ..algorithms.smoothquant import search_smoothquant_scale


@dataclass(frozen=True)
class ScaleFolder:
    """Searches and folds scales. Inputs are given in the order of the fold's readers.

    Attributes:
        config: The component's config.json.
        storage_dtypes: The dtype of each of the block's parameters in the checkpoint.
    """

    config: dict[str, Any]
    storage_dtypes: Mapping[str, torch.dtype]

    def fold_awq(self, weights: Weights, fold: Fold, inputs: Sequence[tuple[Tensor, Tensor]], scheme: Scheme) -> Tensor:
        """Searches and folds AWQ's scale.

        Args:
            weights: The block's parameters; those that the fold touches are replaced.
            fold: The fold.
            inputs: H, (in, in), and mean |x| of each channel, (in,), of each input.
            scheme: The format.

        Returns:
            The scale of each input channel, (in,).
        """
        width = len(inputs[0][1])
        layout = find_layout(fold, self.config, width).to(inputs[0][1].device)
        linears = (_read_weights(weights, names) for names in fold.readers)
        best = search_scale(
            [LinearInput(read, *statistics) for read, statistics in zip(linears, inputs, strict=True)],
            scheme.to_spec(width),
            layout,
        )
        return self._fold(weights, fold, best, layout)

    def fold_smoothquant(
        self, weights: Weights, fold: Fold, inputs: Sequence[CalibrationActivations], scheme: Scheme
    ) -> Tensor:
        """Searches and folds SmoothQuant's scale.

        Args:
            weights: The block's parameters; those that the fold touches are replaced.
            fold: The fold.
            inputs: Tokens of each input.
            scheme: The format.

        Returns:
            The scale of each input channel, (in,).
        """
        width = len(inputs[0].abs_max)
        layout = find_layout(fold, self.config, width).to(inputs[0].abs_max.device)
        linears = (_read_weights(weights, names) for names in fold.readers)
        best = search_smoothquant_scale(list(zip(linears, inputs, strict=True)), scheme.to_spec(width), layout)
        return self._fold(weights, fold, best, layout)

    def _fold(self, weights: Weights, fold: Fold, scale: Tensor, layout: ScaleLayout) -> Tensor:
        return layout.expand(fold_scale(weights, fold, scale, layout, self.storage_dtypes[f"{fold.prev_op}.weight"]))


def _read_weights(weights: Weights, linears: Sequence[str]) -> list[Tensor]:
    """Returns the weights of some linears, each (out, in) float32."""
    return [weights[f"{linear}.weight"].float() for linear in linears]
