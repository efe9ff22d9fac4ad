"""Splitting graphs: the fewest parts within the limits."""

from __future__ import annotations

import pytest

from edgepress.common.errors import UserError
from edgepress.export.rknn.planning.partition import (
    BYTES_PER_LIVE_ELEMENT,
    PartLimits,
    estimate_build_bytes,
    estimate_build_seconds,
    split_blocks,
)
from edgepress.models.base.graph import Graph, Port
from edgepress.models.base.npu import BlockStack, split_graph


def make_limits(parameters: int, blocks: int = 99) -> PartLimits:
    """Limits that allow a number of parameters when building, and any number on the device."""
    return PartLimits(2**60, estimate_build_bytes(parameters, 0) + 1, blocks)


@pytest.mark.parametrize("max_parameters", [10, 13, 20, 31, 77, 500])
@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_ranges_cover_every_block_once_and_are_as_few_as_possible(count: int, max_parameters: int) -> None:
    ranges = split_blocks([10] * count, 0, 16, make_limits(max_parameters))
    assert [block for blocks in ranges for block in blocks] == list(range(count))
    assert max(10 * len(blocks) for blocks in ranges) <= max_parameters
    assert len(ranges) == -(-count // (max_parameters // 10))


def test_extra_parameters_count_in_the_first_part() -> None:
    assert len(split_blocks([10, 10, 10], 0, 16, make_limits(30))) == 1
    assert len(split_blocks([10, 10, 10], 5, 16, make_limits(30))) == 2


def test_device_memory_and_number_of_blocks_limit_parts() -> None:
    assert len(split_blocks([100] * 4, 0, 16, PartLimits(400, 2**60, 99))) == 2
    assert len(split_blocks([100] * 4, 0, 4, PartLimits(400, 2**60, 99))) == 1
    assert len(split_blocks([100] * 4, 0, 16, make_limits(10**6, blocks=1))) == 4


def test_activations_leave_less_room_for_parameters() -> None:
    roomy = PartLimits(2**60, estimate_build_bytes(30 * 10**6, 10**8) + 1, 99)
    assert len(split_blocks([10**7] * 3, 0, 16, roomy, live_elements=10**8)) == 1
    assert len(split_blocks([10**7] * 3, 0, 16, roomy, live_elements=10**8 + 10**6)) == 2
    held = PartLimits(400 + int(10 * BYTES_PER_LIVE_ELEMENT), 2**60, 99)
    assert len(split_blocks([100] * 4, 0, 16, held, live_elements=10)) == 2
    assert len(split_blocks([100] * 4, 0, 16, held, live_elements=11)) == 4


def test_a_single_block_that_is_too_large_raises() -> None:
    with pytest.raises(UserError, match=r"Raise rknn\.build_memory"):
        split_blocks([10, 10], 5, 16, make_limits(12))


def test_the_first_input_of_a_part_is_the_output_of_the_part_before() -> None:
    states, time, out = Port("states", (None,)), Port("time", (None,)), Port("out", (None,))
    graph = Graph("g", "c", "m:M", (states, time), (out,))
    first, last = split_graph(graph, BlockStack("layers"), [range(2), range(2, 5)])
    assert (first.name, last.name) == ("g-1-of-2", "g-2-of-2")
    assert first.graph.outputs == (states,)
    assert last.graph.outputs == (out,)
    assert last.graph.inputs == (states, time)
    assert [part.name for part in split_graph(graph, BlockStack("layers"), [range(5)])] == ["g"]


def test_estimated_build_time_matches_measurements_of_full_size_blocks() -> None:
    """One block took 66 s and 49 s at two image sizes, three blocks took 450 s (docs/benchmarks/rknn.md)."""
    assert 49 < estimate_build_seconds(183 * 10**6) < 66
    assert estimate_build_seconds(544 * 10**6) == pytest.approx(450, rel=0.02)
