from __future__ import annotations

from edgepress.models.base.graph import Graph, Port

PORTS = (
    Port("patches", (None, "N", None)),
    Port("caption", (None, "L", None)),
    Port("guidance", (None,), config_key="guidance_embeds"),
    Port("positions", ("N", "L")),
)
GRAPH = Graph("transformer", "transformer", "package.module:Class", PORTS, (Port("velocity", (None, "2*N", None)),))


def test_dynamic_axes_are_those_of_the_inputs_in_order_of_their_first_use() -> None:
    assert GRAPH.dynamic_axes == ("N", "L")
    assert Graph("a", "b", "c", (), ()).dynamic_axes == ()


def test_a_config_switches_inputs_on() -> None:
    always = ["patches", "caption", "positions"]
    for config in ({}, {"guidance_embeds": False}, {"guidance_embeds": None}):
        assert [port.name for port in GRAPH.for_config(config).inputs] == always
    graph = GRAPH.for_config({"guidance_embeds": True})
    assert graph == GRAPH
    assert [port.name for port in graph.inputs] == ["patches", "caption", "guidance", "positions"]
