"""Quantizes one linear: round to nearest, then improve step by step.

The result of a step replaces an output's weights only where it lowers that output's error.

| step         | what it does                                                                      | module            |
| ------------ | --------------------------------------------------------------------------------- | ----------------- |
| scale        | AWQ: scales up input channels that matter; folded, so it belongs to a whole block | awq, solver.block |
| clip         | AWQ: clips each group's largest weights                                           | awq               |
| range_search | clips each group's range where that lowers the error under H                      | range_search      |
| gptq         | rounds with error feedback, with scales and zero points as they are               | gptq              |
| scale_refit  | fits scales by least squares, then moves codes one by one                         | scale_refit       |
| reround      | rounds again with error feedback on the fitted scales, then fits them again       | gptq, scale_refit |

Weights are (out, in) for every step. Most steps walk through input channels, so from here on the weight is stored
channel by channel (a transposed view of a contiguous (in, out) tensor); no step copies it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ...common.memory import malloc_trim
from ...numerics.affine import QParams, QuantizedWeight, dequantize, minmax_qparams, quantize
from ...numerics.quant_spec import QuantSpec
from ...recipes.schema import Step
from ..algorithms.awq import is_clippable, search_clip
from ..algorithms.gptq import DAMPING, LdlFactor, add_damping, gptq_quantize, ldl_factorize
from ..algorithms.range_search import search_clip_range
from ..algorithms.scale_refit import refit_scales
from ..calibration.statistics import output_errors

MAX_OUTPUTS = 4096  # quantized at once, so that memory does not grow with the layer's height


@dataclass(frozen=True)
class LayerInput:
    """What one or more linears read, and what all of them share of it.

    Attributes:
        hessian: H, the mean of x x^T, (in, in) float32.
        spec: The integer format of the linears' weights.
        matmul_dtype: The dtype of large matrix products: float32, or bfloat16, which some processors multiply several
            times as fast.
        damping: What is added to H's diagonal while solving, as a share of its mean. Errors are those of H itself.
    """

    hessian: Tensor
    spec: QuantSpec
    matmul_dtype: torch.dtype = torch.float32
    damping: float = DAMPING

    @cached_property
    def hessian_lp(self) -> Tensor:
        """H in the dtype of large matrix products."""
        return self.hessian.to(self.matmul_dtype)

    @cached_property
    def damped_hessian(self) -> Tensor:
        return add_damping(self.hessian, self.damping)

    @cached_property
    def factor(self) -> LdlFactor:
        return ldl_factorize(self.damped_hessian, self.spec.group_size, self.matmul_dtype)


@dataclass
class LayerResult:
    """A quantized linear.

    Attributes:
        quantized: The codes and their parameters.
        output_power: Mean squared output of the original weight, summed over outputs.
        errors: Mean squared output error after each step, summed over outputs. `rtn` is rounding to nearest.
    """

    quantized: QuantizedWeight
    output_power: float
    errors: dict[str, float] = field(default_factory=dict)


def quantize_layer(name: str, weight: Tensor, layer_input: LayerInput, steps: Sequence[Step]) -> LayerResult:
    """Quantizes a weight (out, in).

    Args:
        name: The linear's name, from which AutoAWQ's rules decide whether it may be clipped.
        steps: Applied in this order after rounding to nearest. `scale` belongs to the block and is passed over.
    """
    slices = [
        _quantize_outputs(name, _store_by_channel(rows), layer_input, steps) for rows in weight.split(MAX_OUTPUTS)
    ]
    malloc_trim()
    errors = {step: sum(part.errors[step] for part in slices) for step in slices[0].errors}
    return LayerResult(_concatenate([part.quantized for part in slices]), sum(p.output_power for p in slices), errors)


def _store_by_channel(weight: Tensor) -> Tensor:
    """Returns the same (out, in) float32 values, stored so that each input channel is contiguous."""
    return weight.float().T.contiguous().T


def _quantize_outputs(name: str, weight: Tensor, layer_input: LayerInput, steps: Sequence[Step]) -> LayerResult:
    """Quantizes some outputs of a linear, (out, in)."""
    best = quantize(weight, minmax_qparams(weight, layer_input.spec))
    least = _compute_errors(weight, best, layer_input)
    errors = {"rtn": float(least.sum())}
    for step in steps:
        if step == "scale" or (step == "clip" and not is_clippable(name)):
            continue
        candidate = _apply_step(step, weight, best, layer_input)
        candidate_errors = _compute_errors(weight, candidate, layer_input)
        better = candidate_errors < least
        best = _select_better(better, candidate, best)
        least = torch.where(better, candidate_errors, least)
        errors[step] = float(least.sum())
    return LayerResult(best, float(output_errors(weight, layer_input.hessian_lp).sum()), errors)


def _apply_step(step: Step, weight: Tensor, best: QuantizedWeight, layer_input: LayerInput) -> QuantizedWeight:
    if step == "clip":
        return quantize(weight, search_clip(weight, layer_input.hessian, layer_input.spec))
    if step == "range_search":
        return quantize(weight, search_clip_range(weight, layer_input.damped_hessian, layer_input.spec))
    if step == "gptq":
        return gptq_quantize(weight, layer_input.factor, best.qparams)
    if step == "reround":
        best = gptq_quantize(weight, layer_input.factor, best.qparams)
    return refit_scales(weight, best, layer_input.damped_hessian, layer_input.matmul_dtype)


def _compute_errors(weight: Tensor, quantized: QuantizedWeight, layer_input: LayerInput) -> Tensor:
    return output_errors(dequantize(quantized).sub_(weight), layer_input.hessian_lp)


def _select_better(better: Tensor, new: QuantizedWeight, old: QuantizedWeight) -> QuantizedWeight:
    """Takes the new weight for the outputs where `better`, (out,) bool, is true."""
    mask = better[:, None]
    scales = torch.where(mask, new.qparams.scales, old.qparams.scales)
    zero_points = torch.where(mask, new.qparams.zero_points, old.qparams.zero_points)
    codes = torch.where(mask, new.codes, old.codes)
    return QuantizedWeight(codes, new.qparams._replace(scales=scales, zero_points=zero_points))


def _concatenate(slices: Sequence[QuantizedWeight]) -> QuantizedWeight:
    """Joins outputs; the result is stored output by output again, as `nn.Linear` stores its weight."""
    codes = torch.cat([part.codes.contiguous() for part in slices])
    scales = torch.cat([part.qparams.scales for part in slices]).contiguous()
    zero_points = torch.cat([part.qparams.zero_points for part in slices]).contiguous()
    return QuantizedWeight(codes, QParams(scales, zero_points, *slices[0].qparams[2:]))
