"""The error of each linear, as the manifest has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ...recipes.schema import Step
from .layer import LayerResult


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
        chosen: With `choose`, the steps that were chosen and what else was: the damping, and `scale` where the input
            is scaled.
        validation_error: With `choose`, `error` on tokens of prompts that nothing was solved on; None without such.
        is_rescaled: The linear reads or returns other values than in the original, since a scale or a power of two was
            moved. What was trained beside the original, such as a LoRA, needs the same scales.
    """

    layer: str
    rtn_error: float
    error: float
    weights: int
    steps: dict[str, float] = field(default_factory=dict)
    stays_float: bool = False
    chosen: str = ""
    validation_error: float | None = None
    is_rescaled: bool = False


def merge_scaled_errors(unscaled: LayerResult, scaled: LayerResult) -> LayerResult:
    """Returns the scaled linear with the RTN error of the unscaled one; each is relative to its own output."""
    ratio = scaled.output_power / unscaled.output_power if unscaled.output_power else 0.0
    errors = {"rtn": unscaled.errors["rtn"] * ratio, "scale": scaled.errors["rtn"]}
    return replace(scaled, errors=errors | {step: error for step, error in scaled.errors.items() if step != "rtn"})


def describe_layer(layer: str, result: LayerResult) -> LayerStats:
    power = result.output_power
    steps = {step: error / power if power else 0.0 for step, error in result.errors.items()}
    return LayerStats(layer, steps["rtn"], list(steps.values())[-1], result.quantized.codes.numel(), steps)


def describe_float_layer(layer: str, rounded: LayerResult, steps: Sequence[Step]) -> LayerStats:
    """Returns the statistics of a linear that stays in floating point, with what rounding would have cost."""
    stats = describe_layer(layer, rounded)
    return replace(stats, error=0.0, steps=stats.steps | dict.fromkeys(steps, 0.0), stays_float=True)
