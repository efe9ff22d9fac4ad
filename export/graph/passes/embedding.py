"""Token embeddings stored in 16 or 8 bits: rows are gathered as stored and cast afterwards, so no table is widened."""

from __future__ import annotations

import onnx_ir as ir

from .rewrite import get_or_add_initializer, replace_node

SCALE_DTYPE = ir.DataType.FLOAT16  # of int8 rows, which have one scale each


def narrow_embedding(model: ir.Model, name: str, storage_dtype: ir.DataType) -> ir.Model:
    """Gathers rows of an embedding from a table in the dtype it is stored in, in place.

    The table is left alone where an operator other than Gather reads it, or where the stored dtype is not narrower.

    Args:
        model: A traced graph.
        name: Module name of the embedding.
        storage_dtype: Dtype on disk. INT8 means codes with one scale per row.
    """
    table = model.graph.initializers.get(f"{name}.weight")
    if table is None or any(node.op_type != "Gather" for node, _ in table.uses()):
        return model
    if table.dtype is None or table.dtype.itemsize <= storage_dtype.itemsize:
        return model
    gathers = [node for node, _ in table.uses()]
    dtype, tables = table.dtype, _build_tables(model, table, name, storage_dtype)
    for gather in gathers:
        rows = [_build_gather(stored, gather, dtype) for stored in tables]
        nodes = [node for pair in rows for node in pair]
        if len(rows) > 1:
            nodes.append(ir.node("Mul", [pair[-1].outputs[0] for pair in rows]))
        replace_node(model, gather, nodes)
    return model


def _build_tables(model: ir.Model, table: ir.Value, name: str, storage_dtype: ir.DataType) -> list[ir.Value]:
    """Returns what to gather from: the table in its stored dtype, or codes and scales."""
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
    """Returns a Gather of a table at the indices of another Gather, and a Cast of its rows."""
    rows = ir.node("Gather", [table, gather.inputs[1]], {"axis": 0})
    return [rows, ir.node("Cast", [rows.outputs[0]], {"to": dtype})]
