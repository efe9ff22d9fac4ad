"""What quantizing a block did to the values that its linears read and return."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...models.base.family import Fold
from ...pipelines.lora_scales import INPUT_SCALE, OUTPUT_SCALE
from ..algorithms.fp16_range import cumulative_shifts
from ..algorithms.scale_folding import find_layout
from ..plan import ComponentPlan, LinearGroup, QuantBlock
from .layer_stats import LayerStats

InputScales = Mapping[LinearGroup, Tensor]  # what the input of each group of linears was divided by, (in,)


class Moves(NamedTuple):
    """What moved between the operations of a block.

    Attributes:
        scales: What the input of each group of linears was divided by, (in,).
        pow2_shifts: The exponent k by whose power of two each linear's rows are divided.
        exponents: The exponent k by whose power of two the output of each fold's `prev_op` was divided.
    """

    scales: InputScales
    pow2_shifts: Mapping[str, int]
    exponents: Mapping[str, int]


class _Rescaling:
    """What the inputs of linears were divided by and their outputs multiplied by, each by the linear's name."""

    def __init__(self) -> None:
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}

    def divide_inputs(self, linears: Sequence[str], scale: Tensor) -> None:
        for linear in linears:
            self.inputs[linear] = self.inputs.get(linear, torch.ones(1)) * scale

    def divide_output(self, linear: str, scale: Tensor) -> None:
        self.outputs[linear] = self.outputs.get(linear, torch.ones(1)) / scale


def find_rescaling(component: ComponentPlan, block: QuantBlock, moves: Moves) -> dict[str, Tensor]:
    """Finds what a layer that was trained beside a linear has to multiply its input and its output by.

    A linear of the weight W whose input was divided by s and whose output is multiplied by o now has the weight
    diag(o) W diag(s). What is not linear after it undoes o, as a norm does, or the next linear's s does.

    Args:
        component: The component.
        block: The block.
        moves: What moved in it.

    Returns:
        float32 tensors by full name in the component, `linear.lora_input_scale` (in,) with s and
        `linear.lora_output_scale` (out,) with o, with a single value where all are equal; those of 1 are left out.
    """
    rescaling = _Rescaling()
    for fold in block.spec.folds:
        if exponent := moves.exponents.get(fold.prev_op, 0):
            rescaling.divide_inputs(fold.linears, torch.tensor([2.0**exponent]))
            if fold.kind == "rows":
                rescaling.divide_output(fold.prev_op, torch.tensor([2.0**exponent]))
    for group, scale in moves.scales.items():
        rescaling.divide_inputs(group.linears, scale.float().cpu())
    for fold, scale in {group.fold: scale for group, scale in moves.scales.items() if group.fold}.items():
        for prev_op in fold.prev_ops if fold.kind == "rows" else ():
            num_rows = component.checkpoint.shape(f"{block.path}.{prev_op}.weight")[0]
            rescaling.divide_output(prev_op, _list_divisors(fold, component.config, scale.float().cpu(), num_rows))
    for linear, total in cumulative_shifts(block, moves.pow2_shifts).items():
        rescaling.divide_inputs((linear,), torch.tensor([2.0 ** (total - moves.pow2_shifts.get(linear, 0))]))
        rescaling.divide_output(linear, torch.tensor([2.0**total]))
    kinds = {INPUT_SCALE: rescaling.inputs, OUTPUT_SCALE: rescaling.outputs}
    named = {f"{linear}.{kind}": scale for kind, scales in kinds.items() for linear, scale in scales.items()}
    return {f"{block.path}.{name}": _shorten(scale) for name, scale in named.items() if bool((scale != 1).any())}


def mark_rescaled(layers: Sequence[LayerStats], component: str, rescaling: Collection[str]) -> Iterator[LayerStats]:
    """Yields statistics, with those marked whose linears read or return other values than in the original.

    Args:
        layers: The statistics of a block.
        component: The component's name.
        rescaling: The names of what `find_rescaling` returned.
    """
    rescaled = {f"{component}.{name.rpartition('.')[0]}" for name in rescaling}
    for layer in layers:
        yield replace(layer, is_rescaled=layer.layer in rescaled)


def _list_divisors(fold: Fold, config: dict[str, Any], scale: Tensor, num_rows: int) -> Tensor:
    """Lists what a fold divided each output of its `prev_op` by, (out,), from what it divided inputs by, (in,)."""
    layout = find_layout(fold, config, len(scale))
    channels = torch.ones(len(layout.rows))
    channels[layout.channel[layout.is_scaled]] = scale[layout.is_scaled]
    return torch.ones(num_rows).index_copy_(0, layout.rows, channels)


def _shorten(scale: Tensor) -> Tensor:
    return scale[:1].clone() if bool((scale == scale[0]).all()) else scale.contiguous()
