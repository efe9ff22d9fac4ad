"""Where a graph is cut: into as few runs of blocks as keep every part within what one model may take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...models.graphs import Graph
from ...models.npu import Part, Stack, parts_of
from ..onnx.trace import empty_component

DOMAIN = 4 * 2**30  # bytes that one memory domain of the NPU addresses
BITS = {"fp16": 16, "w8a8": 8, "w4a16": 4}  # of a weight
FLOAT = 4  # bytes of a weight in the ONNX that the toolkit reads
BUILD_BASE = 0.6e9  # bytes that the toolkit takes before it reads anything
BUILD_FACTOR = 6.0  # bytes that it takes for each byte of ONNX


@dataclass(frozen=True)
class Limits:
    """What one part may be. weights: bytes on the device. build: bytes that its building may take. blocks: at most."""

    weights: int
    build: int
    blocks: int

    @property
    def parameters(self) -> int:
        """That building allows."""
        return int((self.build - BUILD_BASE) / BUILD_FACTOR / FLOAT)


def even(count: int, pieces: int) -> list[range]:
    """range(count) in runs as equal as can be, the longer ones last."""
    ends = [count * number // pieces for number in range(pieces + 1)]
    return [range(begin, end) for begin, end in pairwise(ends)]


def runs(blocks: Sequence[int], around: int, bits: int, limits: Limits) -> list[range]:
    """The fewest runs of blocks within limits.

    Args:
        blocks: parameters of each. around: parameters that come on top, all of them counted in the first part.

    Raises:
        UserError: one block alone is too large.
    """
    most = min(limits.parameters, limits.weights * 8 // bits)
    for pieces in range(1, len(blocks) + 1):
        cut = even(len(blocks), pieces)
        sizes = [sum(blocks[run.start : run.stop]) for run in cut]
        sizes[0] += around
        if max(sizes) <= most and max(map(len, cut)) <= limits.blocks:
            return cut
    largest = max([*blocks, blocks[0] + around])
    raise UserError(
        f"A part of {largest / 1e6:.0f} million parameters is the smallest that can be, and {most / 1e6:.0f} million "
        "fit what one part may take; raise rknn.build_memory in the recipe."
    )


def cut(graph: Graph, stack: Stack | None, folder: Path, bits: int, limits: Limits) -> list[Part]:
    """The parts of a graph of a component folder."""
    if stack is None:
        return parts_of(graph, None, [])
    component = empty_component(folder)
    modules = list(getattr(getattr(component, "base_model", component), stack.path))
    count = len(modules) - stack.unread
    sizes = [_parameters(module) for module in modules[:count]]
    around = sum(_parameters(component.get_submodule(path)) for path in stack.around)
    return parts_of(graph, stack, runs(sizes, around, bits, limits))


def _parameters(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
