"""The parameters of a block that solving it needs."""

from __future__ import annotations

import torch

from ..algorithms.scale_folding import Weights
from ..compute_device import CPU
from ..plan import ComponentPlan, QuantBlock
from .calibration_source import CalibrationSource


def load_block_weights(
    component: ComponentPlan, block: QuantBlock, calibration: CalibrationSource
) -> tuple[Weights, dict[str, torch.dtype]]:
    """Loads the parameters of the block's linears and of what folds touch, as stored, and their dtypes.

    They are on the device of the calibration's statistics, where the block is then solved.
    """
    modules = {*block.relative_linears, *(name for fold in block.spec.folds for name in fold.prev_ops)}
    names = [f"{module}.{kind}" for module in sorted(modules) for kind in ("weight", "bias")]
    full_names = {name: f"{block.path}.{name}" for name in names if f"{block.path}.{name}" in component.checkpoint}
    tensors = dict(component.checkpoint.load_tensors(full_names.values()))
    inputs = [f"{component.name}.{block.input_module(group)}" for group in block.groups]
    device = calibration.abs_max(inputs[0]).device if inputs else CPU
    weights = {name: tensors[full_name].to(device) for name, full_name in full_names.items()}
    return weights, {name: tensor.dtype for name, tensor in weights.items()}
