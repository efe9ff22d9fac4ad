"""Where a graph is cut: into as few runs of blocks as keep every part within what one model may take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ....common.errors import UserError
from ....models.base.graph import Graph
from ....models.base.npu import BlockStack, GraphPart, split_graph
from ...graph.trace import build_empty_component
from .footprint import measure_footprint

DOMAIN_BYTES = 4 * 2**30  # bytes that one memory domain of the NPU addresses
WEIGHT_BITS = {"fp16": 16, "w8a8": 8, "w4a16": 4}  # of a weight
# Bytes on the device for a number of the activations that are there at once, in fp16, and for a parameter and such a
# number while building and simulating, besides a start; seconds of building on two cores, which grow with the square of
# the parameters. From blocks of full size and the small text encoder beside them (`make bench-rknn`); the bytes are of
# one block, as three took a tenth less than they say; those for activations while building, from blocks of 1,088 and of
# 4,224 tokens in earlier trials.
BYTES_PER_LIVE_ELEMENT = 3.5
BUILD_BASE_BYTES, BUILD_BYTES_PER_PARAMETER, BUILD_BYTES_PER_LIVE_ELEMENT = 0.37e9, 22.2, 5.0
BUILD_BASE_SECONDS, BUILD_SECONDS_PER_PARAMETER, BUILD_SECONDS_PER_SQUARED_PARAMETER = 2.5, 0.035e-6, 1.44e-15


@dataclass(frozen=True)
class PartLimits:
    """What one part may be. memory: bytes on the device. build: bytes that its building may take. blocks: at most."""

    device_bytes: int
    build_bytes: int
    max_blocks: int

    def max_parameters(self, bits: int, live_elements: int) -> int:
        """That a part may have, with so many numbers of activations at once."""
        build_limit = (
            self.build_bytes - BUILD_BASE_BYTES - BUILD_BYTES_PER_LIVE_ELEMENT * live_elements
        ) / BUILD_BYTES_PER_PARAMETER
        return int(min(build_limit, (self.device_bytes - BYTES_PER_LIVE_ELEMENT * live_elements) * 8 / bits))


def estimate_build_bytes(parameters: int, live_elements: int) -> int:
    """Bytes that building a part takes."""
    return int(BUILD_BASE_BYTES + BUILD_BYTES_PER_PARAMETER * parameters + BUILD_BYTES_PER_LIVE_ELEMENT * live_elements)


def estimate_build_seconds(parameters: int) -> float:
    """Seconds that building a part takes on two cores."""
    return (
        BUILD_BASE_SECONDS
        + BUILD_SECONDS_PER_PARAMETER * parameters
        + BUILD_SECONDS_PER_SQUARED_PARAMETER * parameters**2
    )


def split_evenly(count: int, pieces: int) -> list[range]:
    """range(count) in runs as equal as can be, the longer ones last."""
    ends = [count * number // pieces for number in range(pieces + 1)]
    return [range(begin, end) for begin, end in pairwise(ends)]


def split_blocks(
    block_parameters: Sequence[int], extra_parameters: int, bits: int, limits: PartLimits, live_elements: int = 0
) -> list[range]:
    """The fewest runs of blocks within limits.

    Args:
        blocks: parameters of each. around: parameters that come on top, all of them counted in the first part.
        live: numbers of activations that are there at once.

    Raises:
        UserError: one block alone is too large.
    """
    max_parameters = limits.max_parameters(bits, live_elements)
    for pieces in range(1, len(block_parameters) + 1):
        ranges = split_evenly(len(block_parameters), pieces)
        sizes = [sum(block_parameters[run.start : run.stop]) for run in ranges]
        sizes[0] += extra_parameters
        if max(sizes) <= max_parameters and max(map(len, ranges)) <= limits.max_blocks:
            return ranges
    raise _make_too_large_error(max([*block_parameters, block_parameters[0] + extra_parameters]), max_parameters)


def partition_graph(
    graph: Graph, stack: BlockStack | None, folder: Path, axis_sizes: Mapping[str, int], bits: int, limits: PartLimits
) -> list[GraphPart]:
    """The parts of a graph of a component folder, its axes of some sizes.

    Raises:
        UserError: what cannot be cut any further is too large.
    """
    smallest = measure_footprint(GraphPart(graph.name, graph, range(1) if stack else None), folder, axis_sizes)
    if stack is None:
        if smallest.parameters > limits.max_parameters(bits, smallest.live_elements):
            raise _make_too_large_error(smallest.parameters, limits.max_parameters(bits, smallest.live_elements))
        return split_graph(graph, None, [])
    component = build_empty_component(folder)
    extra_parameters = sum(_count_parameters(component.get_submodule(path)) for path in stack.extra_modules)
    return split_graph(
        graph,
        stack,
        split_blocks(count_block_parameters(stack, folder), extra_parameters, bits, limits, smallest.live_elements),
    )


def make_single_part(graph: Graph, stack: BlockStack | None, folder: Path) -> GraphPart:
    """A graph of a component folder in one piece."""
    return GraphPart(graph.name, graph, range(len(count_block_parameters(stack, folder))) if stack else None)


def _make_too_large_error(parameters: int, max_parameters: int) -> UserError:
    return UserError(
        f"A part of {parameters / 1e6:.0f} million parameters is the smallest that can be, and "
        f"{max(max_parameters, 0) / 1e6:.0f} million fit what one part may take; raise rknn.build_memory in the recipe, or make "
        "rknn.size smaller."
    )


def count_block_parameters(stack: BlockStack, folder: Path) -> list[int]:
    """Parameters of each block that is run."""
    component = build_empty_component(folder)
    modules = list(getattr(getattr(component, "base_model", component), stack.path))
    return [_count_parameters(module) for module in modules[: len(modules) - stack.unused_blocks]]


def _count_parameters(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
