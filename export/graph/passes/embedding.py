"""Token embeddings gathered as they are stored, in 16 or 8 bits, and cast after that: no table is widened."""

from __future__ import annotations

import onnx_ir as ir

from .rewrite import get_or_add_initializer, replace_node

SCALE_DTYPE = ir.DataType.FLOAT16  # of rows in 8 bits, one each


def narrow_embedding(model: ir.Model, name: str, storage_dtype: ir.DataType) -> ir.Model:
    """Has rows of an embedding gathered from its table as it is stored; INT8 is codes with a scale a row. In place.

    Tables that something else than a Gather reads, and those that are stored no narrower than the graph has them, stay.
    """
    table = model.graph.initializers.get(f"{name}.weight")
    if table is None or any(node.op_type != "Gather" for node, _ in table.uses()):
        return model
    if table.dtype is None or table.dtype.itemsize <= storage_dtype.itemsize:
        return model
    gathers = [node for node, _ in table.uses()]
    dtype, tables = table.dtype, _build_tables(model, table, name, storage_dtype)
    for gather in gathers:
        rows = [_build_gather(part, gather, dtype) for part in tables]
        nodes = [node for pair in rows for node in pair]
        if len(rows) > 1:
            nodes.append(ir.node("Mul", [pair[-1].outputs[0] for pair in rows]))
        replace_node(model, gather, nodes)
    return model


def _build_tables(model: ir.Model, table: ir.Value, name: str, storage_dtype: ir.DataType) -> list[ir.Value]:
    """What is gathered from: the table itself in the dtype that is stored, or codes and scales."""
    if storage_dtype != ir.DataType.INT8:
        table.dtype = storage_dtype
        return [table]
    assert table.shape is not None
    rows, width = table.shape.numpy()
    return [
        get_or_add_initializer(model, f"{name}.codes", storage_dtype, (rows, width)),
        get_or_add_initializer(model, f"{name}.scales", SCALE_DTYPE, (rows, 1)),
    ]


def _build_gather(table: ir.Value, gather: ir.Node, dtype: ir.DataType | None) -> list[ir.Node]:
    """A Gather of another table at the same places, and a Cast of what it gives."""
    gather = ir.node("Gather", [table, gather.inputs[1]], {"axis": 0})
    return [gather, ir.node("Cast", [gather.outputs[0]], {"to": dtype})]
