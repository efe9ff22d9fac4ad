"""Solving one block, a pure function: (weights, statistics, schemes, steps) -> codes.

All grids that a recipe asks for are solved from the same statistics: the main one, whose codes go into the model, and
further solutions by name. Where a scheme rounds activations too, smoothing takes the place of AWQ's scales, and a
linear that loses too much stays in floats, as it is after folding.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from ...models.base.family import Fold
from ...numerics.affine import QuantizedWeight, dequantize
from ...numerics.awq_packing import QMAX, pack_awq
from ...recipes.schema import PRIMARY, QuantizationSettings, Scheme, Step
from ..algorithms.activation_rounding import CalibrationActivations
from ..algorithms.awq import search_scale
from ..algorithms.fp16_range import cumulative_shifts, pow2_exponents
from ..algorithms.scale_folding import Weights, channel_map, fold_scale
from ..algorithms.smoothquant import search_smoothquant_scale
from ..plan import ComponentPlan, QuantBlock
from .layer import LayerInput, LayerResult, quantize_layer


class CalibrationSource(Protocol):
    """What solving needs of a calibration."""

    @property
    def abs_max_by_module(self) -> dict[str, float]: ...

    def mean_abs(self, name: str) -> Tensor: ...

    def hessian(self, unit: QuantBlock, name: str) -> Tensor: ...

    def abs_max(self, name: str) -> Tensor: ...

    def tokens(self, unit: QuantBlock, name: str) -> Tensor: ...


@dataclass(frozen=True)
class LayerStats:
    """What one linear lost: mean squared output error over mean squared output.

    rtn_error: by rounding alone. error: as solved. steps: after each step of the ladder. kept: it stays in floats,
    since rounding it and its inputs would cost `error`.
    """

    layer: str
    rtn_error: float
    error: float
    weights: int
    steps: dict[str, float] = field(default_factory=dict)
    stays_float: bool = False


@dataclass(frozen=True)
class BlockResult:
    """A solved block on one grid: the tensors that replace its parameters, by full name, and reports on its linears."""

    tensors: dict[str, Tensor]
    layers: tuple[LayerStats, ...]


def quantize_block(
    component: ComponentPlan,
    block: QuantBlock,
    calibration: CalibrationSource,
    quantization: QuantizationSettings,
    matmul_dtype: torch.dtype,
) -> dict[str, BlockResult]:
    """The block on every grid that the recipe asks for, the main one under MAIN.

    Args:
        products: the dtype of large products, as the reference computes in.
    """
    weights, stored = _load_weights(component, block)
    grams = {
        fold.prev_op: calibration.hessian(block, f"{component.name}.{block.input_module(fold)}")
        for fold in block.spec.folds
    }
    shifts = pow2_exponents(block, calibration.abs_max_by_module) if quantization.fp16_safe else {}
    schemes = {PRIMARY: quantization.scheme} | quantization.extra_schemes
    block = _BlockSolver(
        component, block, calibration, grams, stored, quantization.resolved_steps, shifts, matmul_dtype
    )
    return {name: block.solve(dict(weights), scheme) for name, scheme in schemes.items()}


@dataclass(frozen=True)
class _BlockSolver:
    """What all solutions of a block share. grams: H of each fold's input, by the fold's source."""

    component: ComponentPlan
    block: QuantBlock
    calibration: CalibrationSource
    hessians: dict[str, Tensor]
    storage_dtypes: dict[str, torch.dtype]
    steps: tuple[Step, ...]
    pow2_shifts: dict[str, int]
    matmul_dtype: torch.dtype

    def solve(self, weights: Weights, scheme: Scheme) -> BlockResult:
        return (
            self._solve_w8a8(weights, scheme)
            if scheme.quantizes_activations
            else self._solve_weight_only(weights, scheme)
        )

    def _solve_weight_only(self, weights: Weights, scheme: Scheme) -> BlockResult:
        """For products of codes with activations as they are."""
        original = dict(weights)
        scales = self._fold_all(weights, scheme) if "scale" in self.steps else {}
        tensors = self._unquantized(weights)
        reports = []
        for fold in self.block.spec.folds:
            source = LayerInput(
                _rescale_hessian(self.hessians[fold.prev_op], scales.get(fold.prev_op)), scheme, self.matmul_dtype
            )
            for linear in fold.linears:
                climbed = quantize_layer(linear, weights.pop(f"{linear}.weight"), source, self.steps)
                tensors |= self._packed_tensors(linear, climbed.quantized)
                if scales:
                    plain = LayerInput(self.hessians[fold.prev_op], scheme, self.matmul_dtype)
                    climbed = _merge_scaled_errors(
                        quantize_layer(linear, original[f"{linear}.weight"], plain, ()), climbed
                    )
                reports.append(_layer_stats(f"{self.block.name}.{linear}", climbed))
        return BlockResult(tensors, tuple(reports))

    def _solve_w8a8(self, weights: Weights, scheme: Scheme) -> BlockResult:
        """For products of codes with activations in 8 bits."""
        original = dict(weights)
        scales = self._smooth_all(weights, scheme)
        tensors, reports = self._unquantized(weights), []
        for fold in self.block.spec.folds:
            plain, scale = self._activations(fold, scheme), scales[fold.prev_op]
            inputs = plain.divide_by(scale)
            source = LayerInput(_rescale_hessian(self.hessians[fold.prev_op], scale), scheme, self.matmul_dtype)
            for linear in fold.linears:
                weight = weights.pop(f"{linear}.weight").float()
                codes = quantize_layer(
                    linear, weight, source, [step for step in self.steps if step != "scale"]
                ).quantized
                alone = plain.rtn_error(original[f"{linear}.weight"].float(), scheme)
                steps = {"rtn": alone, "smooth": inputs.rtn_error(weight, scheme)}
                error = inputs.output_error(weight, dequantize(codes))
                kept = error > scheme.max_output_error
                steps["solved"] = error
                reports.append(LayerStats(f"{self.block.name}.{linear}", alone, error, weight.numel(), steps, kept))
                tensors |= self._float_tensors(linear, weight) if kept else self._packed_tensors(linear, codes)
                if scheme.activations == "static" and not kept:
                    tensors[f"{self.block.path}.{linear}.input_scale"] = self._input_scale(linear, inputs)
        return BlockResult(tensors, tuple(reports))

    def _unquantized(self, weights: Weights) -> dict[str, Tensor]:
        """Norms and biases; a bias is divided as all that comes out of its linear is."""
        shared = cumulative_shifts(self.block, self.pow2_shifts)
        names = sorted(name for name in weights if name.removesuffix(".weight") not in self.block.spec.linears)
        found = {name: weights[name] * 2.0 ** -shared.get(name.removesuffix(".bias"), 0) for name in names}
        return {f"{self.block.path}.{name}": found[name].to(self.storage_dtypes[name]).clone() for name in names}

    def _fold_all(self, weights: Weights, scheme: Scheme) -> dict[str, Tensor]:
        """Searches and folds AWQ's scale for each fold, in order; returns each source's input scale, (in,)."""
        scales = {}
        for fold in self.block.spec.folds:
            magnitude = self.calibration.mean_abs(f"{self.component.name}.{self.block.input_module(fold)}")
            channel = channel_map(fold, self.component.config, len(magnitude))
            readers = [weights[f"{linear}.weight"].float() for linear in fold.linears]
            found = search_scale(readers, self.hessians[fold.prev_op], magnitude, scheme, channel)
            scale = fold_scale(weights, fold, found, channel, self.storage_dtypes[f"{fold.prev_op}.weight"])
            scales[fold.prev_op] = scale[channel]
        return scales

    def _smooth_all(self, weights: Weights, scheme: Scheme) -> dict[str, Tensor]:
        """Searches and folds a smoothing scale for each fold, in order; returns each source's input scale, (in,)."""
        scales = {}
        for fold in self.block.spec.folds:
            inputs = self._activations(fold, scheme)
            channel = channel_map(fold, self.component.config, len(inputs.abs_max))
            readers = [weights[f"{linear}.weight"].float() for linear in fold.linears]
            found = search_smoothquant_scale(readers, inputs, scheme, channel)
            scale = fold_scale(weights, fold, found, channel, self.storage_dtypes[f"{fold.prev_op}.weight"])
            scales[fold.prev_op] = scale[channel]
        return scales

    def _activations(self, fold: Fold, scheme: Scheme) -> CalibrationActivations:
        name = f"{self.component.name}.{self.block.input_module(fold)}"
        return CalibrationActivations(
            self.calibration.tokens(self.block, name).float(), self.calibration.abs_max(name), scheme.activations
        )

    def _float_tensors(self, linear: str, weight: Tensor) -> dict[str, Tensor]:
        """The weight of a linear that stays in floats, its rows divided by what keeps float16 from overflowing."""
        name = f"{linear}.weight"
        divided = weight * 2.0 ** -self.pow2_shifts.get(linear, 0)
        return {f"{self.block.path}.{name}": divided.to(self.storage_dtypes[name]).clone()}

    def _input_scale(self, linear: str, inputs: CalibrationActivations) -> Tensor:
        """The static scale of a linear's input, (), divided as that is by the linears before it."""
        before = cumulative_shifts(self.block, self.pow2_shifts).get(linear, 0) - self.pow2_shifts.get(linear, 0)
        return torch.tensor(inputs.scale * 2.0**-before)

    def _packed_tensors(self, linear: str, codes: QuantizedWeight) -> dict[str, Tensor]:
        """The tensors of a linear, its rows divided by what keeps float16 from overflowing."""
        scales = codes.qparams.scales * 2.0 ** -self.pow2_shifts.get(linear, 0)
        codes = codes._replace(grid=codes.qparams._replace(scales=scales))
        packed = pack_awq(codes)._asdict() if codes.qparams.qmax == QMAX else _pack_int8(codes)
        return {f"{self.block.path}.{linear}.{kind}": tensor for kind, tensor in packed.items()}


def _pack_int8(codes: QuantizedWeight) -> dict[str, Tensor]:
    """8-bit codes in the same arrangement, a byte each: qweight (in, out), qzeros and scales (groups, out)."""
    grid = codes.qparams
    tensors = {"qweight": codes.codes.T, "qzeros": grid.zero_points.T, "scales": grid.scales.T.half()}
    return {kind: tensor.contiguous() for kind, tensor in tensors.items()}


def _merge_scaled_errors(plain: LayerResult, scaled: LayerResult) -> LayerResult:
    """The scaled linear, with the errors of rounding it as it was before; both relative to their outputs."""
    share = scaled.output_power / plain.output_power if plain.output_power else 0.0
    errors = {"rtn": plain.errors["rtn"] * share, "scale": scaled.errors["rtn"]}
    return replace(scaled, errors=errors | {name: e for name, e in scaled.errors.items() if name != "rtn"})


def _layer_stats(layer: str, climbed: LayerResult) -> LayerStats:
    steps = {
        name: error / climbed.output_power if climbed.output_power else 0.0 for name, error in climbed.errors.items()
    }
    last = list(steps.values())[-1]
    return LayerStats(layer, steps["rtn"], last, climbed.quantized.codes.numel(), steps)


def _rescale_hessian(gram: Tensor, scale: Tensor | None) -> Tensor:
    """H of the input divided by a scale."""
    return gram if scale is None else gram / scale / scale[:, None]


def _load_weights(part: ComponentPlan, unit: QuantBlock) -> tuple[Weights, dict[str, torch.dtype]]:
    """The parameters that the block's folds touch, as stored, and their dtypes."""
    modules = {*unit.spec.linears, *(fold.prev_op for fold in unit.spec.folds)}
    names = [f"{module}.{kind}" for module in sorted(modules) for kind in ("weight", "bias")]
    found = {name: f"{unit.path}.{name}" for name in names if f"{unit.path}.{name}" in part.checkpoint}
    weights = {name: part.checkpoint.load_tensor(full) for name, full in found.items()}
    return weights, {name: tensor.dtype for name, tensor in weights.items()}
