"""Quantizes one block: a pure function of weights, statistics, schemes and steps.

Every scheme of a recipe is solved from the same statistics: the primary one, whose codes become the model, and extra
ones by name. A scheme with 8-bit activations uses SmoothQuant's scales instead of AWQ's, and a linear whose error is
too large stays in floating point, as it is after folding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...models.base.family import Fold
from ...numerics.affine import QuantizedWeight, dequantize
from ...numerics.awq_packing import QMAX, pack_awq, pack_int8
from ...recipes.schema import PRIMARY, QuantizationSettings, Scheme, Step
from ..algorithms.activation_rounding import CalibrationActivations
from ..algorithms.fp16_range import cumulative_shifts, pow2_exponents
from ..algorithms.fp16_scales import balance_weights, fits_fp16
from ..algorithms.gptq import LdlFactor
from ..algorithms.scale_folding import Weights
from ..plan import ComponentPlan, LinearGroup, QuantBlock, group_readers
from .block_weights import load_block_weights
from .calibration_source import BalancedCalibration, CalibrationSource, get_exponents
from .candidates import GPTQ, VARIANTS, Candidate, Choice, ValidatedInput, list_candidates
from .layer import LayerInput, LayerResult, quantize_layer
from .layer_stats import LayerStats, describe_float_layer, describe_layer, merge_scaled_errors
from .rescaling import InputScales, Moves, find_rescaling, mark_rescaled
from .scale_folder import ScaleFolder


@dataclass(frozen=True)
class BlockResult:
    """A block quantized with one scheme.

    Attributes:
        tensors: What replaces the block's parameters, by full name.
        layers: Statistics of its linears.
        rescaling: See `find_rescaling`; empty with 8-bit activations.
    """

    tensors: dict[str, Tensor]
    layers: tuple[LayerStats, ...]
    rescaling: dict[str, Tensor] = field(default_factory=dict)


def quantize_block(
    component: ComponentPlan,
    block: QuantBlock,
    calibration: CalibrationSource,
    settings: QuantizationSettings,
    matmul_dtype: torch.dtype,
) -> dict[str, BlockResult]:
    """Quantizes a block with every scheme of the recipe, by the recipe's steps.

    Args:
        matmul_dtype: The dtype of large matrix products, which the reference also computes in.

    Returns:
        A result for each scheme by its name; the primary one is called PRIMARY. With `choose`, of the first variant.
    """
    if settings.chooses_steps:
        return quantize_block_variants(component, block, calibration, settings, matmul_dtype)[VARIANTS[0]]
    solver, weights = _prepare(component, block, calibration, settings, matmul_dtype)
    return {name: solver.solve(dict(weights), scheme) for name, scheme in list_schemes(settings).items()}


def quantize_block_variants(
    component: ComponentPlan,
    block: QuantBlock,
    calibration: CalibrationSource,
    settings: QuantizationSettings,
    matmul_dtype: torch.dtype,
    refines: bool = True,
) -> dict[str, dict[str, BlockResult]]:
    """Quantizes a block with steps that validation chooses, once for each variant of `best`.

    Args:
        matmul_dtype: The dtype of large matrix products, which the reference also computes in.
        refines: Whether there is time for more than one pass of GPTQ.

    Returns:
        A result for each scheme, by variant and scheme. Schemes with 8-bit activations are the same in all of them.
    """
    solver, weights = _prepare(component, block, calibration, settings, matmul_dtype)
    results: dict[str, dict[str, BlockResult]] = {variant: {} for variant in VARIANTS}
    for name, scheme in list_schemes(settings).items():
        for variant, result in solver.solve_variants(weights, scheme, refines).items():
            results[variant][name] = result
    return results


def quantize_block_formats(
    component: ComponentPlan,
    block: QuantBlock,
    calibration: CalibrationSource,
    settings: QuantizationSettings,
    matmul_dtype: torch.dtype,
    formats: Mapping[str, Scheme | None],
) -> dict[str, BlockResult]:
    """Quantizes a block with several schemes in place of the primary one, and with the extra schemes.

    Args:
        matmul_dtype: The dtype of large matrix products, which the reference also computes in.
        formats: The schemes by name; None leaves the linears in floating point.

    Returns:
        A result for each format and each extra scheme, by its name.
    """
    solver, weights = _prepare(component, block, calibration, settings, matmul_dtype)
    results = {
        name: solver.leave_in_floats(dict(weights), settings.scheme)
        if scheme is None
        else solver.solve(dict(weights), scheme)
        for name, scheme in formats.items()
    }
    return results | {name: solver.solve(dict(weights), scheme) for name, scheme in settings.extra_schemes.items()}


def list_schemes(settings: QuantizationSettings) -> dict[str, Scheme]:
    """Returns the schemes that blocks are quantized with, by name."""
    return {PRIMARY: settings.scheme} | settings.extra_schemes


def _prepare(
    component: ComponentPlan,
    block: QuantBlock,
    calibration: CalibrationSource,
    settings: QuantizationSettings,
    matmul_dtype: torch.dtype,
) -> tuple[_BlockSolver, Weights]:
    """Reads what all schemes of a block share, and its weights."""
    weights, storage_dtypes = load_block_weights(component, block, calibration)
    exponents = balance_weights(weights, block, component.config, settings.scheme, storage_dtypes)
    if exponents:
        calibration = BalancedCalibration(calibration, component, block, exponents)
    hessians = {
        group: calibration.hessian(block, f"{component.name}.{block.input_module(group)}") for group in block.groups
    }
    shifts = pow2_exponents(block, calibration.abs_max_by_module) if settings.fp16_safe else {}
    steps = settings.resolved_steps
    solver = _BlockSolver(component, block, calibration, hessians, storage_dtypes, steps, shifts, matmul_dtype)
    return solver, weights


@dataclass(frozen=True)
class _BlockSolver:
    """What all schemes of a block share.

    Attributes:
        hessians: H of the input of each group of linears.
        storage_dtypes: The dtype of each parameter in the checkpoint.
        pow2_shifts: The exponent k by whose power of two each linear's rows are divided.
        factors: The factors of H of each group, of deviations from the mean input or not.
    """

    component: ComponentPlan
    block: QuantBlock
    calibration: CalibrationSource
    hessians: dict[LinearGroup, Tensor]
    storage_dtypes: dict[str, torch.dtype]
    steps: tuple[Step, ...]
    pow2_shifts: dict[str, int]
    matmul_dtype: torch.dtype
    factors: dict[tuple[LinearGroup, bool], dict[tuple[int, float], LdlFactor]] = field(default_factory=dict)

    @property
    def folder(self) -> ScaleFolder:
        return ScaleFolder(self.component.config, self.storage_dtypes)

    def solve(self, weights: Weights, scheme: Scheme) -> BlockResult:
        if scheme.quantizes_activations:
            return self._solve_w8a8(weights, scheme)
        original = dict(weights)
        scales = self._fold_awq_scales(weights, scheme) if "scale" in self.steps else {}
        inputs = {group: self._validated_input(group, scheme, scales.get(group)) for group in self.block.groups}
        return self._solve_weight_only(original, weights, scheme, scales, inputs, (Candidate(self.steps),))

    def leave_in_floats(self, weights: Weights, scheme: Scheme) -> BlockResult:
        """Returns all linears in floating point, with the error that rounding to a scheme would have."""
        tensors, layers = self._unquantized_tensors(weights), []
        for group in self.block.groups:
            layer_input = self._layer_input(group, scheme, None)
            for linear in group.linears:
                weight = weights.pop(f"{linear}.weight")
                tensors |= self._float_tensors(linear, weight)
                rounded = quantize_layer(linear, weight, layer_input, ())
                layers.append(describe_float_layer(f"{self.block.name}.{linear}", rounded, self.steps))
        return self._finish(tensors, (*layers, *self._idle_stats(weights, scheme)), {})

    def solve_variants(self, weights: Weights, scheme: Scheme, refines: bool) -> dict[str, BlockResult]:
        """Quantizes with every variant of `best`. What several of them try is computed once."""
        if scheme.quantizes_activations:
            return dict.fromkeys(VARIANTS, self._solve_w8a8(dict(weights), scheme))
        plain = {group: self._validated_input(group, scheme, None, validates=True) for group in self.block.groups}
        folded = dict(weights)
        scales = self._fold_validated_scales(folded, scheme, plain, list_candidates("unclipped", refines)[0])
        inputs = plain
        if scales:  # also where an input keeps its scale, rows may have been divided
            inputs = {
                group: self._validated_input(group, scheme, scales[group], validates=True)
                if group in scales
                else plain[group].forget_results()
                for group in self.block.groups
            }
        results = {}
        for variant in VARIANTS:
            candidates = list_candidates(variant, refines)
            arguments = (weights, {}, plain) if variant in ("unscaled", "gptq") else (folded, scales, inputs)
            results[variant] = self._solve_weight_only(
                weights, dict(arguments[0]), scheme, arguments[1], arguments[2], candidates
            )
        return results

    def _solve_weight_only(
        self,
        original: Weights,
        weights: Weights,
        scheme: Scheme,
        scales: Mapping[LinearGroup, Tensor],
        inputs: Mapping[LinearGroup, ValidatedInput],
        candidates: Sequence[Candidate],
    ) -> BlockResult:
        """Quantizes weights whose products take activations as they are.

        Args:
            original: The parameters before scales were folded.
            weights: The parameters with the scales, of which linears are removed.
            scheme: The scheme.
            scales: The scale of the input of each group that has one, (in,).
            inputs: The inputs, divided by their scales.
            candidates: What is tried on each linear.
        """
        tensors = self._unquantized_tensors(weights)
        layers = []
        for group in self.block.groups:
            layer_input = inputs[group].layer_input
            for linear in group.linears:
                weight, name = weights.pop(f"{linear}.weight"), f"{self.block.name}.{linear}"
                if not fits_fp16(weight, layer_input.spec, self.pow2_shifts.get(linear, 0)):
                    tensors |= self._float_tensors(linear, weight)
                    rounded = quantize_layer(linear, weight, layer_input, ())
                    layers.append(describe_float_layer(name, rounded, self.steps))
                    continue
                choice = inputs[group].choose(linear, weight, candidates)
                result = choice.result
                tensors |= self._packed_tensors(linear, result.quantized)
                if (mean := inputs[group].mean) is not None:
                    tensors |= self._corrected_bias(linear, weights, weight, result.quantized, mean)
                if group in scales:
                    unscaled_input = self._layer_input(group, scheme, None, inputs[group].mean is not None)
                    unscaled = quantize_layer(linear, original[f"{linear}.weight"], unscaled_input, ())
                    result = merge_scaled_errors(unscaled, result)
                layers.append(self._describe_layer(name, result, choice, is_scaled=group in scales))
        return self._finish(tensors, (*layers, *self._idle_stats(weights, scheme)), scales)

    def _finish(self, tensors: Weights, layers: Sequence[LayerStats], scales: InputScales) -> BlockResult:
        moves = Moves(scales, self.pow2_shifts, get_exponents(self.calibration))
        rescaling = find_rescaling(self.component, self.block, moves)
        return BlockResult(tensors, tuple(mark_rescaled(layers, self.component.name, rescaling)), rescaling)

    def _describe_layer(self, name: str, result: LayerResult, choice: Choice, is_scaled: bool) -> LayerStats:
        stats = describe_layer(name, result)
        if "choose" not in self.steps:
            return stats
        return replace(
            stats,
            steps={"rtn": stats.rtn_error, "choose": stats.error},
            chosen=f"{'scale+' if is_scaled else ''}{choice.candidate.name}",
            validation_error=choice.validation_error,
        )

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
                steps = GPTQ.steps if "choose" in self.steps else [step for step in self.steps if step != "scale"]
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

    def _layer_input(
        self, group: LinearGroup, scheme: Scheme, scale: Tensor | None, centered: bool = False
    ) -> LayerInput:
        """Returns the input of a group's linears, divided by `scale`, (in,), if there is one."""
        hessian = self.hessians[group]
        if centered:
            hessian = self.calibration.hessian(self.block, self._input_name(group), centered=True)
        if scale is not None:
            hessian = hessian / scale / scale[:, None]
        spec = scheme.to_spec(len(hessian))
        if scale is None:  # then all schemes of a block have the same factors
            factors = self.factors.setdefault((group, centered), {})
            return LayerInput(hessian, spec, self.matmul_dtype, factors=factors)
        return LayerInput(hessian, spec, self.matmul_dtype)

    def _validated_input(
        self, group: LinearGroup, scheme: Scheme, scale: Tensor | None, validates: bool = False
    ) -> ValidatedInput:
        """Returns the input of a group's linears divided by `scale`, (in,).

        Args:
            validates: With tokens to validate on, and centered where biases are corrected.
        """
        if not validates:
            return ValidatedInput(self._layer_input(group, scheme, scale), None)
        name = self._input_name(group)
        centered = self._corrects_biases(group)
        tokens = self.calibration.validation_tokens(self.block, name, centered)
        mean = self.calibration.mean(self.block, name) if centered else None
        if scale is not None:
            tokens, mean = (None if value is None else value / scale for value in (tokens, mean))
        return ValidatedInput(self._layer_input(group, scheme, scale, centered), tokens, mean)

    def _corrects_biases(self, group: LinearGroup) -> bool:
        """Whether the biases of a group's linears correct the mean of the errors: with `choose`, if all have one."""
        biases = (f"{self.block.path}.{linear}.bias" for linear in group.linears)
        return "choose" in self.steps and all(bias in self.component.checkpoint for bias in biases)

    def _input_name(self, group: LinearGroup) -> str:
        return f"{self.component.name}.{self.block.input_module(group)}"

    def _fold_validated_scales(
        self, weights: Weights, scheme: Scheme, inputs: Mapping[LinearGroup, ValidatedInput], candidate: Candidate
    ) -> dict[LinearGroup, Tensor]:
        """Folds AWQ's scale of each fold where that lowers the validation error of its linears together.

        Rows that a fold divides keep their relative errors, so folds can be judged one after another.

        Args:
            weights: The parameters; those that folds touch are replaced.
            inputs: The inputs without scales.
            candidate: What the linears are solved with for the comparison.

        Returns:
            The scales (in,) by group.
        """
        scales: dict[LinearGroup, Tensor] = {}
        for fold in self.block.spec.folds:
            groups = group_readers(fold)
            if any(inputs[group].tokens is None for group in groups):
                continue
            trial = dict(weights)
            scale = self._fold_awq_scale(trial, fold, scheme)
            scaled = {group: self._validated_input(group, scheme, scale, validates=True) for group in groups}
            before, after = (
                sum(
                    x[group].try_candidate(linear, values[f"{linear}.weight"], candidate)
                    for group in groups
                    for linear in group.linears
                )
                for x, values in ((inputs, weights), (scaled, trial))
            )
            if after < before:
                weights.update(trial)
                scales |= dict.fromkeys(groups, scale)
        return scales

    def _fold_awq_scales(self, weights: Weights, scheme: Scheme) -> dict[LinearGroup, Tensor]:
        """Searches and folds AWQ's scale of each fold in order; returns input scales (in,) by group."""
        scales: dict[LinearGroup, Tensor] = {}
        for fold in self.block.spec.folds:
            scales |= dict.fromkeys(group_readers(fold), self._fold_awq_scale(weights, fold, scheme))
        return scales

    def _fold_awq_scale(self, weights: Weights, fold: Fold, scheme: Scheme) -> Tensor:
        """Searches and folds AWQ's scale of a fold; returns that of its linears' inputs, (in,)."""
        inputs = [(self.hessians[x], self.calibration.mean_abs(self._input_name(x))) for x in group_readers(fold)]
        return self.folder.fold_awq(weights, fold, inputs, scheme)

    def _fold_smoothquant_scales(self, weights: Weights, scheme: Scheme) -> dict[LinearGroup, Tensor]:
        """Searches and folds SmoothQuant's scale of each fold in order; returns input scales (in,) as for AWQ."""
        scales: dict[LinearGroup, Tensor] = {}
        for fold in self.block.spec.folds:
            inputs = [self._activations(group, scheme) for group in group_readers(fold)]
            scale = self.folder.fold_smoothquant(weights, fold, inputs, scheme)
            scales |= dict.fromkeys(group_readers(fold), scale)
        return scales

    def _activations(self, group: LinearGroup, scheme: Scheme) -> CalibrationActivations:
        name = self._input_name(group)
        tokens = self.calibration.tokens(self.block, name).float()
        return CalibrationActivations(tokens, self.calibration.abs_max(name), scheme.activations)

    def _unquantized_tensors(self, weights: Weights) -> dict[str, Tensor]:
        """Returns norms, biases and idle linears. A bias is divided by the power of two of its linear's output."""
        shifts = cumulative_shifts(self.block, self.pow2_shifts)
        quantized = {linear for group in self.block.groups for linear in group.linears}
        names = sorted(name for name in weights if name.removesuffix(".weight") not in quantized)
        shifted = {name: weights[name] * 2.0 ** -shifts.get(name.removesuffix(".bias"), 0) for name in names}
        return {f"{self.block.path}.{name}": shifted[name].to(self.storage_dtypes[name]).clone() for name in names}

    def _corrected_bias(
        self, linear: str, weights: Weights, weight: Tensor, quantized: QuantizedWeight, mean: Tensor
    ) -> dict[str, Tensor]:
        """Returns the bias of a linear, with which the error of its output is zero for the mean input, (in,)."""
        name = f"{linear}.bias"
        corrected = weights[name].float() - dequantize(quantized).sub_(weight) @ mean
        shift = cumulative_shifts(self.block, self.pow2_shifts).get(linear, 0)
        return {f"{self.block.path}.{name}": (corrected * 2.0**-shift).to(self.storage_dtypes[name])}

    def _float_tensors(self, linear: str, weight: Tensor) -> dict[str, Tensor]:
        """Returns the weight of a linear that stays in floating point, its rows divided by their power of two."""
        name = f"{linear}.weight"
        shifted = weight * 2.0 ** -self.pow2_shifts.get(linear, 0)
        return {f"{self.block.path}.{name}": shifted.to(self.storage_dtypes[name]).clone()}

    def _packed_tensors(self, linear: str, quantized: QuantizedWeight) -> dict[str, Tensor]:
        """Returns the stored tensors of a linear, its rows divided by their power of two."""
        scales = quantized.qparams.scales * 2.0 ** -self.pow2_shifts.get(linear, 0)
        quantized = quantized._replace(qparams=quantized.qparams._replace(scales=scales))
        packed = pack_awq(quantized) if quantized.qparams.qmax == QMAX else pack_int8(quantized)
        return {f"{self.block.path}.{linear}.{kind}": tensor for kind, tensor in packed._asdict().items()}

    def _input_scale(self, linear: str, inputs: CalibrationActivations) -> Tensor:
        """Returns the static scale of a linear's input, (), divided as the linears before it divide that input."""
        shifts_before = cumulative_shifts(self.block, self.pow2_shifts).get(linear, 0) - self.pow2_shifts.get(linear, 0)
        return torch.tensor(inputs.scale * 2.0**-shifts_before)
