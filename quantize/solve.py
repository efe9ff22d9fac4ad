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

from ..grid import Codes, dequantize
from ..int4 import LEVELS, pack_awq
from ..models import Fold
from ..recipe import MAIN, Quantization, Scheme, Step
from .activations import Activations
from .awq import search_scale
from .fold import Weights, apply_fold, channel_map
from .fp16 import exponents, outputs_divided
from .ladder import Climbed, Input, climb
from .plan import ComponentPlan, Unit
from .smooth import search_smoothing


class Found(Protocol):
    """What solving needs of a calibration."""

    @property
    def peaks(self) -> dict[str, float]: ...

    def magnitude(self, name: str) -> Tensor: ...

    def gram(self, unit: Unit, name: str) -> Tensor: ...

    def largest(self, name: str) -> Tensor: ...

    def tokens(self, unit: Unit, name: str) -> Tensor: ...


@dataclass(frozen=True)
class LayerReport:
    """What one linear lost: mean squared output error over mean squared output.

    rtn_error: by rounding alone. error: as solved. steps: after each step of the ladder. kept: it stays in floats,
    since rounding it and its inputs would cost `error`.
    """

    layer: str
    rtn_error: float
    error: float
    weights: int
    steps: dict[str, float] = field(default_factory=dict)
    kept: bool = False


@dataclass(frozen=True)
class Solution:
    """A solved block on one grid: the tensors that replace its parameters, by full name, and reports on its linears."""

    tensors: dict[str, Tensor]
    layers: tuple[LayerReport, ...]


def solve(
    part: ComponentPlan, unit: Unit, found: Found, quantization: Quantization, products: torch.dtype
) -> dict[str, Solution]:
    """The block on every grid that the recipe asks for, the main one under MAIN.

    Args:
        products: the dtype of large products, as the reference computes in.
    """
    weights, stored = _load(part, unit)
    grams = {fold.source: found.gram(unit, f"{part.name}.{unit.input_of(fold)}") for fold in unit.block.folds}
    shifts = exponents(unit, found.peaks) if quantization.fp16_safe else {}
    schemes = {MAIN: quantization.scheme} | quantization.also
    block = _Block(part, unit, found, grams, stored, quantization.rungs, shifts, products)
    return {name: block.solve(dict(weights), scheme) for name, scheme in schemes.items()}


@dataclass(frozen=True)
class _Block:
    """What all solutions of a block share. grams: H of each fold's input, by the fold's source."""

    part: ComponentPlan
    unit: Unit
    found: Found
    grams: dict[str, Tensor]
    stored: dict[str, torch.dtype]
    steps: tuple[Step, ...]
    shifts: dict[str, int]
    products: torch.dtype

    def solve(self, weights: Weights, scheme: Scheme) -> Solution:
        return self._in_integers(weights, scheme) if scheme.rounds_activations else self._in_floats(weights, scheme)

    def _in_floats(self, weights: Weights, scheme: Scheme) -> Solution:
        """For products of codes with activations as they are."""
        original = dict(weights)
        scales = self._fold_all(weights, scheme) if "scale" in self.steps else {}
        tensors = self._unquantized(weights)
        reports = []
        for fold in self.unit.block.folds:
            source = Input(_rescaled(self.grams[fold.source], scales.get(fold.source)), scheme, self.products)
            for linear in fold.into:
                climbed = climb(linear, weights.pop(f"{linear}.weight"), source, self.steps)
                tensors |= self._packed(linear, climbed.codes)
                if scales:
                    plain = Input(self.grams[fold.source], scheme, self.products)
                    climbed = _after_scaling(climb(linear, original[f"{linear}.weight"], plain, ()), climbed)
                reports.append(_report(f"{self.unit.name}.{linear}", climbed))
        return Solution(tensors, tuple(reports))

    def _in_integers(self, weights: Weights, scheme: Scheme) -> Solution:
        """For products of codes with activations in 8 bits."""
        original = dict(weights)
        scales = self._smooth_all(weights, scheme)
        tensors, reports = self._unquantized(weights), []
        for fold in self.unit.block.folds:
            plain, scale = self._activations(fold, scheme), scales[fold.source]
            inputs = plain.divided(scale)
            source = Input(_rescaled(self.grams[fold.source], scale), scheme, self.products)
            for linear in fold.into:
                weight = weights.pop(f"{linear}.weight").float()
                codes = climb(linear, weight, source, [step for step in self.steps if step != "scale"]).codes
                alone = plain.rounding_error(original[f"{linear}.weight"].float(), scheme)
                steps = {"rtn": alone, "smooth": inputs.rounding_error(weight, scheme)}
                error = inputs.error(weight, dequantize(codes))
                kept = error > scheme.keep_above
                steps["solved"] = error
                reports.append(LayerReport(f"{self.unit.name}.{linear}", alone, error, weight.numel(), steps, kept))
                tensors |= self._kept(linear, weight) if kept else self._packed(linear, codes)
                if scheme.activations == "static" and not kept:
                    tensors[f"{self.unit.path}.{linear}.input_scale"] = self._input_scale(linear, inputs)
        return Solution(tensors, tuple(reports))

    def _unquantized(self, weights: Weights) -> dict[str, Tensor]:
        """Norms and biases; a bias is divided as all that comes out of its linear is."""
        shared = outputs_divided(self.unit, self.shifts)
        names = sorted(name for name in weights if name.removesuffix(".weight") not in self.unit.block.linears)
        found = {name: weights[name] * 2.0 ** -shared.get(name.removesuffix(".bias"), 0) for name in names}
        return {f"{self.unit.path}.{name}": found[name].to(self.stored[name]).clone() for name in names}

    def _fold_all(self, weights: Weights, scheme: Scheme) -> dict[str, Tensor]:
        """Searches and folds AWQ's scale for each fold, in order; returns each source's input scale, (in,)."""
        scales = {}
        for fold in self.unit.block.folds:
            magnitude = self.found.magnitude(f"{self.part.name}.{self.unit.input_of(fold)}")
            channel = channel_map(fold, self.part.config, len(magnitude))
            readers = [weights[f"{linear}.weight"].float() for linear in fold.into]
            found = search_scale(readers, self.grams[fold.source], magnitude, scheme, channel)
            scale = apply_fold(weights, fold, found, channel, self.stored[f"{fold.source}.weight"])
            scales[fold.source] = scale[channel]
        return scales

    def _smooth_all(self, weights: Weights, scheme: Scheme) -> dict[str, Tensor]:
        """Searches and folds a smoothing scale for each fold, in order; returns each source's input scale, (in,)."""
        scales = {}
        for fold in self.unit.block.folds:
            inputs = self._activations(fold, scheme)
            channel = channel_map(fold, self.part.config, len(inputs.largest))
            readers = [weights[f"{linear}.weight"].float() for linear in fold.into]
            found = search_smoothing(readers, inputs, scheme, channel)
            scale = apply_fold(weights, fold, found, channel, self.stored[f"{fold.source}.weight"])
            scales[fold.source] = scale[channel]
        return scales

    def _activations(self, fold: Fold, scheme: Scheme) -> Activations:
        name = f"{self.part.name}.{self.unit.input_of(fold)}"
        return Activations(self.found.tokens(self.unit, name).float(), self.found.largest(name), scheme.activations)

    def _kept(self, linear: str, weight: Tensor) -> dict[str, Tensor]:
        """The weight of a linear that stays in floats, its rows divided by what keeps float16 from overflowing."""
        name = f"{linear}.weight"
        divided = weight * 2.0 ** -self.shifts.get(linear, 0)
        return {f"{self.unit.path}.{name}": divided.to(self.stored[name]).clone()}

    def _input_scale(self, linear: str, inputs: Activations) -> Tensor:
        """The static scale of a linear's input, (), divided as that is by the linears before it."""
        before = outputs_divided(self.unit, self.shifts).get(linear, 0) - self.shifts.get(linear, 0)
        return torch.tensor(inputs.scale * 2.0**-before)

    def _packed(self, linear: str, codes: Codes) -> dict[str, Tensor]:
        """The tensors of a linear, its rows divided by what keeps float16 from overflowing."""
        scales = codes.grid.scales * 2.0 ** -self.shifts.get(linear, 0)
        codes = codes._replace(grid=codes.grid._replace(scales=scales))
        packed = pack_awq(codes)._asdict() if codes.grid.highest == LEVELS else _bytes_of(codes)
        return {f"{self.unit.path}.{linear}.{kind}": tensor for kind, tensor in packed.items()}


def _bytes_of(codes: Codes) -> dict[str, Tensor]:
    """8-bit codes in the same arrangement, a byte each: qweight (in, out), qzeros and scales (groups, out)."""
    grid = codes.grid
    tensors = {"qweight": codes.codes.T, "qzeros": grid.zeros.T, "scales": grid.scales.T.half()}
    return {kind: tensor.contiguous() for kind, tensor in tensors.items()}


def _after_scaling(plain: Climbed, scaled: Climbed) -> Climbed:
    """The scaled linear, with the errors of rounding it as it was before; both relative to their outputs."""
    share = scaled.power / plain.power if plain.power else 0.0
    errors = {"rtn": plain.errors["rtn"] * share, "scale": scaled.errors["rtn"]}
    return replace(scaled, errors=errors | {name: e for name, e in scaled.errors.items() if name != "rtn"})


def _report(layer: str, climbed: Climbed) -> LayerReport:
    steps = {name: error / climbed.power if climbed.power else 0.0 for name, error in climbed.errors.items()}
    last = list(steps.values())[-1]
    return LayerReport(layer, steps["rtn"], last, climbed.codes.codes.numel(), steps)


def _rescaled(gram: Tensor, scale: Tensor | None) -> Tensor:
    """H of the input divided by a scale."""
    return gram if scale is None else gram / scale / scale[:, None]


def _load(part: ComponentPlan, unit: Unit) -> tuple[Weights, dict[str, torch.dtype]]:
    """The parameters that the block's folds touch, as stored, and their dtypes."""
    modules = {*unit.block.linears, *(fold.source for fold in unit.block.folds)}
    names = [f"{module}.{kind}" for module in sorted(modules) for kind in ("weight", "bias")]
    found = {name: f"{unit.path}.{name}" for name in names if f"{unit.path}.{name}" in part.checkpoint}
    weights = {name: part.checkpoint.tensor(full) for name, full in found.items()}
    return weights, {name: tensor.dtype for name, tensor in weights.items()}
