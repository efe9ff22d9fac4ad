"""Where a graph is cut: into as few runs of blocks as keep every part within what one model may take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...models.graphs import Graph
from ...models.npu import Part, Stack, parts_of
from ..onnx.trace import empty_component
from .weigh import weigh

DOMAIN = 4 * 2**30  # bytes that one memory domain of the NPU addresses
BITS = {"fp16": 16, "w8a8": 8, "w4a16": 4}  # of a weight
# Bytes on the device for a number of the activations that are there at once, in fp16, and for a parameter and such a
# number while building and simulating, besides a start; seconds of building on two cores, which grow with the square of
# the parameters. From blocks of full size and the small text encoder beside them (`make bench-rknn`); the bytes are of
# one block, as three took a tenth less than they say; those for activations while building, from blocks of 1,088 and of
# 4,224 tokens in earlier trials.
LIVE = 3.5
BUILD_START, BUILD_PARAMETER, BUILD_LIVE = 0.37e9, 22.2, 5.0
SECONDS_START, SECONDS_PARAMETER, SECONDS_SQUARE = 2.5, 0.035e-6, 1.44e-15


@dataclass(frozen=True)
class Limits:
    """What one part may be. memory: bytes on the device. build: bytes that its building may take. blocks: at most."""

    memory: int
    build: int
    blocks: int

    def parameters(self, bits: int, live: int) -> int:
        """That a part may have, with so many numbers of activations at once."""
        built = (self.build - BUILD_START - BUILD_LIVE * live) / BUILD_PARAMETER
        return int(min(built, (self.memory - LIVE * live) * 8 / bits))


def build_memory(parameters: int, live: int) -> int:
    """Bytes that building a part takes."""
    return int(BUILD_START + BUILD_PARAMETER * parameters + BUILD_LIVE * live)


def build_seconds(parameters: int) -> float:
    """Seconds that building a part takes on two cores."""
    return SECONDS_START + SECONDS_PARAMETER * parameters + SECONDS_SQUARE * parameters**2


def even(count: int, pieces: int) -> list[range]:
    """range(count) in runs as equal as can be, the longer ones last."""
    ends = [count * number // pieces for number in range(pieces + 1)]
    return [range(begin, end) for begin, end in pairwise(ends)]


def runs(blocks: Sequence[int], around: int, bits: int, limits: Limits, live: int = 0) -> list[range]:
    """The fewest runs of blocks within limits.

    Args:
        blocks: parameters of each. around: parameters that come on top, all of them counted in the first part.
        live: numbers of activations that are there at once.

    Raises:
        UserError: one block alone is too large.
    """
    most = limits.parameters(bits, live)
    for pieces in range(1, len(blocks) + 1):
        cut = even(len(blocks), pieces)
        sizes = [sum(blocks[run.start : run.stop]) for run in cut]
        sizes[0] += around
        if max(sizes) <= most and max(map(len, cut)) <= limits.blocks:
            return cut
    raise _too_large(max([*blocks, blocks[0] + around]), most)


def cut(
    graph: Graph, stack: Stack | None, folder: Path, sizes: Mapping[str, int], bits: int, limits: Limits
) -> list[Part]:
    """The parts of a graph of a component folder, its axes of some sizes.

    Raises:
        UserError: what cannot be cut any further is too large.
    """
    smallest = weigh(Part(graph.name, graph, range(1) if stack else None), folder, sizes)
    if stack is None:
        if smallest.parameters > limits.parameters(bits, smallest.live):
            raise _too_large(smallest.parameters, limits.parameters(bits, smallest.live))
        return parts_of(graph, None, [])
    component = empty_component(folder)
    around = sum(_parameters(component.get_submodule(path)) for path in stack.around)
    return parts_of(graph, stack, runs(block_sizes(stack, folder), around, bits, limits, smallest.live))


def whole(graph: Graph, stack: Stack | None, folder: Path) -> Part:
    """A graph of a component folder in one piece."""
    return Part(graph.name, graph, range(len(block_sizes(stack, folder))) if stack else None)


def _too_large(parameters: int, most: int) -> UserError:
    return UserError(
        f"A part of {parameters / 1e6:.0f} million parameters is the smallest that can be, and "
        f"{max(most, 0) / 1e6:.0f} million fit what one part may take; raise rknn.build_memory in the recipe, or make "
        "rknn.size smaller."
    )


def block_sizes(stack: Stack, folder: Path) -> list[int]:
    """Parameters of each block that is run."""
    component = empty_component(folder)
    modules = list(getattr(getattr(component, "base_model", component), stack.path))
    return [_parameters(module) for module in modules[: len(modules) - stack.unread]]


def _parameters(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
