"""Graphs in parts, and what they are made from."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepress.common.errors import UserError
from edgepress.models.base.family import Family
from edgepress.models.base.graph import Graph, Port
from edgepress.models.base.npu import (
    BlockStack,
    NpuSpec,
    load_npu_host_class,
    load_npu_spec,
    split_graph,
    with_tiled_decoder,
)
from edgepress.models.base.tiling import DecoderTiling
from edgepress.models.registry import load_families

GRAPH = Graph("encoder", "text_encoder", "", (Port("x", ("T",)), Port("cos", ("T",))), (Port("y", ("T",)),))
STACK = BlockStack("layers")
NPU = NpuSpec((GRAPH, Graph("decoder", "vae", "", (), ())), {}, "", {}, ("", ""), ("", ""))


def test_a_graph_without_a_stack_is_one_part() -> None:
    (part,) = split_graph(GRAPH, None, [range(1), range(1, 2)])
    assert (part.name, part.graph, part.blocks) == ("encoder", GRAPH, None)


@pytest.mark.slow
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_parts_run_all_blocks_in_a_chain(lengths: list[int]) -> None:
    """What a part returns is the first input of the next one; the last one returns the graph's output."""
    ends = [sum(lengths[: number + 1]) for number in range(len(lengths))]
    ranges = [range(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    parts = split_graph(GRAPH, STACK, ranges)
    assert [block for part in parts if part.blocks for block in part.blocks] == list(range(sum(lengths)))
    assert len({part.name for part in parts}) == len(parts)
    assert all(part.graph.name == part.name for part in parts)
    assert all(part.graph.inputs == GRAPH.inputs for part in parts)
    for part, following in pairwise(parts):
        assert part.graph.outputs == following.graph.inputs[:1]
    assert parts[-1].graph.outputs == GRAPH.outputs


def test_names_of_parts() -> None:
    assert [part.name for part in split_graph(GRAPH, STACK, [range(8)])] == ["encoder"]
    parts = split_graph(GRAPH, STACK, [range(4), range(4, 8)])
    assert [part.name for part in parts] == ["encoder-1-of-2", "encoder-2-of-2"]


def test_the_decoder_is_replaced_by_the_graphs_of_its_tiles() -> None:
    tiles = tuple(Graph(name, "vae", "", (), ()) for name in ("first", "tile"))
    host: Any = SimpleNamespace(decoder_graph="decoder", decoder_tiling=None)
    assert with_tiled_decoder(NPU, host) == NPU
    host.decoder_tiling = DecoderTiling(64, "first", (), tiles, {})
    tiled = with_tiled_decoder(NPU, host)
    assert tiled.graphs == (GRAPH, *tiles)
    assert (tiled.graph("tile"), tiled.graph("decoder")) == (tiles[1], None)


def test_a_family_without_an_npu_is_named() -> None:
    with pytest.raises(UserError, match=r"SomePipeline is not supported on NPUs\. See docs"):
        load_npu_spec(Family("SomePipeline", "transformer"))


def test_every_family_with_an_npu_has_its_spec_and_host() -> None:
    specs = [load_npu_spec(family) for family in load_families().values() if family.npu]
    assert specs
    for spec in specs:
        assert set(spec.stacks) <= {graph.name for graph in spec.graphs}
        assert load_npu_host_class(spec).__name__.endswith("Host")
