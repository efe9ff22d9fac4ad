"""Token embeddings gathered as stored: rows equal those of torch, and no table is widened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from helpers.small_graphs import FLOAT, make_initializer, write_component
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edgepress.export.graph.external_weights import WeightSource, write_external_data
from edgepress.export.graph.passes.embedding import narrow_embedding
from edgepress.numerics.int8_rows import dequantize_rows, quantize_rows

ROWS, WIDTH = 24, 16
WEIGHT = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0))


def table_model(operator: str = "Gather") -> ir.Model:
    """Rows of `words` at `ids`, or the whole table."""
    ids = ir.Value(name="ids", shape=ir.Shape(["tokens"]), type=ir.TensorType(ir.DataType.INT64))
    table = make_initializer("words.weight", (ROWS, WIDTH))
    node = ir.node("Gather", [table, ids], {"axis": 0}) if operator == "Gather" else ir.node(operator, [table])
    y = node.outputs[0]
    y.name, y.type, y.shape = "y", FLOAT, ir.Shape(["tokens", WIDTH])
    graph = ir.Graph([ids], [y], nodes=[node], initializers=[table], opset_imports={"": 21}, name="table")
    return ir.Model(graph, ir_version=10)


def gather_rows(model: ir.Model, folder: Path, ids: list[int]) -> np.ndarray:
    ir.save(model, folder / "model.onnx")
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"ids": np.array(ids)})[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int8])
def test_rows_equal_those_of_torch(dtype: torch.dtype, tmp_path: Path) -> None:
    rows = quantize_rows(WEIGHT)
    int8 = {f"words.{kind}": tensor for kind, tensor in rows._asdict().items()}
    plain = WEIGHT.to(dtype) if dtype != torch.int8 else dequantize_rows(rows)
    source = WeightSource(write_component(tmp_path / "c", int8 if dtype == torch.int8 else {"words.weight": plain}))
    model = narrow_embedding(table_model(), "words", source.get_embedding_dtype("words"))
    RemoveUnusedNodesPass()(model)
    write_external_data([model], source, tmp_path, "part")
    ids = [3, 0, 23, 3]
    assert np.array_equal(gather_rows(model, tmp_path, ids), plain.float()[ids].numpy())
    values = [value.const_value for value in model.graph.initializers.values()]
    assert sum(value.nbytes for value in values) == sum(tensor.nbytes for tensor in int8.values()) or (
        dtype != torch.int8 and values[0].nbytes == plain.nbytes
    )


def test_a_table_with_other_users_is_left_alone() -> None:
    model = narrow_embedding(table_model("Identity"), "words", ir.DataType.INT8)
    assert [node.op_type for node in model.graph] == ["Identity"]
    assert list(model.graph.initializers) == ["words.weight"]


def test_a_table_stored_wider_than_in_the_graph_is_left_alone() -> None:
    model = table_model()
    model.graph.initializers["words.weight"].dtype = ir.DataType.FLOAT16
    narrow_embedding(model, "words", ir.DataType.FLOAT)
    assert [node.op_type for node in model.graph] == ["Gather"]
    assert model.graph.initializers["words.weight"].dtype == ir.DataType.FLOAT16


def test_a_graph_without_the_table_is_left_alone() -> None:
    model = narrow_embedding(table_model(), "others", ir.DataType.INT8)
    assert [node.op_type for node in model.graph] == ["Gather"]
