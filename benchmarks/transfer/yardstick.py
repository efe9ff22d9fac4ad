"""A trained model whose linears are quantized by a method, and whose outputs are compared on inputs of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ...models.base.family import Block, Component
from ...numerics.affine import dequantize
from ...numerics.awq_packing import AwqTensors, unpack_awq
from ...quantize.calibration.statistics import (
    WeightedMean,
    compute_hessian,
    compute_power_floor,
    normalize_tokens,
)
from ...quantize.calibration.validation_split import VALIDATION_SHARE
from ...quantize.confirmation import choose_variant
from ...quantize.plan import ComponentPlan, QuantBlock
from ...quantize.solver.block import BlockResult, quantize_block, quantize_block_variants
from ...quantize.solver.candidates import VARIANTS
from ...recipes.schema import PRIMARY, QuantizationSettings, Scheme
from ...storage.checkpoint import Checkpoint

COMPONENT = "model"


class Yardstick(Protocol):
    """A trained model.

    Attributes:
        title: What it is, for the table.
        blocks: Its blocks with their linears.
        checkpoint: Its weights.
        config: Its config.json.
        calibration: Inputs to calibrate on.
        evaluation: Other inputs, on which outputs are compared.
    """

    title: str
    blocks: tuple[QuantBlock, ...]
    checkpoint: Checkpoint
    config: dict[str, Any]
    calibration: Sequence[Any]
    evaluation: Sequence[Any]

    def run(self, weights: Mapping[str, Tensor], inputs: Sequence[Any]) -> Tensor:
        """Returns outputs (inputs, features), with some tensors replaced."""
        ...

    def observe(self, inputs: Sequence[Any]) -> dict[str, Tensor]:
        """Returns the tokens (n, in) that linears read, by the name of the first linear of each group."""
        ...


@dataclass(frozen=True)
class TokenCalibration:
    """A calibration from tokens.

    Attributes:
        tokens_by_input: Tokens (n, in) to solve on, by input.
        validation: Tokens that are held out, or none.
        normalized: Whether tokens count alike in H.
    """

    tokens_by_input: Mapping[str, Tensor]
    validation: Mapping[str, Tensor]
    normalized: bool

    @property
    def abs_max_by_module(self) -> dict[str, float]:
        return {}

    def mean_abs(self, name: str) -> Tensor:
        return self.tokens_by_input[name].abs().mean(0)

    def abs_max(self, name: str) -> Tensor:
        return self.tokens_by_input[name].abs().amax(0)

    def tokens(self, _: QuantBlock, name: str) -> Tensor:
        return self.tokens_by_input[name]

    def hessian(self, _: QuantBlock, name: str, centered: bool = False) -> Tensor:
        tokens = self.tokens_by_input[name]
        return compute_hessian(self._normalize(tokens, self.mean(_, name) if centered else None))

    def mean(self, _: QuantBlock, name: str) -> Tensor:
        tokens = self.tokens_by_input[name]
        mean = WeightedMean.empty(tokens.shape[1])
        mean.add(tokens, compute_power_floor(tokens))
        return mean.value()

    def validation_tokens(self, _: QuantBlock, name: str, centered: bool = False) -> Tensor | None:
        return self._normalize(self.validation[name], self.mean(_, name) if centered else None)

    def _normalize(self, tokens: Tensor, mean: Tensor | None = None) -> Tensor:
        return normalize_tokens(tokens, compute_power_floor(tokens), mean) if self.normalized else tokens


def measure(yardstick: Yardstick, settings: QuantizationSettings) -> Tensor:
    """Quantizes a model by a recipe's settings.

    Returns:
        The error of each output, relative to the mean square of the outputs, in dB: (evaluation,).
    """
    weights = solve(yardstick, settings)
    return _compare(yardstick, weights, yardstick.evaluation)


def solve(yardstick: Yardstick, settings: QuantizationSettings) -> dict[str, Tensor]:
    """Quantizes a model; returns the dequantized tensors. As in a pipeline, `best` holds every fourth input out."""
    inputs = yardstick.calibration
    if not settings.chooses_steps:
        calibration = TokenCalibration(_observe(yardstick, inputs), {}, normalized=False)
        parts = [
            quantize_block(_plan(yardstick), block, calibration, settings, torch.float32)[PRIMARY]
            for block in yardstick.blocks
        ]
        return _dequantize(parts)
    held_out = inputs[VALIDATION_SHARE - 1 :: VALIDATION_SHARE]
    solved = [value for number, value in enumerate(inputs) if number % VALIDATION_SHARE != VALIDATION_SHARE - 1]
    calibration = TokenCalibration(_observe(yardstick, solved), _observe(yardstick, held_out), normalized=True)
    blocks = [
        quantize_block_variants(_plan(yardstick), block, calibration, settings, torch.float32)
        for block in yardstick.blocks
    ]
    variants = {variant: _dequantize([block[variant][PRIMARY] for block in blocks]) for variant in VARIANTS}
    drift = {
        variant: 10 * math.log10(float(_square_errors(yardstick, weights, held_out).sum()))
        for variant, weights in variants.items()
    }
    return variants[choose_variant(drift)]


def _observe(yardstick: Yardstick, inputs: Sequence[Any]) -> dict[str, Tensor]:
    return {f"{COMPONENT}.{name}": tokens for name, tokens in yardstick.observe(inputs).items()}


def _plan(yardstick: Yardstick) -> ComponentPlan:
    spec = Component(COMPONENT, "Model", tuple(replace(block.spec) for block in yardstick.blocks))
    return ComponentPlan(spec, yardstick.checkpoint, yardstick.config, yardstick.blocks, ())


def _dequantize(results: Sequence[BlockResult]) -> dict[str, Tensor]:
    tensors = {name: tensor for result in results for name, tensor in result.tensors.items()}
    linears = [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]
    weights = {
        f"{linear}.weight": dequantize(unpack_awq(AwqTensors(*(tensors[f"{linear}.{k}"] for k in AwqTensors._fields))))
        for linear in linears
    }
    packed = {f"{linear}.{kind}" for linear in linears for kind in AwqTensors._fields}
    return weights | {name: tensor.float() for name, tensor in tensors.items() if name not in packed}


def _square_errors(yardstick: Yardstick, weights: Mapping[str, Tensor], inputs: Sequence[Any]) -> Tensor:
    return (yardstick.run(weights, inputs).double() - yardstick.run({}, inputs).double()).square().mean(1)


def _compare(yardstick: Yardstick, weights: Mapping[str, Tensor], inputs: Sequence[Any]) -> Tensor:
    power = yardstick.run({}, inputs).double().square().mean()
    return 10 * torch.log10(power / _square_errors(yardstick, weights, inputs))


def default_settings(**changes: Any) -> QuantizationSettings:
    """Returns the settings of 4 bits in groups of 128 with some of them changed."""
    return QuantizationSettings.model_validate({"scheme": Scheme().model_dump()} | changes)


def make_block(path: str, groups: Sequence[Sequence[str]], folds: Sequence[Any] = ()) -> QuantBlock:
    """Plans a block.

    Args:
        path: The block's path in the model.
        groups: Linears that read the same input and that no fold names.
        folds: Scales that can be folded.
    """
    return QuantBlock(COMPONENT, path, Block(path, tuple(folds)), tuple(map(tuple, groups)))


def write_checkpoint(tensors: Mapping[str, Tensor], folder: Path) -> Checkpoint:
    """Stores tensors as a checkpoint."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}", "utf-8")
    return Checkpoint(folder)
