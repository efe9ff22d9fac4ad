"""Further copies of a block after those that were traced: tracing takes a second a block, copying its nodes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

TEMPLATE_INDEX = 2  # what is copied: the first may hold what all share, the second shows what repeats
INSERT_INDEX = TEMPLATE_INDEX + 1  # the copy after it, where further ones go in
MIN_BLOCKS = INSERT_INDEX + 1  # copies that must be there
NodeSpan = Sequence[ir.Node]


def repeat_block(model: ir.Model, path: str, count: int) -> bool:
    """Puts `more` copies of the block PATH.2 behind it, in place; later ones move up: PATH.3 becomes PATH.(3 + more).

    A graph that has none of the block stays as it is. A copy's nodes are those from the first that reads one of its
    weights to the first that reads the next copy's. Gives False, and changes nothing, unless copies 0 to 3 are there,
    the nodes of 1 and 2 are the same but for their weights and what they read of the copy before, and 3 reads of 2 what
    2 reads of 1, nothing else doing so.
    """
    nodes = list(model.graph)
    if _find_first_reader(nodes, f"{path}.") is None:
        return True
    starts = [_find_first_reader(nodes, f"{path}.{copy}.") for copy in range(MIN_BLOCKS)]
    if None in starts:
        return False
    first, second, third = (
        nodes[starts[copy] : starts[copy + 1] if copy + 1 < MIN_BLOCKS else None] for copy in range(1, MIN_BLOCKS)
    )
    edges = _find_cross_edges(first, second)
    if not _are_equivalent(first, second, path) or edges is None or edges != _find_cross_edges(second, third):
        return False
    _renumber_weights(model, path, count)
    last: NodeSpan = second
    for copy in range(INSERT_INDEX, INSERT_INDEX + count):
        last = _insert_copy(model, second, last, edges, (f"{path}.{TEMPLATE_INDEX}.", f"{path}.{copy}."))
    _rewire(second, last, third)
    return True


def _find_first_reader(nodes: Sequence[ir.Node], prefix: str) -> int | None:
    return next(
        (place for place, node in enumerate(nodes) if any(_is_weight_under(v, prefix) for v in node.inputs)), None
    )


def _is_weight_under(value: ir.Value | None, prefix: str) -> bool:
    return value is not None and value.is_initializer() and (value.name or "").startswith(prefix)


def _index_outputs(window: NodeSpan) -> dict[ir.Value, tuple[int, int]]:
    """Where in a window each value is made: the node's place, and the output's."""
    return {value: (place, at) for place, node in enumerate(window) for at, value in enumerate(node.outputs)}


def _find_cross_edges(span: NodeSpan, following: NodeSpan) -> set[tuple[int, int, int, int]] | None:
    """What the nodes after a window read of it: the place of the output, and of the input in what follows.

    None where something else reads it too: a node that does not follow, or the graph's outputs.
    """
    outputs, places = _index_outputs(span), {node: place for place, node in enumerate(following)}
    edges = set()
    for value, (place, at) in outputs.items():
        if value.is_graph_output():
            return None
        for user, number in value.uses():
            if user in places:
                edges.add((place, at, places[user], number))
            elif user not in span:
                return None
    return edges


def _are_equivalent(first: NodeSpan, second: NodeSpan, path: str) -> bool:
    """Whether two windows are the same but for their weights and what they read from outside of themselves."""
    first_outputs, second_outputs = _index_outputs(first), _index_outputs(second)
    return len(first) == len(second) and all(
        _is_same_node(a, b)
        and all(
            _is_same_input(x, y, first_outputs, second_outputs, (f"{path}.1.", f"{path}.{TEMPLATE_INDEX}."))
            for x, y in zip(a.inputs, b.inputs, strict=True)
        )
        for a, b in zip(first, second, strict=True)
    )


def _is_same_node(first: ir.Node, second: ir.Node) -> bool:
    kinds = [(node.op_identifier(), len(node.inputs), len(node.outputs)) for node in (first, second)]
    attributes = [
        {name: _get_attribute_value(attribute) for name, attribute in node.attributes.items()}
        for node in (first, second)
    ]
    return kinds[0] == kinds[1] and attributes[0] == attributes[1]


def _get_attribute_value(attribute: ir.Attr) -> object:
    value = attribute.value
    return value.tobytes() if isinstance(value, ir.TensorProtocol) else value


def _is_same_input(
    first: ir.Value | None,
    second: ir.Value | None,
    first_outputs: Mapping[ir.Value, tuple[int, int]],
    second_outputs: Mapping[ir.Value, tuple[int, int]],
    prefixes: tuple[str, str],
) -> bool:
    """Whether the second of two windows reads what the first one does, or reads it of the first."""
    if first is None or second is None or first is second:
        return first is second
    if second in second_outputs:
        return first_outputs.get(first) == second_outputs[second]
    if second in first_outputs:
        return first not in first_outputs
    if not (first.is_initializer() and second.is_initializer()) or (first.dtype, first.shape) != (
        second.dtype,
        second.shape,
    ):
        return False
    if first.const_value is not None and second.const_value is not None:
        return np.array_equal(first.const_value.numpy(), second.const_value.numpy())
    first, second = prefixes
    return _is_weight_under(first, first) and second.name == second + (first.name or "").removeprefix(first)


def _renumber_weights(model: ir.Model, path: str, count: int) -> None:
    """Gives the weights of the copies from 3 on the names of copies so much later."""
    weights = []
    for value in model.graph.initializers.values():
        number, _, rest = (value.name or "").removeprefix(f"{path}.").partition(".")
        if _is_weight_under(value, f"{path}.") and number.isdigit() and int(number) >= INSERT_INDEX:
            weights.append((int(number), rest, value))
    for copy, rest, value in sorted(weights, key=lambda one: -one[0]):  # the last first: no name is there twice
        value.name = f"{path}.{copy + count}.{rest}"


def _insert_copy(
    model: ir.Model,
    source: NodeSpan,
    last: NodeSpan,
    edges: set[tuple[int, int, int, int]],
    prefixes: tuple[str, str],
) -> NodeSpan:
    """Puts a copy of a window behind the `last` one, reading of that what the source reads of the one before it."""
    old, new = prefixes
    values: dict[ir.Value | None, ir.Value | None] = {}
    for place, at, user, number in edges:
        values[source[user].inputs[number]] = last[place].outputs[at]
    nodes: list[ir.Node] = []
    for node in source:
        for value in node.inputs:
            if value is not None and _is_weight_under(value, old) and value not in values:
                values[value] = _add_weight_like(model, value, new + (value.name or "").removeprefix(old))
        copy = ir.Node(
            node.domain,
            node.op_type,
            [values.get(value, value) for value in node.inputs],
            dict(node.attributes),
            overload=node.overload,
            num_outputs=len(node.outputs),
            version=node.version,
        )
        for value, output in zip(node.outputs, copy.outputs, strict=True):
            output.name, output.type, output.shape = f"{new}{value.name}", value.type, value.shape
            values[value] = output
        nodes.append(copy)
    model.graph.insert_after(last[-1], nodes)
    return nodes


def _add_weight_like(model: ir.Model, like: ir.Value, name: str) -> ir.Value:
    value = ir.Value(name=name, type=like.type, shape=like.shape, const_value=like.const_value)
    model.graph.initializers[name] = value
    return value


def _rewire(source: NodeSpan, last: NodeSpan, following: NodeSpan) -> None:
    """Has what follows read of the last window what it read of the source."""
    outputs, users = _index_outputs(source), set(following)
    for value, (place, at) in outputs.items():
        for user, number in list(value.uses()):
            if user in users:
                user.replace_input_with(number, last[place].outputs[at])
