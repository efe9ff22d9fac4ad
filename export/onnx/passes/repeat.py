"""Further copies of a block after those that were traced: tracing takes a second a block, copying its nodes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

MODEL_COPY = 2  # what is copied: the first may hold what all share, the second shows what repeats
FOLLOWED = MODEL_COPY + 1  # the copy after it, where further ones go in
LEAST = FOLLOWED + 1  # copies that must be there
Window = Sequence[ir.Node]


def repeat(model: ir.Model, path: str, more: int) -> bool:
    """Puts `more` copies of the block PATH.2 behind it, in place; later ones move up: PATH.3 becomes PATH.(3 + more).

    A graph that has none of the block stays as it is. A copy's nodes are those from the first that reads one of its
    weights to the first that reads the next copy's. Gives False, and changes nothing, unless copies 0 to 3 are there,
    the nodes of 1 and 2 are the same but for their weights and what they read of the copy before, and 3 reads of 2 what
    2 reads of 1, nothing else doing so.
    """
    nodes = list(model.graph)
    if _first_reader(nodes, f"{path}.") is None:
        return True
    starts = [_first_reader(nodes, f"{path}.{copy}.") for copy in range(LEAST)]
    if None in starts:
        return False
    one, two, three = (nodes[starts[copy] : starts[copy + 1] if copy + 1 < LEAST else None] for copy in range(1, LEAST))
    carried = _carried(one, two)
    if not _alike(one, two, path) or carried is None or carried != _carried(two, three):
        return False
    _move_up(model, path, more)
    last: Window = two
    for copy in range(FOLLOWED, FOLLOWED + more):
        last = _copied(model, two, last, carried, (f"{path}.{MODEL_COPY}.", f"{path}.{copy}."))
    _hand_over(two, last, three)
    return True


def _first_reader(nodes: Sequence[ir.Node], prefix: str) -> int | None:
    return next((place for place, node in enumerate(nodes) if any(_is_of(v, prefix) for v in node.inputs)), None)


def _is_of(value: ir.Value | None, prefix: str) -> bool:
    return value is not None and value.is_initializer() and (value.name or "").startswith(prefix)


def _outputs(window: Window) -> dict[ir.Value, tuple[int, int]]:
    """Where in a window each value is made: the node's place, and the output's."""
    return {value: (place, at) for place, node in enumerate(window) for at, value in enumerate(node.outputs)}


def _carried(window: Window, following: Window) -> set[tuple[int, int, int, int]] | None:
    """What the nodes after a window read of it: the place of the output, and of the input in what follows.

    None where something else reads it too: a node that does not follow, or the graph's outputs.
    """
    made, places = _outputs(window), {node: place for place, node in enumerate(following)}
    found = set()
    for value, (place, at) in made.items():
        if value.is_graph_output():
            return None
        for user, number in value.uses():
            if user in places:
                found.add((place, at, places[user], number))
            elif user not in window:
                return None
    return found


def _alike(one: Window, two: Window, path: str) -> bool:
    """Whether two windows are the same but for their weights and what they read from outside of themselves."""
    made, again = _outputs(one), _outputs(two)
    return len(one) == len(two) and all(
        _same_node(a, b)
        and all(
            _same_input(x, y, made, again, (f"{path}.1.", f"{path}.{MODEL_COPY}."))
            for x, y in zip(a.inputs, b.inputs, strict=True)
        )
        for a, b in zip(one, two, strict=True)
    )


def _same_node(one: ir.Node, two: ir.Node) -> bool:
    kinds = [(node.op_identifier(), len(node.inputs), len(node.outputs)) for node in (one, two)]
    said = [{name: _said(attribute) for name, attribute in node.attributes.items()} for node in (one, two)]
    return kinds[0] == kinds[1] and said[0] == said[1]


def _said(attribute: ir.Attr) -> object:
    value = attribute.value
    return value.tobytes() if isinstance(value, ir.TensorProtocol) else value


def _same_input(
    one: ir.Value | None,
    two: ir.Value | None,
    made: Mapping[ir.Value, tuple[int, int]],
    again: Mapping[ir.Value, tuple[int, int]],
    prefixes: tuple[str, str],
) -> bool:
    """Whether the second of two windows reads what the first one does, or reads it of the first."""
    if one is None or two is None or one is two:
        return one is two
    if two in again:
        return made.get(one) == again[two]
    if two in made:
        return one not in made
    if not (one.is_initializer() and two.is_initializer()) or (one.dtype, one.shape) != (two.dtype, two.shape):
        return False
    if one.const_value is not None and two.const_value is not None:
        return np.array_equal(one.const_value.numpy(), two.const_value.numpy())
    first, second = prefixes
    return _is_of(one, first) and two.name == second + (one.name or "").removeprefix(first)


def _move_up(model: ir.Model, path: str, more: int) -> None:
    """Gives the weights of the copies from 3 on the names of copies so much later."""
    found = []
    for value in model.graph.initializers.values():
        number, _, rest = (value.name or "").removeprefix(f"{path}.").partition(".")
        if _is_of(value, f"{path}.") and number.isdigit() and int(number) >= FOLLOWED:
            found.append((int(number), rest, value))
    for copy, rest, value in sorted(found, key=lambda one: -one[0]):  # the last first: no name is there twice
        value.name = f"{path}.{copy + more}.{rest}"


def _copied(
    model: ir.Model,
    source: Window,
    last: Window,
    carried: set[tuple[int, int, int, int]],
    prefixes: tuple[str, str],
) -> Window:
    """Puts a copy of a window behind the `last` one, reading of that what the source reads of the one before it."""
    old, new = prefixes
    values: dict[ir.Value | None, ir.Value | None] = {}
    for place, at, user, number in carried:
        values[source[user].inputs[number]] = last[place].outputs[at]
    nodes: list[ir.Node] = []
    for node in source:
        for value in node.inputs:
            if value is not None and _is_of(value, old) and value not in values:
                values[value] = _weight(model, value, new + (value.name or "").removeprefix(old))
        copy = ir.Node(
            node.domain,
            node.op_type,
            [values.get(value, value) for value in node.inputs],
            dict(node.attributes),
            overload=node.overload,
            num_outputs=len(node.outputs),
            version=node.version,
        )
        for value, made in zip(node.outputs, copy.outputs, strict=True):
            made.name, made.type, made.shape = f"{new}{value.name}", value.type, value.shape
            values[value] = made
        nodes.append(copy)
    model.graph.insert_after(last[-1], nodes)
    return nodes


def _weight(model: ir.Model, like: ir.Value, name: str) -> ir.Value:
    value = ir.Value(name=name, type=like.type, shape=like.shape, const_value=like.const_value)
    model.graph.initializers[name] = value
    return value


def _hand_over(source: Window, last: Window, following: Window) -> None:
    """Has what follows read of the last window what it read of the source."""
    made, users = _outputs(source), set(following)
    for value, (place, at) in made.items():
        for user, number in list(value.uses()):
            if user in users:
                user.replace_input_with(number, last[place].outputs[at])
