"""The ladder: rounding alone, then one step after another, each kept for an output only where it loses less there.

| step  | what it does                                                                             | where        |
| ----- | ---------------------------------------------------------------------------------------- | ------------ |
| scale | AWQ: input channels that matter are scaled up before rounding (folded, so a block's own) | awq, solve   |
| clip  | AWQ: each group's largest |w| clipped                                                    | awq          |
| range | each group's range shortened where errors, weighed by H, say so                          | ranges       |
| gptq  | rounding with error feedback, on the grids as they are                                   | gptq         |
| refit | scales by least squares, then codes one by one, each a step down                         | refit        |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ...common.memory import malloc_trim
from ...numerics.affine import QParams, QuantizedWeight
from ...recipes.schema import Scheme, Step
from ..algorithms.awq import is_clippable, search_clip
from ..algorithms.gptq import LdlFactor, add_damping, gptq_quantize, ldl_factorize
from ..algorithms.range_search import group_grid, search_clip_range
from ..algorithms.rounding import Rounded, nearest, stacked, value_of
from ..algorithms.scale_refit import refit_scales
from ..calibration.statistics import output_errors

MAX_OUTPUTS = 4096  # of a weight, worked on at once: memory does not grow with the layer's height


@dataclass(frozen=True)
class LayerInput:
    """What one or more linears read: H (in, in) float32, and what is made of it once for all of them.

    products: the dtype of large products, float32 or, several times as fast where the processor has it, bfloat16.
    """

    hessian: Tensor
    scheme: Scheme
    matmul_dtype: torch.dtype = torch.float32

    @property
    def group_size(self) -> int:
        return self.scheme.resolve_group_size(len(self.hessian))

    @cached_property
    def hessian_lp(self) -> Tensor:
        """H in the dtype of products."""
        return self.hessian.to(self.matmul_dtype)

    @cached_property
    def damped_hessian(self) -> Tensor:
        return add_damping(self.hessian)

    @cached_property
    def factor(self) -> LdlFactor:
        return ldl_factorize(self.damped_hessian, self.group_size, self.matmul_dtype)


@dataclass
class LayerResult:
    """A quantized linear: its codes, and the output error (mean squared, absolute) after each step."""

    quantized: QuantizedWeight
    output_power: float
    errors: dict[str, float] = field(default_factory=dict)


def quantize_layer(linear: str, weight: Tensor, layer_input: LayerInput, steps: Sequence[Step]) -> LayerResult:
    """Quantizes a weight (out, in) of the linear with that name, by rounding and then the steps."""
    parts = [_climb_part(linear, part.float().T.contiguous(), layer_input, steps) for part in weight.split(MAX_OUTPUTS)]
    malloc_trim()
    grids = [codes.qparams for codes, _, _ in parts]
    grid = QParams(torch.cat([g.scales for g in grids]), torch.cat([g.zero_points for g in grids]), *grids[0][2:])
    errors = {name: sum(part[name] for _, _, part in parts) for name in parts[0][2]}
    return LayerResult(
        QuantizedWeight(torch.cat([codes.codes for codes, _, _ in parts]), grid), sum(p for _, p, _ in parts), errors
    )


def _climb_part(
    linear: str, weight: Tensor, source: LayerInput, steps: Sequence[Step]
) -> tuple[QuantizedWeight, float, dict[str, float]]:
    """Some outputs of a linear, (in, out): codes, output power, and the error after each step."""
    best = _round(weight, source)
    least = _errors(weight, best, source)
    errors = {"rtn": float(least.sum())}
    for step in steps:
        if step == "scale" or (step == "clip" and not is_clippable(linear)):
            continue
        tried = _take(step, weight, best, source)
        found = _errors(weight, tried, source)
        best = _choose(found < least, tried, best)
        least = torch.where(found < least, found, least)
        errors[step] = float(least.sum())
    codes = QuantizedWeight(
        best.codes.T.contiguous(), best.grid._replace(scales=best.grid.scales.T, zeros=best.grid.zero_points.T)
    )
    return codes, float(output_errors(weight, source.hessian_lp).sum()), errors


def _take(step: Step, weight: Tensor, best: Rounded, source: LayerInput) -> Rounded:
    """One step up from the best so far."""
    scheme, size = source.scheme, source.group_size
    if step == "clip":
        grid = search_clip(weight.T, source.hessian, scheme)
        return nearest(weight, grid._replace(scales=grid.scales.T, zeros=grid.zero_points.T))
    if step == "range":
        starts = range(0, len(weight), size)
        blocks = [source.damped_hessian[start : start + size, start : start + size] for start in starts]
        grids = [
            search_clip_range(weight[s : s + size], block, scheme) for s, block in zip(starts, blocks, strict=True)
        ]
        return nearest(weight, stacked(grids))
    if step == "gptq":
        return gptq_quantize(weight, source.factor, best.grid)
    return refit_scales(weight, best, source.damped_hessian, source.matmul_dtype)


def _round(weight: Tensor, source: LayerInput) -> Rounded:
    """Rounding alone, on min-max grids."""
    return nearest(weight, stacked([group_grid(part, source.scheme) for part in weight.split(source.group_size)]))


def _errors(weight: Tensor, rounded: Rounded, source: LayerInput) -> Tensor:
    return output_errors(value_of(rounded).sub_(weight), source.hessian_lp)


def _choose(better: Tensor, new: Rounded, old: Rounded) -> Rounded:
    """Output by output the new one where it is better, (out,) bool."""
    scales, zeros = (torch.where(better, a, b) for a, b in zip(new.grid[:2], old.grid[:2], strict=True))
    grid = new.grid._replace(scales=scales, zeros=zeros)
    return Rounded(torch.where(better, new.codes, old.codes), grid)
