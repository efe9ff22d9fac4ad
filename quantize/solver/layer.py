"""Quantizes one linear: round to nearest, then improve step by step.

The result of a step replaces an output's weights only where it lowers that output's error. In large layers, whose
errors take longer to compute than codes, GPTQ is judged by every eighth output and taken for all of them or for none.

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

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ...common.memory import trim_after
from ...numerics.affine import QParams, QuantizedWeight, dequantize, minmax_qparams, quantize
from ...numerics.quant_spec import QuantSpec
from ...recipes.schema import Step
from ..algorithms.awq import is_clippable, search_clip
from ..algorithms.gptq import DAMPING, LdlFactor, add_damping, compute_damping, gptq_quantize, ldl_factorize
from ..algorithms.range_search import search_clip_range
from ..algorithms.scale_refit import refit_scales
from ..calibration.statistics import output_errors
from ..threads import single_threaded, single_threaded_pool

# Outputs quantized at once, by one thread: the results then do not depend on the number of threads, and memory does not
# grow with the layer's height. Fewer would let Python's work for a channel take longer than the channel.
MAX_OUTPUTS = 1280
MAX_SLICE = 640 * 10240  # weights: slices of wide layers have fewer outputs, which bounds the memory of a thread
MAX_THREADS = 16  # each takes the memory of a slice
LARGE_LAYER = 2**22  # weights; of layers with more, errors of some outputs stand for those of all
ESTIMATED_STEPS = {"scale", "gptq"}  # others lower the errors of some outputs only, by which they are taken
JUDGED_STRIDE = 8  # one of so many outputs of a large layer is judged
PRECISE_SHARE = 0.01  # of an error with damping; less of it drowns in the rounding of what damping adds


@dataclass(frozen=True)
class LayerInput:
    """What one or more linears read, and what all of them share of it.

    Attributes:
        hessian: H, the mean of x x^T, (in, in) float32.
        spec: The integer format of the linears' weights.
        matmul_dtype: The dtype of large matrix products: float32, or bfloat16, which some processors multiply several
            times as fast.
        damping: What is added to H's diagonal while solving, as a share of its mean. Errors are those of H itself.
        factors: The factors of damped H so far, by group size and damping; what has the same H may share them.
    """

    hessian: Tensor
    spec: QuantSpec
    matmul_dtype: torch.dtype = torch.float32
    damping: float = DAMPING
    factors: dict[tuple[int, float], LdlFactor] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def hessian_lp(self) -> Tensor:
        """H in the dtype of large matrix products."""
        return self.hessian.to(self.matmul_dtype)

    @cached_property
    def damped_hessian(self) -> Tensor:
        return add_damping(self.hessian, self.damping)

    @property
    def factor(self) -> LdlFactor:
        key = (self.spec.group_size, self.damping)
        if key not in self.factors:
            damping = compute_damping(self.hessian, self.damping)
            self.factors[key] = ldl_factorize(self.hessian, self.spec.group_size, self.matmul_dtype, damping)
        return self.factors[key]

    def prepare(self, steps: Sequence[Step]) -> None:
        """Computes what steps share, before several threads ask for it."""
        _ = self.hessian_lp
        if {"gptq", "reround"} & set(steps):
            _ = self.factor
        if {"range_search", "scale_refit", "reround"} & set(steps):
            _ = self.damped_hessian


@dataclass
class LayerResult:
    """A quantized linear.

    Attributes:
        quantized: The codes and their parameters.
        output_power: Mean squared output of the original weight, summed over outputs.
        errors: Mean squared output error after each step, summed over outputs. `rtn` is rounding to nearest. In large
            layers that at most GPTQ is applied to, power and errors are those of every eighth output times eight.
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
    layer_input.prepare(steps)
    is_estimated = weight.numel() > LARGE_LAYER and ESTIMATED_STEPS.issuperset(steps)
    stride = JUDGED_STRIDE if is_estimated else 1
    with single_threaded() as num_threads:
        slices = _map(
            lambda rows: _quantize_outputs(name, rows, layer_input, steps, slice(None, None, stride)),
            weight.chunk(_count_slices(weight)),
            num_threads,
        )
    trim_after(weight.nbytes)
    errors = {step: sum(part.errors[step] for part in slices) for step in slices[0].errors}
    return LayerResult(_concatenate([part.quantized for part in slices]), sum(p.output_power for p in slices), errors)


def _count_slices(weight: Tensor) -> int:
    """Returns how many slices outputs are quantized in: an even number of them, so that two cores end together.

    A GPU, which computes all outputs at once, gets a single one.
    """
    outputs = min(MAX_OUTPUTS, max(MAX_SLICE // weight.shape[1], 1))
    is_single = len(weight) <= outputs // 2 or weight.device.type != "cpu"
    return 1 if is_single else 2 * -(-len(weight) // (2 * outputs))


def _map(function: Callable[[Tensor], LayerResult], parts: Sequence[Tensor], num_threads: int) -> list[LayerResult]:
    """Applies a function to parts of a weight, in threads unless one is enough: starting one takes a millisecond."""
    if min(len(parts), num_threads) == 1:
        return [function(part) for part in parts]
    with single_threaded_pool(min(num_threads, MAX_THREADS)) as pool:
        return list(pool.map(function, parts))


def _store_by_channel(weight: Tensor) -> Tensor:
    """Returns the same (out, in) float32 values, stored so that each input channel is contiguous."""
    return weight.float().T.contiguous().T


def _quantize_outputs(
    name: str, weight: Tensor, layer_input: LayerInput, steps: Sequence[Step], judged: slice
) -> LayerResult:
    """Quantizes some outputs of a linear, (out, in), of which those that are judged stand for all."""
    weight = _store_by_channel(weight)
    best = quantize(weight, minmax_qparams(weight, layer_input.spec))
    least = _compute_errors(weight, best, layer_input, judged)
    share = len(least) / len(weight)
    errors = {"rtn": float(least.sum()) / share}
    for step in steps:
        if step == "scale" or (step == "clip" and not is_clippable(name)):
            continue
        candidate, candidate_errors = _apply_step(step, weight, best, layer_input, judged)
        better = candidate_errors < least if share == 1 else (candidate_errors.sum() < least.sum()).expand(len(weight))
        best = _select_better(better, candidate, best)
        least = torch.where(better[judged], candidate_errors, least)
        errors[step] = float(least.sum()) / share
    power = output_errors(_store_by_channel(weight[judged]), layer_input.hessian_lp).sum()
    return LayerResult(best, float(power) / share, errors)


def _apply_step(
    step: Step, weight: Tensor, best: QuantizedWeight, layer_input: LayerInput, judged: slice
) -> tuple[QuantizedWeight, Tensor]:
    """Returns what a step makes of a weight (out, in), and the error of each output that is judged."""
    if step == "gptq":
        return _round_with_feedback(weight, best.qparams, layer_input, judged)
    if step == "clip":
        candidate = quantize(weight, search_clip(weight, layer_input.hessian, layer_input.spec))
    elif step == "range_search":
        candidate = quantize(weight, search_clip_range(weight, layer_input.damped_hessian, layer_input.spec))
    else:
        if step == "reround":
            best = gptq_quantize(weight, layer_input.factor, best.qparams).quantized
        candidate = refit_scales(weight, best, layer_input.damped_hessian, layer_input.matmul_dtype)
    return candidate, _compute_errors(weight, candidate, layer_input, judged)


def _round_with_feedback(
    weight: Tensor, qparams: QParams, layer_input: LayerInput, judged: slice
) -> tuple[QuantizedWeight, Tensor]:
    """Rounds a weight (out, in) with GPTQ, and takes the damping out of the errors of the outputs that are judged.

    Where little is left of an error then, it is computed from the weight instead.
    """
    factor = layer_input.factor
    quantized, damped_errors, squared_errors = gptq_quantize(weight, factor, qparams)
    damped_errors = damped_errors[judged]
    errors = damped_errors - factor.damping * squared_errors[judged]
    imprecise = (errors < PRECISE_SHARE * damped_errors).nonzero()[:, 0]
    if len(imprecise):
        outputs = torch.arange(len(weight), device=weight.device)[judged][imprecise]
        errors[imprecise] = _compute_errors(weight, quantized, layer_input, outputs)
    return quantized, errors


def _compute_errors(
    weight: Tensor, quantized: QuantizedWeight, layer_input: LayerInput, outputs: Tensor | slice
) -> Tensor:
    """Returns the errors of some outputs."""
    error = dequantize(quantized).sub_(weight)
    return output_errors(_store_by_channel(error[outputs]), layer_input.hessian_lp)


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
