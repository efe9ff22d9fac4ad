"""Splits a graph between its blocks, into the fewest parts that stay within the limits of one part."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from ....common.errors import UserError
from ....models.base.graph import Graph
from ....models.base.npu import BlockStack, GraphPart, split_graph
from ....pipelines.empty_modules import build_empty_component, load_component_config
from ...planning.footprint import measure_footprint

DOMAIN_BYTES = 4 * 2**30  # that one memory domain of the NPU addresses
WEIGHT_BITS = {"fp16": 16, "w8a8": 8, "w4a16": 4}
# The cost model, from blocks of full size and the small text encoder beside them (`make bench-rknn`). Its bytes fit
# one block; three blocks took 10 % less. The bytes of live elements while building come from earlier trials with blocks
# of 1,088 and of 4,224 tokens. The time is for two cores, and grows with the square of the parameters.
BYTES_PER_LIVE_ELEMENT = 3.5  # on the device, in fp16
BUILD_BASE_BYTES = 0.37e9
BUILD_BYTES_PER_PARAMETER = 22.2
BUILD_BYTES_PER_LIVE_ELEMENT = 5.0
BUILD_BASE_SECONDS = 2.5
BUILD_SECONDS_PER_PARAMETER = 0.035e-6
BUILD_SECONDS_PER_SQUARED_PARAMETER = 1.44e-15


@dataclass(frozen=True)
class PartLimits:
    """The limits of one part.

    Attributes:
        device_bytes: Bytes on the device, for weights and activations.
        build_bytes: Bytes that building and simulating it may take.
        max_blocks: Largest number of blocks.
    """

    device_bytes: int
    build_bytes: int
    max_blocks: int

    def compute_max_parameters(self, bits: int, live_elements: int) -> int:
        """Computes how many parameters a part may have.

        Args:
            bits: Bits of a weight on the device.
            live_elements: Peak number of activation elements.
        """
        build_limit = (
            self.build_bytes - BUILD_BASE_BYTES - BUILD_BYTES_PER_LIVE_ELEMENT * live_elements
        ) / BUILD_BYTES_PER_PARAMETER
        device_limit = (self.device_bytes - BYTES_PER_LIVE_ELEMENT * live_elements) * 8 / bits
        return int(min(build_limit, device_limit))


def estimate_build_bytes(parameters: int, live_elements: int) -> int:
    """Estimates the memory that building and simulating a part takes, in bytes."""
    return int(BUILD_BASE_BYTES + BUILD_BYTES_PER_PARAMETER * parameters + BUILD_BYTES_PER_LIVE_ELEMENT * live_elements)


def estimate_build_seconds(parameters: int) -> float:
    """Estimates the time to build a part on two cores, in seconds."""
    return (
        BUILD_BASE_SECONDS
        + BUILD_SECONDS_PER_PARAMETER * parameters
        + BUILD_SECONDS_PER_SQUARED_PARAMETER * parameters**2
    )


def split_evenly(count: int, pieces: int) -> list[range]:
    """Splits `range(count)` into consecutive ranges of as equal lengths as possible, the longer ones last."""
    ends = [count * number // pieces for number in range(pieces + 1)]
    return [range(begin, end) for begin, end in pairwise(ends)]


def split_blocks(
    block_parameters: Sequence[int], extra_parameters: int, bits: int, limits: PartLimits, live_elements: int = 0
) -> list[range]:
    """Splits blocks into the fewest ranges that stay within the limits.

    Args:
        block_parameters: Number of parameters of each block.
        extra_parameters: Parameters outside the blocks; all of them count in the first part.
        bits: Bits of a weight on the device.
        limits: The limits of one part.
        live_elements: Peak number of activation elements of one part.

    Raises:
        UserError: A single block is too large.
    """
    max_parameters = limits.compute_max_parameters(bits, live_elements)
    for pieces in range(1, len(block_parameters) + 1):
        ranges = split_evenly(len(block_parameters), pieces)
        sizes = [sum(block_parameters[blocks.start : blocks.stop]) for blocks in ranges]
        sizes[0] += extra_parameters
        if max(sizes) <= max_parameters and max(map(len, ranges)) <= limits.max_blocks:
            return ranges
    raise _make_too_large_error(max([*block_parameters, block_parameters[0] + extra_parameters]), max_parameters)


def partition_graph(
    graph: Graph,
    stack: BlockStack | None,
    folder: Path,
    axis_sizes: Mapping[str, int],
    bits: int,
    limits: PartLimits,
) -> list[GraphPart]:
    """Splits a graph into parts.

    Args:
        graph: The graph to split.
        stack: The blocks between which it can be split; None: it cannot be.
        folder: Folder of the graph's component.
        axis_sizes: Size of every axis that the graph names.
        bits: Bits of a weight on the device.
        limits: The limits of one part.

    Raises:
        UserError: What cannot be split any further is too large.
    """
    smallest = measure_footprint(GraphPart(graph.name, graph, range(1) if stack else None), folder, axis_sizes)
    if stack is None:
        max_parameters = limits.compute_max_parameters(bits, smallest.live_elements)
        if smallest.parameters > max_parameters:
            raise _make_too_large_error(smallest.parameters, max_parameters)
        return split_graph(graph, None, [])
    block_parameters, extra_parameters = _count_stack(stack, folder)
    ranges = split_blocks(block_parameters, extra_parameters, bits, limits, smallest.live_elements)
    return split_graph(graph, stack, ranges)


def make_single_part(graph: Graph, stack: BlockStack | None, folder: Path) -> GraphPart:
    """Returns a graph as one part with all its blocks."""
    return GraphPart(graph.name, graph, range(len(_count_stack(stack, folder)[0])) if stack else None)


def _count_stack(stack: BlockStack, folder: Path) -> tuple[list[int], int]:
    """Counts the parameters of each block that the graph runs, and of all modules that run besides them."""
    return _count_stack_of(stack, folder, json.dumps(load_component_config(folder), sort_keys=True))


@cache
def _count_stack_of(stack: BlockStack, folder: Path, config: str) -> tuple[list[int], int]:  # noqa: ARG001  of the key
    component = build_empty_component(folder)
    modules = list(getattr(getattr(component, "base_model", component), stack.path))
    blocks = [_count_parameters(module) for module in modules[: len(modules) - stack.unused_blocks]]
    return blocks, sum(_count_parameters(component.get_submodule(path)) for path in stack.extra_modules)


def _make_too_large_error(parameters: int, max_parameters: int) -> UserError:
    return UserError(
        f"The smallest possible part has {parameters / 1e6:.0f} million parameters, but the limits of one part allow "
        f"only {max(max_parameters, 0) / 1e6:.0f} million. Raise rknn.build_memory in the recipe, or reduce rknn.size."
    )


def _count_parameters(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
