"""Cutting stacks: the fewest parts within limits, counted by brute force."""

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
    """Where building allows so many parameters and the device's memory any number."""
    return PartLimits(2**60, estimate_build_bytes(parameters, 0) + 1, blocks)


@pytest.mark.parametrize("most", [10, 13, 20, 31, 77, 500])
@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_parts_hold_every_block_once_and_are_the_fewest_of_equal_ones(count: int, most: int) -> None:
    found = split_blocks([10] * count, 0, 16, make_limits(most))
    assert [block for run in found for block in run] == list(range(count))
    assert max(10 * len(run) for run in found) <= most
    assert len(found) == -(-count // (most // 10))


def test_what_runs_around_the_blocks_counts_in_the_first_part() -> None:
    assert len(split_blocks([10, 10, 10], 0, 16, make_limits(30))) == 1
    assert len(split_blocks([10, 10, 10], 5, 16, make_limits(30))) == 2


def test_the_device_and_the_recipe_limit_parts_too() -> None:
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


def test_a_block_that_is_too_large_alone_is_told() -> None:
    with pytest.raises(UserError, match=r"raise rknn\.build_memory"):
        split_blocks([10, 10], 5, 16, make_limits(12))


def test_parts_hand_over_their_first_input() -> None:
    states, time, out = Port("states", (None,)), Port("time", (None,)), Port("out", (None,))
    graph = Graph("g", "c", "m:M", (states, time), (out,))
    first, last = split_graph(graph, BlockStack("layers"), [range(2), range(2, 5)])
    assert (first.name, last.name) == ("g-1-of-2", "g-2-of-2")
    assert first.graph.outputs == (states,)
    assert last.graph.outputs == (out,)
    assert last.graph.inputs == (states, time)
    assert [part.name for part in split_graph(graph, BlockStack("layers"), [range(5)])] == ["g"]


def test_building_takes_what_was_measured_of_blocks_of_full_size() -> None:
    """66 s and 49 s of one block at two sizes of pictures, 450 s of three (docs/benchmarks.md)."""
    assert 49 < estimate_build_seconds(183 * 10**6) < 66
    assert estimate_build_seconds(544 * 10**6) == pytest.approx(450, rel=0.02)
