"""Keeps the scales of quantized weights in float16's range.

Scales are stored in float16, which ends at 65504 and has few digits below 6e-5. A weight whose scales lie outside comes
back as zeros or clipped. Where the operation before it can be multiplied by what the weight is divided by, a power of
two moves from one to the other: the function stays the same to the bit, and both have scales in range.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...models.base.family import Fold
from ...numerics.affine import scales_fit_fp16, to_groups
from ...numerics.quant_spec import QuantSpec
from ...recipes.schema import Scheme
from ..plan import QuantBlock
from .fp16_range import AbsMaxByModule
from .scale_folding import Weights, find_layout, fold_scale

TYPICAL_SCALE = 2.0**-10  # what the scales of a linear after a norm are moved to


def fits_fp16(weight: Tensor, spec: QuantSpec, shift: int = 0) -> bool:
    """Whether float16 holds the scales of a weight (out, in) that are not negligible.

    Args:
        shift: The weight is divided by 2 to this power when it is stored.
    """
    return scales_fit_fp16(_group_scales(weight, spec), shift)


def balance_weights(
    weights: Weights,
    block: QuantBlock,
    config: dict[str, Any],
    scheme: Scheme,
    storage_dtypes: Mapping[str, torch.dtype],
) -> dict[str, int]:
    """Moves powers of two between the operations of a block, in place, where that brings scales into range.

    Args:
        weights: The block's parameters; those that are scaled are replaced.
        config: The component's config.json.
        scheme: The scheme whose scales are looked at.
        storage_dtypes: The dtype of each parameter in the checkpoint.

    Returns:
        The exponent k by whose power of two the output of each fold's `prev_op` was divided, by `prev_op`.
    """
    balance = _Balance(weights, block, config, scheme, storage_dtypes)
    movable = [fold for fold in block.spec.folds if fold.divides_one_output]
    norms = [fold for fold in movable if fold.kind == "norm"]
    rows = [fold for fold in movable if fold.kind == "rows"]
    # A norm makes up for what all its linears have in common, then pairs of linears for each other.
    for fold in (*(fold for fold in norms if not balance.count_fitting(weights, fold.linears)), *rows, *norms):
        balance.apply(fold)
    return balance.exponents


def shift_abs_max(abs_max: AbsMaxByModule, block: QuantBlock, exponents: Mapping[str, int]) -> dict[str, float]:
    """Returns the largest activations as they are once a block's weights are balanced."""
    shifts: dict[str, int] = {}
    for fold in block.spec.folds:
        names = (fold.prev_op, *(f"{linear}:in" for linear in fold.linears))
        shifts |= dict.fromkeys((f"{block.name}.{name}" for name in names), exponents.get(fold.prev_op, 0))
    return {name: peak / 2.0 ** shifts.get(name, 0) for name, peak in abs_max.items()}


@dataclass
class _Balance:
    """The powers of two moved in a block so far.

    Attributes:
        weights: The block's parameters as they are now.
        exponents: By the module that is divided.
    """

    weights: Weights
    block: QuantBlock
    config: dict[str, Any]
    scheme: Scheme
    storage_dtypes: Mapping[str, torch.dtype]
    exponents: dict[str, int] = field(default_factory=dict)

    def count_fitting(self, weights: Weights, linears: Sequence[str]) -> int:
        """The number of linears whose scales are in range."""
        named = (weights[f"{linear}.weight"] for linear in linears)
        return sum(fits_fp16(weight, self._spec(weight)) for weight in named)

    def apply(self, fold: Fold) -> None:
        """Moves the power of two with which most linears of a fold have scales in range, if it is more than without.

        Two linears that share a power of two must both be in range then.
        """
        linears = (*fold.linears, fold.prev_op) if fold.kind == "rows" else fold.linears
        count = self.count_fitting(self.weights, linears)
        if count == len(linears):
            return
        needed = len(linears) if fold.kind == "rows" else count + 1
        moves = [(exponent, self._move(fold, exponent)) for exponent in self._candidates(fold)]
        counts = [self.count_fitting(moved, linears) if moved else 0 for _, moved in moves]
        if max(counts, default=0) >= needed:
            exponent, moved = moves[counts.index(max(counts))]
            self.weights.update(moved)
            self.exponents[fold.prev_op] = self.exponents.get(fold.prev_op, 0) + exponent

    def _candidates(self, fold: Fold) -> list[int]:
        """The exponents that move scales to the middle of the range."""
        scales = [scale for linear in fold.linears if (scale := self._typical_scale(linear))]
        if fold.kind == "norm":
            return [round(math.log2(TYPICAL_SCALE / scale)) for scale in scales]
        before = self._typical_scale(fold.prev_op)
        return [round(math.log2(before / scale) / 2) for scale in scales] if before else []

    def _typical_scale(self, linear: str) -> float:
        """The median scale of a linear but for groups of zeros; 0 if there are only zeros."""
        weight = self.weights[f"{linear}.weight"]
        scales = _group_scales(weight, self._spec(weight))
        return float(scales[scales > 0].median()) if (scales > 0).any() else 0.0

    def _spec(self, weight: Tensor) -> QuantSpec:
        return self.scheme.to_spec(weight.shape[1])

    def _move(self, fold: Fold, exponent: int) -> Weights:
        """The parameters that change with a power of two; none if `prev_op` cannot be divided by it exactly."""
        name = f"{fold.prev_op}.weight"
        names = {name, f"{fold.prev_op}.bias", *(f"{linear}.weight" for linear in fold.linears)} & self.weights.keys()
        moved = {key: self.weights[key].float() for key in sorted(names)}
        read = moved[f"{fold.linears[0]}.weight"]
        layout = find_layout(fold, self.config, read.shape[1]).to(read.device)
        scale = read.new_full((len(layout.rows),), 2.0**exponent)
        folded = fold_scale(moved, fold, scale, layout, self.storage_dtypes[name])
        exact = torch.equal(folded, scale) and all(bool(tensor.isfinite().all()) for tensor in moved.values())
        return self.weights | moved if exact else {}


def _group_scales(weight: Tensor, spec: QuantSpec) -> Tensor:
    """The exact scale of each group, as an asymmetric format has it, (out, groups) float32."""
    groups = to_groups(weight, spec.group_size)
    low, high = groups.amin(-1).float().clamp(max=0), groups.amax(-1).float().clamp(min=0)
    scales: Tensor = (high - low) / (2**spec.bits - 1)
    return scales
