"""Repeating a block: on graphs made by hand, whose whole form is made by the same hand."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from helpers.small_graphs import FLOAT, empty
from onnx.reference import ReferenceEvaluator

from edgepress.export.graph.passes.repeat_blocks import repeat_block

WIDTH = 3


class Chain:
    """A graph of blocks x := tanh(x * W) + x * s, in which s is computed once, by the first block."""

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
        self.weights.append(empty(name, (WIDTH, WIDTH)))
        return self.weights[-1]

    def model(self, *outputs: ir.Value) -> ir.Model:
        for number, value in enumerate(outputs):
            value.name, value.shape = f"y{number}", ir.Shape(["n", WIDTH])
        graph = ir.Graph([self.x], outputs, nodes=self.nodes, initializers=self.weights, opset_imports={"": 21})
        return ir.Model(graph, ir_version=10)


def blocks(count: int, odd: int | None = None) -> tuple[Chain, list[ir.Value]]:
    """A chain and what each block leaves; the `odd` one is another function."""
    chain = Chain()
    states, shared = [chain.x], None
    for number in range(count):
        product = chain.add("MatMul", states[-1], chain.weight(f"blocks.{number}.linear.weight"))
        shared = chain.add("Sigmoid", chain.x) if shared is None else shared
        turned = chain.add("Sin" if number == odd else "Tanh", product)
        states.append(chain.add("Add", turned, chain.add("Mul", states[-1], shared)))
    return chain, states[1:]


def closed(chain: Chain, state: ir.Value) -> ir.Model:
    return chain.model(chain.add("MatMul", state, chain.weight("last.weight")))


def answer(model: ir.Model, x: np.ndarray) -> list[np.ndarray]:
    """What a graph gives, its weights being of their names alone."""
    for name, value in model.graph.initializers.items():
        seed = sum(name.encode())
        values = np.random.default_rng(seed).standard_normal((WIDTH, WIDTH)).astype(np.float32)
        value.const_value = ir.tensor(values, name=name)
    return ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})


@pytest.mark.parametrize(("traced", "more"), [(4, 1), (5, 1), (5, 7)])
def test_copies_are_what_the_whole_graph_has(traced: int, more: int) -> None:
    chain, states = blocks(traced)
    model = closed(chain, states[-1])
    chain, states = blocks(traced + more)
    whole = closed(chain, states[-1])
    assert repeat_block(model, "blocks", more)
    assert sorted(model.graph.initializers) == sorted(whole.graph.initializers)
    assert [node.op_type for node in model.graph] == [node.op_type for node in whole.graph]
    names = [value.name for node in model.graph for value in node.outputs]
    assert len(set(names)) == len(names)
    x = np.random.default_rng(0).standard_normal((2, WIDTH)).astype(np.float32)
    assert np.array_equal(answer(model, x), answer(whole, x))


def test_a_graph_without_the_block_stays() -> None:
    model = closed(*_last(blocks(5)))
    count = len(list(model.graph))
    assert repeat_block(model, "others", 3)
    assert len(list(model.graph)) == count


def _last(made: tuple[Chain, list[ir.Value]]) -> tuple[Chain, ir.Value]:
    return made[0], made[1][-1]


def skipping() -> ir.Model:
    """What the third block leaves is read at the end as well."""
    chain, states = blocks(5)
    return closed(chain, chain.add("Add", states[-1], states[2]))


def showing() -> ir.Model:
    """What the second block leaves is an output."""
    chain, states = blocks(5)
    return chain.model(chain.add("Tanh", states[-1]), states[1])


def tabled() -> ir.Model:
    """Each block adds a number of its own."""
    chain = Chain()
    state = chain.x
    for number in range(5):
        state = chain.add("MatMul", state, chain.weight(f"blocks.{number}.linear.weight"))
        table = ir.Value(name=f"table{number}", const_value=ir.tensor(np.array([number], np.float32)), type=FLOAT)
        chain.weights.append(table)
        state = chain.add("Add", state, table)
    return closed(chain, state)


@pytest.mark.parametrize(
    "model",
    [closed(*_last(blocks(3))), closed(*_last(blocks(5, odd=2))), skipping(), showing(), tabled()],
    ids=["too few", "one is another", "skips", "is an output", "other tables"],
)
def test_what_is_no_repetition_is_left_alone(model: ir.Model) -> None:
    before = [(node.op_type, [value.name for value in node.inputs if value]) for node in model.graph]
    names = list(model.graph.initializers)
    assert not repeat_block(model, "blocks", 2)
    assert [(node.op_type, [value.name for value in node.inputs if value]) for node in model.graph] == before
    assert list(model.graph.initializers) == names
