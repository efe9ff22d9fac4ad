"""Repeats a traced block: tracing a block takes a second, copying its nodes takes no time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import onnx_ir as ir

TEMPLATE_INDEX = 2  # the block that is copied: the first may compute what all share, the second shows what repeats
INSERT_INDEX = TEMPLATE_INDEX + 1  # copies go before this block, or a later one
NodeSpan = Sequence[ir.Node]  # consecutive nodes
Edge = tuple[int, int, int, int]  # node and output in one span, node and input in the next


def repeat_block(model: ir.Model, path: str, count: int, index: int = TEMPLATE_INDEX) -> bool:
    """Inserts copies of the block PATH.2 behind it or a later block and renumbers the blocks after that, in place.

    The nodes of a block are those from the first that reads one of its weights to the first that reads the next
    block's. A graph without the block is left alone.

    Args:
        model: A traced graph.
        path: Module path of the list of blocks.
        count: How many copies to insert. PATH.(index + 1) becomes PATH.(index + 1 + count).
        index: The block behind which they are inserted, 2 or more.

    Returns:
        False, with the graph unchanged, unless blocks 0 to index + 1 exist, those from 1 to index differ only in their
        weights and in what they read from the block before, the next block reads the same from each, and nothing else
        reads from blocks 1 and 2.
    """
    nodes = list(model.graph)
    if _find_first_reader(nodes, f"{path}.") is None:
        return True
    readers = [_find_first_reader(nodes, f"{path}.{number}.") for number in range(1, index + 2)]
    starts = [reader for reader in readers if reader is not None]
    if len(starts) < len(readers):
        return False
    end = starts[-1] + starts[TEMPLATE_INDEX] - starts[TEMPLATE_INDEX - 1]  # of as many nodes as the template
    spans: list[NodeSpan] = [
        nodes[start:stop] for start, stop in pairwise((*starts, end))
    ]  # the first is that of block 1
    edges = _find_repeated_edges(spans, path)
    if edges is None:
        return False
    _renumber_weights(model, path, count, index + 1)
    template, last = spans[TEMPLATE_INDEX - 1], spans[-2]
    for number in range(index + 1, index + 1 + count):
        last = _insert_copy(model, template, last, edges, (f"{path}.{TEMPLATE_INDEX}.", f"{path}.{number}."))
    _rewire(spans[-2], last, spans[-1])
    return True


def _find_repeated_edges(spans: Sequence[NodeSpan], path: str) -> set[Edge] | None:
    """Returns what each span reads from the one before; None where spans, but for the last, do not repeat."""
    edges = _find_cross_edges(spans[0], spans[1])
    for number, (span, following) in enumerate(pairwise(spans[:-1]), 1):
        if not _are_equivalent(span, following, (f"{path}.{number}.", f"{path}.{number + 1}.")):
            return None
    for number, (span, following) in enumerate(pairwise(spans), 1):
        if edges != _find_cross_edges(span, following, read_elsewhere=number > TEMPLATE_INDEX):
            return None
    return edges


def _find_first_reader(nodes: Sequence[ir.Node], prefix: str) -> int | None:
    """Returns the index of the first node that reads a weight whose name begins with a prefix."""
    readers = (index for index, node in enumerate(nodes) if any(_is_weight_under(v, prefix) for v in node.inputs))
    return next(readers, None)


def _is_weight_under(value: ir.Value | None, prefix: str) -> bool:
    return value is not None and value.is_initializer() and (value.name or "").startswith(prefix)


def _index_outputs(span: NodeSpan) -> dict[ir.Value, tuple[int, int]]:
    """Returns for each value that a span produces the index of the node and of its output."""
    return {value: (at, number) for at, node in enumerate(span) for number, value in enumerate(node.outputs)}


def _find_cross_edges(span: NodeSpan, following: NodeSpan, *, read_elsewhere: bool = False) -> set[Edge] | None:
    """Returns what the following span reads from a span.

    None means that something else reads from it, unless that may be: a node outside both spans, or the graph's outputs.
    """
    indices = {node: index for index, node in enumerate(following)}
    edges = set()
    for value, (node_index, output_index) in _index_outputs(span).items():
        if value.is_graph_output() and not read_elsewhere:
            return None
        for user, input_index in value.uses():
            if user in indices:
                edges.add((node_index, output_index, indices[user], input_index))
            elif user not in span and not read_elsewhere:
                return None
    return edges


def _are_equivalent(first: NodeSpan, second: NodeSpan, prefixes: tuple[str, str]) -> bool:
    """Whether two spans are the same but for their weights under two prefixes and what they read from outside."""
    first_outputs, second_outputs = _index_outputs(first), _index_outputs(second)
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


def _renumber_weights(model: ir.Model, path: str, count: int, first: int) -> None:
    """Adds `count` to the block index in the names of weights, and of outputs of copies, from a first block on."""
    weights = []
    for value in model.graph.initializers.values():
        index, _, suffix = (value.name or "").removeprefix(f"{path}.").partition(".")
        if _is_weight_under(value, f"{path}.") and index.isdigit() and int(index) >= first:
            weights.append((int(index), suffix, value))
    for block, suffix, value in sorted(weights, key=lambda weight: -weight[0]):  # last first: names stay unique
        value.name = f"{path}.{block + count}.{suffix}"
    for value in (value for node in model.graph for value in node.outputs):  # those of copies begin with the path too
        index, _, suffix = (value.name or "").removeprefix(f"{path}.").partition(".")
        if (value.name or "").startswith(f"{path}.") and index.isdigit() and int(index) >= first:
            value.name = f"{path}.{int(index) + count}.{suffix}"


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
