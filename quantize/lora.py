"""LoRAs in a quantization: merged into the weights of its plan, so that calibration and quantization see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..pipelines.lora_files import LoraSpec
from ..pipelines.lora_merging import merge_loras
from ..storage.checkpoint import Checkpoint
from .plan import ComponentPlan, QuantizationPlan


def merge_into_plan(specs: Sequence[LoraSpec], plan: QuantizationPlan) -> QuantizationPlan:
    """Returns the plan with LoRAs in the weights of its components, which are merged whenever a weight is loaded.

    Raises:
        UserError: A LoRA cannot be read, is for another base model, or has keys without a layer.
    """
    if not specs:
        return plan
    components = (*plan.components, *plan.unquantized_components)
    merged = merge_loras(specs, plan.source, {part.name: part.checkpoint for part in components})
    return replace(
        plan,
        components=_with_checkpoints(plan.components, merged),
        unquantized_components=_with_checkpoints(plan.unquantized_components, merged),
    )


def _with_checkpoints(
    components: Sequence[ComponentPlan], checkpoints: Mapping[str, Checkpoint]
) -> tuple[ComponentPlan, ...]:
    return tuple(replace(part, checkpoint=checkpoints.get(part.name, part.checkpoint)) for part in components)
