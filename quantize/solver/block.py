"""Quantizes one block: a pure function of weights, statistics, schemes and steps.

Every scheme of a recipe is solved from the same statistics: the primary one, whose codes become the model, and extra
ones by name. A scheme with 8-bit activations uses SmoothQuant's scales instead of AWQ's, and a linear whose error is
too large stays in floating point, as it is after folding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from ...numerics.affine import QuantizedWeight, dequantize
from ...numerics.awq_packing import QMAX, pack_awq
from ...recipes.schema import PRIMARY, QuantizationSettings, Scheme, Step
from ..algorithms.activation_rounding import CalibrationActivations
from ..algorithms.awq import search_scale
from ..algorithms.fp16_range import cumulative_shifts, pow2_exponents
from ..algorithms.fp16_scales import balance_weights, fits_fp16, shift_abs_max
from ..algorithms.scale_folding import Weights, channel_map, fold_scale
from ..algorithms.smoothquant import search_smoothquant_scale
from ..plan import ComponentPlan, LinearGroup, QuantBlock
from .layer import LayerInput, LayerResult, quantize_layer


class CalibrationSource(Protocol):
    """What quantizing a block reads from a calibration."""

    @property
    def abs_max_by_module(self) -> dict[str, float]: ...

    def mean_abs(self, name: str) -> Tensor: ...

    def hessian(self, block: QuantBlock, name: str) -> Tensor: ...

    def abs_max(self, name: str) -> Tensor: ...

    def tokens(self, block: QuantBlock, name: str) -> Tensor: ...


@dataclass(frozen=True)
class BalancedCalibration:
    """A calibration as if a block's balanced weights had run: powers of two moved between its operations.

    Attributes:
        source: The calibration of the weights as stored.
        component: The component of the block.
        block: The block.
        exponents: What `balance_weights` returned.
    """

    source: CalibrationSource
    component: ComponentPlan
    block: QuantBlock
    exponents: Mapping[str, int]

    @property
    def abs_max_by_module(self) -> dict[str, float]:
        return shift_abs_max(self.source.abs_max_by_module, self.block, self.exponents)

    def mean_abs(self, name: str) -> Tensor:
        return self.source.mean_abs(name) * self._factor(name)

    def hessian(self, block: QuantBlock, name: str) -> Tensor:
        return self.source.hessian(block, name) * self._factor(name) ** 2

    def abs_max(self, name: str) -> Tensor:
        return self.source.abs_max(name) * self._factor(name)

    def tokens(self, block: QuantBlock, name: str) -> Tensor:
        return self.source.tokens(block, name) * self._factor(name)

    def _factor(self, name: str) -> float:
        """What the input of a group's linears is multiplied by."""
        groups = {f"{self.component.name}.{self.block.input_module(group)}": group for group in self.block.groups}
        fold = groups[name].fold
        return 2.0 ** -self.exponents.get(fold.prev_op, 0) if fold else 1.0


@dataclass(frozen=True)
class LayerStats:
    """The error of one linear: mean squared output error over mean squared output.

    Attributes:
        layer: Full name, `component.module`.
        rtn_error: With rounding to nearest alone.
        error: Of the result.
        weights: Number of weights.
        steps: After each step, by the step's name.
        stays_float: The linear is not quantized: its `error` would exceed the scheme's limit, or float16 cannot hold
            its scales.
    """

    layer: str
    rtn_error: float
    error: float
    weights: int
    steps: dict[str, float] = field(default_factory=dict)
    stays_float: bool = False


@dataclass(frozen=True)
class BlockResult:
    """A block quantized with one scheme.

    Attributes:
        tensors: What replaces the block's parameters, by full name.
        layers: Statistics of its linears.
    """

    tensors: dict[str, Tensor]
    layers: tuple[LayerStats, ...]


def quantize_block(
    component: ComponentPlan,
    block: QuantBlock,
    calibration: CalibrationSource,
    settings: QuantizationSettings,
    matmul_dtype: torch.dtype,
) -> dict[str, BlockResult]:
    """Quantizes a block with every scheme of the recipe.

    Args:
        matmul_dtype: The dtype of large matrix products, which the reference also computes in.

    Returns:
        A result for each scheme by its name; the primary one is called PRIMARY.
    """
    weights, storage_dtypes = _load_weights(component, block)
    exponents = balance_weights(weights, block, component.config, settings.scheme, storage_dtypes)
    if exponents:
        calibration = BalancedCalibration(calibration, component, block, exponents)
    hessians = {
        group: calibration.hessian(block, f"{component.name}.{block.input_module(group)}") for group in block.groups
    }
    shifts = pow2_exponents(block, calibration.abs_max_by_module) if settings.fp16_safe else {}
    solver = _BlockSolver(
        component, block, calibration, hessians, storage_dtypes, settings.resolved_steps, shifts, matmul_dtype
    )
    schemes = {PRIMARY: settings.scheme} | settings.extra_schemes
    return {name: solver.solve(dict(weights), scheme) for name, scheme in schemes.items()}


@dataclass(frozen=True)
class _BlockSolver:
    """What all schemes of a block share.

    Attributes:
        hessians: H of the input of each group of linears.
        storage_dtypes: The dtype of each parameter in the checkpoint.
        pow2_shifts: The exponent k by whose power of two each linear's rows are divided.
    """

    component: ComponentPlan
    block: QuantBlock
    calibration: CalibrationSource
    hessians: dict[LinearGroup, Tensor]
    storage_dtypes: dict[str, torch.dtype]
    steps: tuple[Step, ...]
    pow2_shifts: dict[str, int]
    matmul_dtype: torch.dtype

    def solve(self, weights: Weights, scheme: Scheme) -> BlockResult:
        solve = self._solve_w8a8 if scheme.quantizes_activations else self._solve_weight_only
        return solve(weights, scheme)

    def _solve_weight_only(self, weights: Weights, scheme: Scheme) -> BlockResult:
        """Quantizes weights whose products take activations as they are."""
        original = dict(weights)
        scales = self._fold_awq_scales(weights, scheme) if "scale" in self.steps else {}
        tensors = self._unquantized_tensors(weights)
        layers = []
        for group in self.block.groups:
            layer_input = self._layer_input(group, scheme, scales.get(group))
            unscaled_input = self._layer_input(group, scheme, None)
            for linear in group.linears:
                weight = weights.pop(f"{linear}.weight")
                if not fits_fp16(weight, layer_input.spec, self.pow2_shifts.get(linear, 0)):
                    tensors |= self._float_tensors(linear, weight)
                    rounded = quantize_layer(linear, weight, layer_input, ())
                    layers.append(_float_layer_stats(f"{self.block.name}.{linear}", rounded, self.steps))
                    continue
                result = quantize_layer(linear, weight, layer_input, self.steps)
                tensors |= self._packed_tensors(linear, result.quantized)
                if group in scales:
                    unscaled = quantize_layer(linear, original[f"{linear}.weight"], unscaled_input, ())
                    result = _merge_scaled_errors(unscaled, result)
                layers.append(_layer_stats(f"{self.block.name}.{linear}", result))
        return BlockResult(tensors, (*layers, *self._idle_stats(weights, scheme)))

    def _solve_w8a8(self, weights: Weights, scheme: Scheme) -> BlockResult:
        """Quantizes weights whose products take activations in 8 bits."""
        original = dict(weights)
        scales = self._fold_smoothquant_scales(weights, scheme)
        tensors, layers = self._unquantized_tensors(weights), []
        for group in self.block.groups:
            unscaled_inputs, scale = self._activations(group, scheme), scales.get(group)
            inputs = unscaled_inputs if scale is None else unscaled_inputs.divide_by(scale)
            layer_input = self._layer_input(group, scheme, scale)
            for linear in group.linears:
                weight = weights.pop(f"{linear}.weight").float()
                steps = [step for step in self.steps if step != "scale"]
                quantized = quantize_layer(linear, weight, layer_input, steps).quantized
                rtn_error = unscaled_inputs.rtn_error(original[f"{linear}.weight"].float(), layer_input.spec)
                error = inputs.output_error(weight, dequantize(quantized))
                errors = {"rtn": rtn_error, "smooth": inputs.rtn_error(weight, layer_input.spec), "solved": error}
                fits = fits_fp16(weight, layer_input.spec, self.pow2_shifts.get(linear, 0))
                stays_float = error > scheme.max_output_error or not fits
                name = f"{self.block.name}.{linear}"
                layers.append(LayerStats(name, rtn_error, error, weight.numel(), errors, stays_float))
                if stays_float:
                    tensors |= self._float_tensors(linear, weight)
                    continue
                tensors |= self._packed_tensors(linear, quantized)
                if scheme.activations == "static":
                    tensors[f"{self.block.path}.{linear}.input_scale"] = self._input_scale(linear, inputs)
        return BlockResult(tensors, (*layers, *self._idle_stats(weights, scheme)))

    def _idle_stats(self, weights: Weights, scheme: Scheme) -> Iterator[LayerStats]:
        """Yields the statistics of linears that calibration never reached, without any error."""
        steps = dict.fromkeys(
            ("rtn", "smooth", "solved") if scheme.quantizes_activations else ("rtn", *self.steps), 0.0
        )
        for linear in self.block.idle:
            numel = weights[f"{linear}.weight"].numel()
            yield LayerStats(f"{self.block.name}.{linear}", 0.0, 0.0, numel, steps, stays_float=True)

    def _layer_input(self, group: LinearGroup, scheme: Scheme, scale: Tensor | None) -> LayerInput:
        """Returns the input of a group's linears, divided by `scale`, (in,), if there is one."""
        hessian = self.hessians[group]
        if scale is not None:
            hessian = hessian / scale / scale[:, None]
        return LayerInput(hessian, scheme.to_spec(len(hessian)), self.matmul_dtype)

    def _fold_awq_scales(self, weights: Weights, scheme: Scheme) -> dict[LinearGroup, Tensor]:
        """Searches and folds AWQ's scale of each fold in order; returns input scales (in,) by group."""
        scales = {}
        for group in self.block.groups:
            if (fold := group.fold) is None:
                continue
            mean_abs = self.calibration.mean_abs(f"{self.component.name}.{self.block.input_module(group)}")
            channel = channel_map(fold, self.component.config, len(mean_abs))
            linears = [weights[f"{linear}.weight"].float() for linear in fold.linears]
            spec = scheme.to_spec(len(mean_abs))
            best = search_scale(linears, self.hessians[group], mean_abs, spec, channel)
            scale = fold_scale(weights, fold, best, channel, self.storage_dtypes[f"{fold.prev_op}.weight"])
            scales[group] = scale[channel]
        return scales

    def _fold_smoothquant_scales(self, weights: Weights, scheme: Scheme) -> dict[LinearGroup, Tensor]:
        """Searches and folds SmoothQuant's scale of each fold in order; returns input scales (in,) as for AWQ."""
        scales = {}
        for group in self.block.groups:
            if (fold := group.fold) is None:
                continue
            inputs = self._activations(group, scheme)
            channel = channel_map(fold, self.component.config, len(inputs.abs_max))
            linears = [weights[f"{linear}.weight"].float() for linear in fold.linears]
            best = search_smoothquant_scale(linears, inputs, scheme.to_spec(len(inputs.abs_max)), channel)
            scale = fold_scale(weights, fold, best, channel, self.storage_dtypes[f"{fold.prev_op}.weight"])
            scales[group] = scale[channel]
        return scales

    def _activations(self, group: LinearGroup, scheme: Scheme) -> CalibrationActivations:
        name = f"{self.component.name}.{self.block.input_module(group)}"
        tokens = self.calibration.tokens(self.block, name).float()
        return CalibrationActivations(tokens, self.calibration.abs_max(name), scheme.activations)

    def _unquantized_tensors(self, weights: Weights) -> dict[str, Tensor]:
        """Returns norms, biases and idle linears. A bias is divided by the power of two of its linear's output."""
        shifts = cumulative_shifts(self.block, self.pow2_shifts)
        quantized = {linear for group in self.block.groups for linear in group.linears}
        names = sorted(name for name in weights if name.removesuffix(".weight") not in quantized)
        shifted = {name: weights[name] * 2.0 ** -shifts.get(name.removesuffix(".bias"), 0) for name in names}
        return {f"{self.block.path}.{name}": shifted[name].to(self.storage_dtypes[name]).clone() for name in names}

    def _float_tensors(self, linear: str, weight: Tensor) -> dict[str, Tensor]:
        """Returns the weight of a linear that stays in floating point, its rows divided by their power of two."""
        name = f"{linear}.weight"
        shifted = weight * 2.0 ** -self.pow2_shifts.get(linear, 0)
        return {f"{self.block.path}.{name}": shifted.to(self.storage_dtypes[name]).clone()}

    def _packed_tensors(self, linear: str, quantized: QuantizedWeight) -> dict[str, Tensor]:
        """Returns the stored tensors of a linear, its rows divided by their power of two."""
        scales = quantized.qparams.scales * 2.0 ** -self.pow2_shifts.get(linear, 0)
        quantized = quantized._replace(qparams=quantized.qparams._replace(scales=scales))
        packed = pack_awq(quantized)._asdict() if quantized.qparams.qmax == QMAX else _pack_int8(quantized)
        return {f"{self.block.path}.{linear}.{kind}": tensor for kind, tensor in packed.items()}

    def _input_scale(self, linear: str, inputs: CalibrationActivations) -> Tensor:
        """Returns the static scale of a linear's input, (), divided as the linears before it divide that input."""
        shifts_before = cumulative_shifts(self.block, self.pow2_shifts).get(linear, 0) - self.pow2_shifts.get(linear, 0)
        return torch.tensor(inputs.scale * 2.0**-shifts_before)


def _pack_int8(quantized: QuantizedWeight) -> dict[str, Tensor]:
    """Arranges 8-bit codes as AWQ does, one byte each: qweight (in, out), qzeros and scales (groups, out)."""
    qparams = quantized.qparams
    tensors = {"qweight": quantized.codes.T, "qzeros": qparams.zero_points.T, "scales": qparams.scales.T.half()}
    return {kind: tensor.contiguous() for kind, tensor in tensors.items()}


def _merge_scaled_errors(unscaled: LayerResult, scaled: LayerResult) -> LayerResult:
    """Returns the scaled linear with the RTN error of the unscaled one; each is relative to its own output."""
    ratio = scaled.output_power / unscaled.output_power if unscaled.output_power else 0.0
    errors = {"rtn": unscaled.errors["rtn"] * ratio, "scale": scaled.errors["rtn"]}
    return replace(scaled, errors=errors | {step: error for step, error in scaled.errors.items() if step != "rtn"})


def _layer_stats(layer: str, result: LayerResult) -> LayerStats:
    power = result.output_power
    steps = {step: error / power if power else 0.0 for step, error in result.errors.items()}
    return LayerStats(layer, steps["rtn"], list(steps.values())[-1], result.quantized.codes.numel(), steps)


def _float_layer_stats(layer: str, rounded: LayerResult, steps: Sequence[Step]) -> LayerStats:
    """Returns the statistics of a linear that stays in floating point, with what rounding would have cost."""
    stats = _layer_stats(layer, rounded)
    return replace(stats, error=0.0, steps=stats.steps | dict.fromkeys(steps, 0.0), stays_float=True)


def _load_weights(component: ComponentPlan, block: QuantBlock) -> tuple[Weights, dict[str, torch.dtype]]:
    """Loads the parameters of the block's linears and of what folds touch, as stored, and their dtypes."""
    modules = {*block.relative_linears, *(fold.prev_op for fold in block.spec.folds)}
    names = [f"{module}.{kind}" for module in sorted(modules) for kind in ("weight", "bias")]
    full_names = {name: f"{block.path}.{name}" for name in names if f"{block.path}.{name}" in component.checkpoint}
    tensors = dict(component.checkpoint.load_tensors(full_names.values()))
    weights = {name: tensors[full_name] for name, full_name in full_names.items()}
    return weights, {name: tensor.dtype for name, tensor in weights.items()}
