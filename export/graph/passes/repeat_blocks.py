"""Repeats a traced block: tracing a block takes a second, copying its nodes takes no time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

TEMPLATE_INDEX = 2  # the block that is copied: the first may compute what all share, the second shows what repeats
INSERT_INDEX = TEMPLATE_INDEX + 1  # copies go before this block
MIN_BLOCKS = INSERT_INDEX + 1
NodeSpan = Sequence[ir.Node]  # consecutive nodes
Edge = tuple[int, int, int, int]  # node and output in one span, node and input in the next


def repeat_block(model: ir.Model, path: str, count: int) -> bool:
    """Inserts copies of the block PATH.2 behind it and renumbers later blocks, in place.

    The nodes of a block are those from the first that reads one of its weights to the first that reads the next
    block's. A graph without the block is left alone.

    Args:
        model: A traced graph.
        path: Module path of the list of blocks.
        count: How many copies to insert. PATH.3 becomes PATH.(3 + count).

    Returns:
        False, with the graph unchanged, unless blocks 0 to 3 exist, blocks 1 and 2 differ only in their weights and in
        what they read from the block before, and block 3 reads from 2 what 2 reads from 1, and nothing else does.
    """
    nodes = list(model.graph)
    if _find_first_reader(nodes, f"{path}.") is None:
        return True
    starts = [_find_first_reader(nodes, f"{path}.{index}.") for index in range(MIN_BLOCKS)]
    if None in starts:
        return False
    first, second, third = (
        nodes[starts[index] : starts[index + 1] if index + 1 < MIN_BLOCKS else None] for index in range(1, MIN_BLOCKS)
    )
    edges = _find_cross_edges(first, second)
    if not _are_equivalent(first, second, path) or edges is None or edges != _find_cross_edges(second, third):
        return False
    _renumber_weights(model, path, count)
    last: NodeSpan = second
    for index in range(INSERT_INDEX, INSERT_INDEX + count):
        last = _insert_copy(model, second, last, edges, (f"{path}.{TEMPLATE_INDEX}.", f"{path}.{index}."))
    _rewire(second, last, third)
    return True


def _find_first_reader(nodes: Sequence[ir.Node], prefix: str) -> int | None:
    """Returns the index of the first node that reads a weight whose name begins with a prefix."""
    readers = (index for index, node in enumerate(nodes) if any(_is_weight_under(v, prefix) for v in node.inputs))
    return next(readers, None)


def _is_weight_under(value: ir.Value | None, prefix: str) -> bool:
    return value is not None and value.is_initializer() and (value.name or "").startswith(prefix)


def _index_outputs(span: NodeSpan) -> dict[ir.Value, tuple[int, int]]:
    """Returns for each value that a span produces the index of the node and of its output."""
    return {value: (at, number) for at, node in enumerate(span) for number, value in enumerate(node.outputs)}


def _find_cross_edges(span: NodeSpan, following: NodeSpan) -> set[Edge] | None:
    """Returns what the following span reads from a span.

    None means that something else reads from it: a node outside both spans, or the graph's outputs.
    """
    indices = {node: index for index, node in enumerate(following)}
    edges = set()
    for value, (node_index, output_index) in _index_outputs(span).items():
        if value.is_graph_output():
            return None
        for user, input_index in value.uses():
            if user in indices:
                edges.add((node_index, output_index, indices[user], input_index))
            elif user not in span:
                return None
    return edges


def _are_equivalent(first: NodeSpan, second: NodeSpan, path: str) -> bool:
    """Whether two spans are the same but for their weights and what they read from outside."""
    first_outputs, second_outputs = _index_outputs(first), _index_outputs(second)
    prefixes = f"{path}.1.", f"{path}.{TEMPLATE_INDEX}."
    return len(first) == len(second) and all(
        _is_same_node(a, b)
        and all(
            _is_same_input(x, y, first_outputs, second_outputs, prefixes)
            for x, y in zip(a.inputs, b.inputs, strict=True)
        )
        for a, b in zip(first, second, strict=True)
    )


def _is_same_node(first: ir.Node, second: ir.Node) -> bool:
    """Whether two nodes have the same operator, attributes and numbers of inputs and outputs."""
    signatures = [(node.op_identifier(), len(node.inputs), len(node.outputs)) for node in (first, second)]
    attributes = [
        {name: _get_attribute_value(attribute) for name, attribute in node.attributes.items()}
        for node in (first, second)
    ]
    return signatures[0] == signatures[1] and attributes[0] == attributes[1]


def _get_attribute_value(attribute: ir.Attr) -> object:
    """Returns a value that can be compared."""
    value = attribute.value
    return value.tobytes() if isinstance(value, ir.TensorProtocol) else value


def _is_same_input(
    first: ir.Value | None,
    second: ir.Value | None,
    first_outputs: Mapping[ir.Value, tuple[int, int]],
    second_outputs: Mapping[ir.Value, tuple[int, int]],
    prefixes: tuple[str, str],
) -> bool:
    """Whether an input of the second span corresponds to one of the first: the same value, output or weight."""
    if first is None or second is None or first is second:
        return first is second
    if second in second_outputs:
        return first_outputs.get(first) == second_outputs[second]
    if second in first_outputs:
        return first not in first_outputs
    is_weights = first.is_initializer() and second.is_initializer()
    if not is_weights or (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    if first.const_value is not None and second.const_value is not None:
        return np.array_equal(first.const_value.numpy(), second.const_value.numpy())
    first_prefix, second_prefix = prefixes
    suffix = (first.name or "").removeprefix(first_prefix)
    return _is_weight_under(first, first_prefix) and second.name == second_prefix + suffix


def _renumber_weights(model: ir.Model, path: str, count: int) -> None:
    """Adds `count` to the block index in the names of weights from block 3 on."""
    weights = []
    for value in model.graph.initializers.values():
        index, _, suffix = (value.name or "").removeprefix(f"{path}.").partition(".")
        if _is_weight_under(value, f"{path}.") and index.isdigit() and int(index) >= INSERT_INDEX:
            weights.append((int(index), suffix, value))
    for block, suffix, value in sorted(weights, key=lambda weight: -weight[0]):  # last first: names stay unique
        value.name = f"{path}.{block + count}.{suffix}"


def _insert_copy(
    model: ir.Model, template: NodeSpan, last: NodeSpan, edges: set[Edge], prefixes: tuple[str, str]
) -> NodeSpan:
    """Inserts a copy of a span behind the last one, which it reads from as the template reads from the one before."""
    old, new = prefixes
    values: dict[ir.Value | None, ir.Value | None] = {}
    for node_index, output_index, user_index, input_index in edges:
        values[template[user_index].inputs[input_index]] = last[node_index].outputs[output_index]
    nodes: list[ir.Node] = []
    for node in template:
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


def _add_weight_like(model: ir.Model, weight: ir.Value, name: str) -> ir.Value:
    value = ir.Value(name=name, type=weight.type, shape=weight.shape, const_value=weight.const_value)
    model.graph.initializers[name] = value
    return value


def _rewire(span: NodeSpan, last: NodeSpan, following: NodeSpan) -> None:
    """Lets the following span read from the last one what it read from a span."""
    users = set(following)
    for value, (node_index, output_index) in _index_outputs(span).items():
        for user, input_index in list(value.uses()):
            if user in users:
                user.replace_input_with(input_index, last[node_index].outputs[output_index])
