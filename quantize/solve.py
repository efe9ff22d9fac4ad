"""Solving one block, a pure function: (weights, statistics, scheme, method) -> codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..grid import Codes, Grid, dequantize, grid_for, quantize
from ..int4 import pack_awq
from ..recipe import Quantization
from .awq import round_to_nearest, search_clip, search_scale
from .calibrate import Table
from .fold import Weights, apply_fold, channel_map
from .plan import ComponentPlan, Unit
from .statistics import relative_error


@dataclass(frozen=True)
class LayerReport:
    """What one linear lost: mean squared output error over mean squared output, by rounding alone and as solved."""

    layer: str
    rtn_error: float
    error: float
    weights: int


@dataclass(frozen=True)
class Solution:
    """A solved block: the tensors that replace its parameters, by full name, and a report for each linear."""

    tensors: dict[str, Tensor]
    layers: tuple[LayerReport, ...]


def solve(component: ComponentPlan, unit: Unit, table: Table, quantization: Quantization) -> Solution:
    """Folds, clips and rounds the linears of one block."""
    weights, stored = _load(component, unit)
    original = dict(weights)
    scales = _fold_all(weights, component, unit, table, quantization, stored)
    tensors = {
        f"{unit.path}.{name}": tensor.to(stored[name])
        for name, tensor in weights.items()
        if name.removesuffix(".weight") not in unit.block.linears
    }
    reports = []
    for fold in unit.block.folds:
        gram = table[f"{component.name}.{unit.input_of(fold)}"].mean_gram()
        scale = scales[fold.source]
        scaled_gram = gram / scale / scale[:, None]
        for linear in fold.into:
            weight = weights[f"{linear}.weight"]
            codes = quantize(weight, _grid(weight, scaled_gram, quantization))
            tensors |= _packed(f"{unit.path}.{linear}", codes)
            error = relative_error(dequantize(codes) - weight, weight, scaled_gram)
            before = original[f"{linear}.weight"]
            rounded = round_to_nearest(before, quantization.scheme)
            rtn = relative_error(rounded - before, before, gram)
            reports.append(LayerReport(f"{unit.name}.{linear}", rtn, error, weight.numel()))
    return Solution(tensors, tuple(reports))


def _load(component: ComponentPlan, unit: Unit) -> tuple[Weights, dict[str, torch.dtype]]:
    """The parameters that the block's folds touch, in float32, and the dtypes in which they are stored."""
    modules = {*unit.block.linears, *(fold.source for fold in unit.block.folds)}
    names = [f"{module}.{kind}" for module in sorted(modules) for kind in ("weight", "bias")]
    found = {name: component.checkpoint.tensor(f"{unit.path}.{name}") for name in names if _has(component, unit, name)}
    return {name: tensor.float() for name, tensor in found.items()}, {name: t.dtype for name, t in found.items()}


def _has(component: ComponentPlan, unit: Unit, name: str) -> bool:
    return f"{unit.path}.{name}" in component.checkpoint


def _fold_all(
    weights: Weights,
    component: ComponentPlan,
    unit: Unit,
    table: Table,
    quantization: Quantization,
    stored: dict[str, torch.dtype],
) -> dict[str, Tensor]:
    """Searches and folds a scale for each fold, in order; returns each source's input scale, (in,)."""
    scales = {}
    for fold in unit.block.folds:
        statistics = table[f"{component.name}.{unit.input_of(fold)}"]
        channel = channel_map(fold, component.config, len(statistics.magnitude))
        if quantization.method == "rtn":
            scales[fold.source] = torch.ones(len(channel))
            continue
        readers = [weights[f"{linear}.weight"] for linear in fold.into]
        found = search_scale(readers, statistics.mean_gram(), statistics.mean_magnitude(), quantization.scheme, channel)
        scales[fold.source] = apply_fold(weights, fold, found, channel, stored[f"{fold.source}.weight"])[channel]
    return scales


def _grid(weight: Tensor, gram: Tensor, quantization: Quantization) -> Grid:
    if quantization.method == "rtn":
        return grid_for(weight, quantization.scheme.group_size, quantization.scheme.zero_point)
    return search_clip(weight, gram, quantization.scheme)


def _packed(path: str, codes: Codes) -> dict[str, Any]:
    return {f"{path}.{kind}": tensor for kind, tensor in pack_awq(codes)._asdict().items()}
