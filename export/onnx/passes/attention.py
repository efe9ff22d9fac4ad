"""Attention: as ONNX Runtime's operator, which keeps no matrix of scores, or as its parts.

On a CPU with 2112 tokens in 8 heads of 128, MultiHeadAttention took 37 MB beside its inputs and 201 ms, ONNX's own
Attention 205 MB and 224 ms, the parts 171 MB and 230 ms (one thread, ONNX Runtime 1.31).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from .linear import replace, replace_all
from .matching import Writer, known, made_by

OPSET = 23  # the first that has Attention
DOMAIN = "com.microsoft"
HEADS_FIRST = [0, 2, 1, 3]  # from (1, tokens, heads, size) to (1, heads, tokens, size), and back


def fuse_attention(model: ir.Model) -> ir.Model:
    """Puts MultiHeadAttention in the place of every Attention with as many heads of keys as of queries, in place.

    Attention's inputs must be (1, heads, tokens, size), and a mask one of numbers (1, heads, tokens, tokens).
    """
    for node in list(model.graph):
        if node.op_type == "Attention" and _heads(node, 0) == _heads(node, 1):
            replace(model, node, _multi_head(node))
            model.graph.opset_imports[DOMAIN] = 1
    return model


def split_attention(model: ir.Model) -> ir.Model:
    """Writes Attention as two products and a softmax, in place: for opsets that do not have it.

    Heads of keys and values may be shared by groups of heads of queries. Attention may be causal, or have a mask of
    numbers (1, heads, tokens, tokens) where no heads are shared.
    """
    return replace_all(model, "Attention", _parts)


def _multi_head(node: ir.Node) -> list[ir.Node]:
    op = Writer()
    heads, size = _heads(node, 0), known(_input(node, 0), 3)
    rows = [_rows(op, _input(node, place)) for place in range(3)]
    mask = [] if (added := _added(node)) is None else [None, None, added]
    attributes = {"num_heads": heads, "scale": _scale(node), "unidirectional": _causal(node)}
    out = op("MultiHeadAttention", *rows, *mask, domain=DOMAIN, **attributes)
    op("Transpose", op("Reshape", out, [0, 0, heads, size]), perm=HEADS_FIRST)
    return op.nodes


def _rows(op: Writer, value: ir.Value) -> ir.Value:
    """(1, heads, tokens, size) as rows (1, tokens, heads · size): what they were made of where that is such rows."""
    width = known(value, 1) * known(value, 3)
    transpose = made_by(value, "Transpose")
    if transpose is None or list(transpose.attributes.get_ints("perm")) != HEADS_FIRST:
        return op("Reshape", op("Transpose", value, perm=HEADS_FIRST), [0, 0, width])
    reshape = made_by(transpose.inputs[0], "Reshape")
    before = None if reshape is None else reshape.inputs[0]
    if before is not None and before.shape is not None and len(before.shape) == 3 and before.shape[2] == width:
        return before
    return op("Reshape", transpose.inputs[0], [0, 0, width])


def _parts(node: ir.Node) -> list[ir.Node]:
    op = Writer()
    query, key, value = (_input(node, place) for place in range(3))
    groups, size, number = _heads(node, 1), known(query, 3), _number(query)
    shared = _heads(node, 0) // groups
    if shared > 1:  # heads of queries in groups (1, groups, shared, tokens, size), of keys (1, groups, 1, tokens, size)
        query = op("Reshape", query, [0, groups, shared, -1, size])
        key, value = (op("Unsqueeze", one, [2]) for one in (key, value))
    turned = [0, 1, 3, 2] if shared == 1 else [0, 1, 2, 4, 3]
    scores = op("MatMul", op("Mul", query, number(_scale(node))), op("Transpose", key, perm=turned))
    if _causal(node):
        scores = op("Add", scores, _mask(op, query, number))
    if (added := _added(node)) is not None:
        scores = op("Add", scores, added)
    out = op("MatMul", op("Softmax", scores, axis=-1), value)
    if shared > 1:
        op("Reshape", out, [0, groups * shared, -1, size])
    return op.nodes


def _added(node: ir.Node) -> ir.Value | None:
    """What a mask adds to the scores, where there is one.

    Raises:
        ValueError: it is one of truth values, or heads are shared.
    """
    mask = node.inputs[3] if len(node.inputs) > 3 else None
    if mask is not None and (mask.dtype == ir.DataType.BOOL or _heads(node, 0) != _heads(node, 1)):
        raise ValueError(f"the mask {mask.name} cannot be written by other operators than ONNX's own Attention")
    return mask


def _mask(op: Writer, query: ir.Value, number: type[np.floating[Any]]) -> ir.Value:
    """(tokens, tokens): 0 up to the diagonal, and after it half the lowest number, so that no sum overflows."""
    tokens = op("Shape", query, start=-2, end=-1)
    lowest = op("Expand", number(np.finfo(number).min / 2), op("Concat", tokens, tokens, axis=0))
    return op("Trilu", lowest, 1, upper=1)


def _input(node: ir.Node, place: int) -> ir.Value:
    value = node.inputs[place]
    assert value is not None
    return value


def _heads(node: ir.Node, place: int) -> int:
    return known(_input(node, place), 1)


def _causal(node: ir.Node) -> int:
    return node.attributes.get_int("is_causal", 0)


def _scale(node: ir.Node) -> float:
    return node.attributes.get_float("scale", known(_input(node, 0), 3) ** -0.5)


def _number(value: ir.Value) -> type[np.floating[Any]]:
    return np.float16 if value.dtype == ir.DataType.FLOAT16 else np.float32
