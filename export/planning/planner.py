"""Plans a pipeline on a recipe's device from configs and headers alone. What it is made of is checked without torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ...common.errors import UserError
from ...common.system_memory import read_memory_limit
from ...models.base.image_size import check_image_size
from ...pipelines.preflight import check_exported_schedule, warn_about_scheduler_options
from ...pipelines.sampling import read_native_size
from ...recipes.hardware import Hardware
from ...recipes.schema import Recipe
from ..graph.source_model import SourcePipeline, open_source
from .device_plan import DevicePlan, Verdict


def plan_device(
    source: Path, recipe: Recipe, size: tuple[int, int] | None = None, memory: float | None = None
) -> DevicePlan:
    """Plans a pipeline as the recipe exports it.

    Args:
        source: A diffusers folder, quantized or not, or an artifact; of weights only names and shapes matter.
        recipe: The recipe, with a section `hardware`, as it is for a pipeline of this size.
        size: Height and width of the image in pixels; None for those of the preset `quality`.
        memory: Memory of the device in GiB; None for the smallest version of the device.

    Raises:
        UserError: The recipe says nothing of its device, or the family is not known well enough.
    """
    inputs = _check_inputs(source, recipe, size, memory)
    from ...pipelines.component_weights import check_family_weights
    from .device_planner import DevicePlanner

    check_family_weights(inputs.model.folder, inputs.model.family)
    planner = DevicePlanner(inputs.model, recipe, inputs.hardware, inputs.memory_bytes)
    plan = planner.plan(inputs.size, recipe)
    if plan.verdict is not Verdict.DOES_NOT_FIT:
        return plan
    return replace(plan, remedies=tuple(planner.find_remedies(plan, recipe)))


class _PlanningInputs(NamedTuple):
    """What a plan is made from.

    Attributes:
        model: The pipeline.
        hardware: The recipe's section `hardware`.
        size: Height and width of the image in pixels.
        memory_bytes: Memory of the device.
    """

    model: SourcePipeline
    hardware: Hardware
    size: tuple[int, int]
    memory_bytes: int


def _check_inputs(source: Path, recipe: Recipe, size: tuple[int, int] | None, memory: float | None) -> _PlanningInputs:
    """Opens the pipeline, and checks what needs no class of a library.

    Args:
        source: A diffusers folder, quantized or not, or an artifact.
        recipe: The recipe.
        size: Height and width of the image in pixels; None for those of the preset `quality`.
        memory: Memory of the device in GiB; None for the smallest version of the device.

    Raises:
        UserError: The recipe says nothing of its device, the system keeps all of its memory, or the pipeline cannot
            generate such images.
    """
    if recipe.hardware is None:
        raise UserError(
            f"The recipe for {recipe.device} has no section 'hardware', so nothing is known of the device. Add it."
        )
    memory_bytes = _find_memory(recipe.hardware, memory)
    if memory_bytes <= recipe.hardware.reserved * 2**30:
        raise UserError(
            f"{memory_bytes / 2**30:.3g} GiB of memory are no more than the {recipe.hardware.reserved:g} GiB that the "
            f"system of {recipe.device} keeps, so that nothing can run. Give the memory of the whole device: "
            "'edgepress plan --memory GIB'."
        )
    model = open_source(source, recipe.export.extra_graphs)
    warn_about_scheduler_options(model.folder)
    check_exported_schedule(model.folder, model.family)
    chosen = size or _resolve_size(recipe, model)
    check_image_size(model.family, model.configs, *chosen)
    return _PlanningInputs(model, recipe.hardware, chosen, memory_bytes)


def _find_memory(hardware: Hardware, memory: float | None) -> int:
    """The memory of a device in bytes; that of this system where nothing says it.

    Raises:
        UserError: Nothing does, nor this system.
    """
    if memory is None and not hardware.memory:
        limit = read_memory_limit()
        if limit is None:
            raise UserError("This system does not tell how much memory it has. Run 'edgepress plan --memory GIB'.")
        return limit
    return int((memory or hardware.memory[0]) * 2**30)


def _resolve_size(recipe: Recipe, model: SourcePipeline) -> tuple[int, int]:
    size = recipe.presets.quality.size
    return (read_native_size(model.folder),) * 2 if size == "native" else size
