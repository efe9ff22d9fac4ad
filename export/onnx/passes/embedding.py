"""Token embeddings gathered as they are stored, in 16 or 8 bits, and cast after that: no table is widened."""

from __future__ import annotations

import onnx_ir as ir

from .linear import replace, weight

SCALES = ir.DataType.FLOAT16  # of rows in 8 bits, one each


def embedding(model: ir.Model, name: str, stored: ir.DataType) -> ir.Model:
    """Has rows of an embedding gathered from its table as it is stored; INT8 is codes with a scale a row. In place.

    Tables that something else than a Gather reads, and those that are stored no narrower than the graph has them, stay.
    """
    table = model.graph.initializers.get(f"{name}.weight")
    if table is None or any(node.op_type != "Gather" for node, _ in table.uses()):
        return model
    if table.dtype is None or table.dtype.itemsize <= stored.itemsize:
        return model
    gathers = [node for node, _ in table.uses()]
    wanted, tables = table.dtype, _tables(model, table, name, stored)
    for gather in gathers:
        rows = [_gathered(part, gather, wanted) for part in tables]
        nodes = [node for pair in rows for node in pair]
        if len(rows) > 1:
            nodes.append(ir.node("Mul", [pair[-1].outputs[0] for pair in rows]))
        replace(model, gather, nodes)
    return model


def _tables(model: ir.Model, table: ir.Value, name: str, stored: ir.DataType) -> list[ir.Value]:
    """What is gathered from: the table itself in the dtype that is stored, or codes and scales."""
    if stored != ir.DataType.INT8:
        table.dtype = stored
        return [table]
    assert table.shape is not None
    rows, width = table.shape.numpy()
    return [weight(model, f"{name}.codes", stored, (rows, width)), weight(model, f"{name}.scales", SCALES, (rows, 1))]


def _gathered(table: ir.Value, like: ir.Node, dtype: ir.DataType | None) -> list[ir.Node]:
    """A Gather of another table at the same places, and a Cast of what it gives."""
    gather = ir.node("Gather", [table, like.inputs[1]], {"axis": 0})
    return [gather, ir.node("Cast", [gather.outputs[0]], {"to": dtype})]
