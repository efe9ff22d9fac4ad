"""Repeating a block, compared with graphs that contain all blocks."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from helpers.small_graphs import FLOAT, make_initializer
from onnx.reference import ReferenceEvaluator

from edgepress.export.graph.passes.repeat_blocks import repeat_block

WIDTH = 3


class Chain:
    """A graph of blocks x := tanh(x * W) + x * s, where the first block computes s."""

    def __init__(self) -> None:
        self.x = ir.Value(name="x", shape=ir.Shape(["n", WIDTH]), type=FLOAT)
        self.weights: list[ir.Value] = []
        self.nodes: list[ir.Node] = []

    def add(self, operator: str, *inputs: ir.Value) -> ir.Value:
        node = ir.node(operator, inputs)
        node.outputs[0].type = FLOAT
        self.nodes.append(node)
        return node.outputs[0]

    def weight(self, name: str) -> ir.Value:
        self.weights.append(make_initializer(name, (WIDTH, WIDTH)))
        return self.weights[-1]

    def model(self, *outputs: ir.Value) -> ir.Model:
        for number, value in enumerate(outputs):
            value.name, value.shape = f"y{number}", ir.Shape(["n", WIDTH])
        graph = ir.Graph([self.x], outputs, nodes=self.nodes, initializers=self.weights, opset_imports={"": 21})
        return ir.Model(graph, ir_version=10)


def blocks(count: int, odd: int | None = None) -> tuple[Chain, list[ir.Value]]:
    """Returns a chain and the output of each block; block `odd` computes another function."""
    chain = Chain()
    states, shared = [chain.x], None
    for number in range(count):
        product = chain.add("MatMul", states[-1], chain.weight(f"blocks.{number}.linear.weight"))
        shared = chain.add("Sigmoid", chain.x) if shared is None else shared
        activated = chain.add("Sin" if number == odd else "Tanh", product)
        states.append(chain.add("Add", activated, chain.add("Mul", states[-1], shared)))
    return chain, states[1:]


def finish(chain: Chain, state: ir.Value) -> ir.Model:
    return chain.model(chain.add("MatMul", state, chain.weight("last.weight")))


def evaluate(model: ir.Model, x: np.ndarray) -> list[np.ndarray]:
    """Runs a graph with weights that depend on their names alone."""
    for name, value in model.graph.initializers.items():
        seed = sum(name.encode())
        values = np.random.default_rng(seed).standard_normal((WIDTH, WIDTH)).astype(np.float32)
        value.const_value = ir.tensor(values, name=name)
    return ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})


@pytest.mark.parametrize(("num_traced", "count"), [(4, 1), (5, 1), (5, 7)])
def test_copies_equal_the_blocks_of_the_whole_graph(num_traced: int, count: int) -> None:
    chain, states = blocks(num_traced)
    model = finish(chain, states[-1])
    chain, states = blocks(num_traced + count)
    whole = finish(chain, states[-1])
    assert repeat_block(model, "blocks", count)
    assert sorted(model.graph.initializers) == sorted(whole.graph.initializers)
    assert [node.op_type for node in model.graph] == [node.op_type for node in whole.graph]
    names = [value.name for node in model.graph for value in node.outputs]
    assert len(set(names)) == len(names)
    x = np.random.default_rng(0).standard_normal((2, WIDTH)).astype(np.float32)
    assert np.array_equal(evaluate(model, x), evaluate(whole, x))


def test_blocks_behind_which_states_are_read_repeat_up_to_each() -> None:
    """Of blocks 0 to 9, six are traced; the outputs of blocks 5, 7 and 9 are read, then those of 3, 4 and 5."""
    models = []
    for count, read in ((6, (3, 4, 5)), (10, (5, 7, 9))):
        chain, states = blocks(count)
        models.append(chain.model(*(chain.add("Tanh", states[index]) for index in read)))
    model, whole = models
    assert all(repeat_block(model, "blocks", count, index) for index, count in ((4, 1), (3, 1), (2, 2)))
    assert sorted(model.graph.initializers) == sorted(whole.graph.initializers)
    x = np.random.default_rng(0).standard_normal((2, WIDTH)).astype(np.float32)
    for output, expected in zip(evaluate(model, x), evaluate(whole, x), strict=True):
        assert np.array_equal(output, expected)


def test_a_graph_without_the_block_is_left_alone() -> None:
    model = finish(*_last(blocks(5)))
    num_nodes = len(list(model.graph))
    assert repeat_block(model, "others", 3)
    assert len(list(model.graph)) == num_nodes


def _last(chain_and_states: tuple[Chain, list[ir.Value]]) -> tuple[Chain, ir.Value]:
    chain, states = chain_and_states
    return chain, states[-1]


def make_skip_connection() -> ir.Model:
    """The output of the third block is read at the end as well."""
    chain, states = blocks(5)
    return finish(chain, chain.add("Add", states[-1], states[2]))


def make_graph_output() -> ir.Model:
    """The output of the second block is a graph output."""
    chain, states = blocks(5)
    return chain.model(chain.add("Tanh", states[-1]), states[1])


def make_different_tables() -> ir.Model:
    """Each block adds a different constant."""
    chain = Chain()
    state = chain.x
    for number in range(5):
        state = chain.add("MatMul", state, chain.weight(f"blocks.{number}.linear.weight"))
        table = ir.Value(name=f"table{number}", const_value=ir.tensor(np.array([number], np.float32)), type=FLOAT)
        chain.weights.append(table)
        state = chain.add("Add", state, table)
    return finish(chain, state)


@pytest.mark.parametrize(
    "model",
    [
        finish(*_last(blocks(3))),
        finish(*_last(blocks(5, odd=2))),
        make_skip_connection(),
        make_graph_output(),
        make_different_tables(),
    ],
    ids=["too few", "different function", "skip connection", "graph output", "different tables"],
)
def test_blocks_that_do_not_repeat_are_left_alone(model: ir.Model) -> None:
    before = [(node.op_type, [value.name for value in node.inputs if value]) for node in model.graph]
    names = list(model.graph.initializers)
    assert not repeat_block(model, "blocks", 2)
    assert [(node.op_type, [value.name for value in node.inputs if value]) for node in model.graph] == before
    assert list(model.graph.initializers) == names
