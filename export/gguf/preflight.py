"""Checks an export to GGUF from names and configs, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ...common.errors import UserError
from ...models.base.single_file import SingleFileLayout
from ...models.single_file_layouts import find_layouts
from ...storage.checkpoint import Checkpoint
from ..graph.source_model import SourcePipeline

GgufType = Literal["q4_0", "q4_1", "q8_0"]
NEEDS = {  # the solution for a type, and a scheme that makes one
    "q4_0": ("symmetric 4-bit solution", "q4_0: {group_size: 32, symmetric: true}"),
    "q8_0": (
        "8-bit solution",
        "w8: {bits: 8, group_size: channel, symmetric: true, narrow_range: true, activations: dynamic}",
    ),
}


def choose_layouts(pipeline: SourcePipeline, names: Sequence[str]) -> dict[str, SingleFileLayout]:
    """The layouts of the components to export, by component.

    Raises:
        UserError: A name is not one of them.
    """
    layouts = find_layouts(pipeline.family, pipeline.configs)
    unknown = [name for name in names if name not in layouts]
    if unknown:
        raise UserError(f"{unknown[0]!r} cannot be exported to GGUF. Choose from: {', '.join(layouts)}.")
    return {name: layouts[name] for name in names or layouts}


def require_solution(pipeline: SourcePipeline, component: str, kind: GgufType) -> Checkpoint:
    """Returns the solution of a component that a type needs.

    Raises:
        UserError: There is none.
    """
    find = pipeline.find_8bit_solution if kind == "q8_0" else pipeline.find_symmetric_solution
    solution = find(component)
    if solution is None:
        need, scheme = NEEDS[kind]
        raise UserError(
            f"The {component} in {pipeline.folder} has no {need}, which {kind} needs. Quantize with an additional "
            f"scheme (quantize.extra_schemes: {{{scheme}}})."
        )
    return solution
