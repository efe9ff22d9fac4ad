"""Attention: as ONNX Runtime's operator, which keeps no matrix of scores, or as its parts.

On a CPU with 2112 tokens in 8 heads of 128, MultiHeadAttention took 37 MB beside its inputs and 201 ms, ONNX's own
Attention 205 MB and 224 ms, the parts 171 MB and 230 ms (one thread, ONNX Runtime 1.31).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from .pattern import NodeBuilder, get_producer, get_static_dim
from .rewrite import replace_all_nodes, replace_node

MIN_OPSET = 23  # the first that has Attention
DOMAIN = "com.microsoft"
HEADS_FIRST = [0, 2, 1, 3]  # from (1, tokens, heads, size) to (1, heads, tokens, size), and back


def fuse_attention(model: ir.Model) -> ir.Model:
    """Puts MultiHeadAttention in the place of every Attention with as many heads of keys as of queries, in place.

    Attention's inputs must be (1, heads, tokens, size), and a mask one of numbers (1, heads, tokens, tokens).
    """
    for node in list(model.graph):
        if node.op_type == "Attention" and _get_num_heads(node, 0) == _get_num_heads(node, 1):
            replace_node(model, node, _build_multi_head_attention(node))
            model.graph.opset_imports[DOMAIN] = 1
    return model


def decompose_attention(model: ir.Model) -> ir.Model:
    """Writes Attention as two products and a softmax, in place: for opsets that do not have it.

    Heads of keys and values may be shared by groups of heads of queries. Attention may be causal, or have a mask of
    numbers (1, heads, tokens, tokens) where no heads are shared.
    """
    return replace_all_nodes(model, "Attention", _decompose)


def _build_multi_head_attention(node: ir.Node) -> list[ir.Node]:
    op = NodeBuilder()
    heads, size = _get_num_heads(node, 0), get_static_dim(_get_input(node, 0), 3)
    rows = [_to_rows(op, _get_input(node, place)) for place in range(3)]
    mask = [] if (added := _get_mask(node)) is None else [None, None, added]
    attributes = {"num_heads": heads, "scale": _get_scale(node), "unidirectional": _is_causal(node)}
    out = op("MultiHeadAttention", *rows, *mask, domain=DOMAIN, **attributes)
    op("Transpose", op("Reshape", out, [0, 0, heads, size]), perm=HEADS_FIRST)
    return op.nodes


def _to_rows(op: NodeBuilder, value: ir.Value) -> ir.Value:
    """(1, heads, tokens, size) as rows (1, tokens, heads · size): what they were made of where that is such rows."""
    width = get_static_dim(value, 1) * get_static_dim(value, 3)
    transpose = get_producer(value, "Transpose")
    if transpose is None or list(transpose.attributes.get_ints("perm")) != HEADS_FIRST:
        return op("Reshape", op("Transpose", value, perm=HEADS_FIRST), [0, 0, width])
    reshape = get_producer(transpose.inputs[0], "Reshape")
    source = None if reshape is None else reshape.inputs[0]
    if source is not None and source.shape is not None and len(source.shape) == 3 and source.shape[2] == width:
        return source
    return op("Reshape", transpose.inputs[0], [0, 0, width])


def _decompose(node: ir.Node) -> list[ir.Node]:
    op = NodeBuilder()
    query, key, value = (_get_input(node, place) for place in range(3))
    groups, size, number = _get_num_heads(node, 1), get_static_dim(query, 3), _get_float_type(query)
    shared = _get_num_heads(node, 0) // groups
    if shared > 1:  # heads of queries in groups (1, groups, shared, tokens, size), of keys (1, groups, 1, tokens, size)
        query = op("Reshape", query, [0, groups, shared, -1, size])
        key, value = (op("Unsqueeze", one, [2]) for one in (key, value))
    turned = [0, 1, 3, 2] if shared == 1 else [0, 1, 2, 4, 3]
    scores = op("MatMul", op("Mul", query, number(_get_scale(node))), op("Transpose", key, perm=turned))
    if _is_causal(node):
        scores = op("Add", scores, _build_causal_mask(op, query, number))
    if (added := _get_mask(node)) is not None:
        scores = op("Add", scores, added)
    out = op("MatMul", op("Softmax", scores, axis=-1), value)
    if shared > 1:
        op("Reshape", out, [0, groups * shared, -1, size])
    return op.nodes


def _get_mask(node: ir.Node) -> ir.Value | None:
    """What a mask adds to the scores, where there is one.

    Raises:
        ValueError: it is one of truth values, or heads are shared.
    """
    mask = node.inputs[3] if len(node.inputs) > 3 else None
    if mask is not None and (mask.dtype == ir.DataType.BOOL or _get_num_heads(node, 0) != _get_num_heads(node, 1)):
        raise ValueError(f"the mask {mask.name} cannot be written by other operators than ONNX's own Attention")
    return mask


def _build_causal_mask(op: NodeBuilder, query: ir.Value, number: type[np.floating[Any]]) -> ir.Value:
    """(tokens, tokens): 0 up to the diagonal, and after it half the lowest number, so that no sum overflows."""
    tokens = op("Shape", query, start=-2, end=-1)
    lowest = op("Expand", number(np.finfo(number).min / 2), op("Concat", tokens, tokens, axis=0))
    return op("Trilu", lowest, 1, upper=1)


def _get_input(node: ir.Node, place: int) -> ir.Value:
    value = node.inputs[place]
    assert value is not None
    return value


def _get_num_heads(node: ir.Node, place: int) -> int:
    return get_static_dim(_get_input(node, place), 1)


def _is_causal(node: ir.Node) -> int:
    return node.attributes.get_int("is_causal", 0)


def _get_scale(node: ir.Node) -> float:
    return node.attributes.get_float("scale", get_static_dim(_get_input(node, 0), 3) ** -0.5)


def _get_float_type(value: ir.Value) -> type[np.floating[Any]]:
    return np.float16 if value.dtype == ir.DataType.FLOAT16 else np.float32
