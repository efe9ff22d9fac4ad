"""Pruning blocks before tracing: which may be pruned, and that the graph is the same in the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
from torch import nn

from edgepress.export.graph import trace as tracing
from edgepress.export.graph.block_pruning import NUM_TRACED_BLOCKS, number_read_blocks, prune_repeated_blocks
from edgepress.models.registry import get_family


class Block(nn.Module):
    """A block with settings, a buffer and a counter."""

    def __init__(self, number: int, width: int = 4, kind: str = "full") -> None:
        super().__init__()
        self.number, self.kind = 1000 + number, kind
        self.linear = nn.Linear(width, width)
        self.register_buffer("table", torch.arange(3.0))


def component(make: Callable[[int], nn.Module], count: int = 8) -> nn.Module:
    model = nn.Module()
    model.inner = nn.Module()
    model.inner.blocks = nn.ModuleList(make(number) for number in range(count))
    return model


def test_five_of_many_blocks_are_kept() -> None:
    model: Any = component(Block)
    assert prune_repeated_blocks(model) == {"inner.blocks": {2: 3}}
    assert [block.number for block in model.inner.blocks] == list(range(1000, 1000 + NUM_TRACED_BLOCKS))


def test_blocks_behind_which_states_are_read_are_kept() -> None:
    model: Any = component(Block, 28)
    assert prune_repeated_blocks(model, (9, 18, 27)) == {"inner.blocks": {2: 5, 3: 8, 4: 8}}
    assert len(model.inner.blocks) == 6
    assert number_read_blocks((9, 18, 27)) == (4, 5, 6)


def test_blocks_that_are_all_read_are_kept() -> None:
    model: Any = component(Block, 3)
    assert prune_repeated_blocks(model, (1, 2, 3)) == {}
    assert number_read_blocks((1, 2, 3)) == (1, 2, 3)


def make_block_with_other_table(number: int) -> Block:
    block = Block(number)
    block.table = torch.full((3,), float(number))
    return block


@pytest.mark.parametrize(
    "make",
    [
        lambda number: Block(number, width=4 + number % 2),
        lambda number: Block(number, kind="full" if number % 2 else "sliding"),
        lambda number: Block(0 if number == 7 else number),
        lambda number: nn.Linear(4, 4) if number == 6 else Block(number),
        make_block_with_other_table,
    ],
    ids=["shape", "setting", "number", "class", "table"],
)
def test_blocks_that_differ_are_kept(make: Callable[[int], nn.Module]) -> None:
    model: Any = component(make)
    assert prune_repeated_blocks(model) == {}
    assert len(model.inner.blocks) == 8


def test_few_blocks_are_kept() -> None:
    assert prune_repeated_blocks(component(Block, NUM_TRACED_BLOCKS)) == {}


def describe(model: ir.Model) -> list[Any]:
    """Returns the nodes of a graph; weights are given by name, other values by the node that produces them."""
    values: dict[ir.Value, Any] = {value: value.name for value in model.graph.inputs}
    for name, value in model.graph.initializers.items():
        values[value] = name if value.const_value is None else value.const_value.numpy().tolist()
    nodes = []
    for number, node in enumerate(model.graph):
        plain = {key: attribute.value for key, attribute in node.attributes.items()}
        attributes = {
            key: value.tobytes() if isinstance(value, ir.TensorProtocol) else value for key, value in plain.items()
        }
        shapes = [(str(value.shape), value.dtype) for value in node.outputs]
        inputs = [values[value] if value else None for value in node.inputs]
        nodes.append((node.op_type, inputs, attributes, shapes))
        values |= {value: (number, at) for at, value in enumerate(node.outputs)}
    return nodes


@pytest.mark.slow
def test_the_graph_equals_that_of_the_whole_component(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five of seven layers are traced; the output of the last is unused.

    The component is a causal language model, as published, so the path of its layers is not that in the graph.
    """
    graph = get_family("ZImagePipeline").graph("text_encoder")
    assert graph is not None
    config = json.loads((tiny / "text_encoder" / "config.json").read_text("utf-8"))
    config.pop("layer_types", None)
    (tmp_path / "config.json").write_text(
        json.dumps(config | {"num_hidden_layers": 7, "max_window_layers": 7, "architectures": ["Qwen3ForCausalLM"]}),
        "utf-8",
    )
    model = tracing.trace_graph(graph, tmp_path)
    monkeypatch.setattr(tracing, "prune_repeated_blocks", lambda *_: {})
    whole = tracing.trace_graph(graph, tmp_path)
    assert any(key.startswith("layers.5.") for key in model.graph.initializers)
    assert describe(model) == describe(whole)
