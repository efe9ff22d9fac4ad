"""Detects float16 overflow in graphs where it is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, save

from edgepress.export.verification.fp16_overflow import find_fp16_overflow


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """(x · 300)² / 300² in float16 between float32 ports; on most CPUs the overflow does not reach the output."""
    half = TensorProto.FLOAT16
    factor = helper.make_tensor("factor", half, [], np.array([300], np.float16))
    nodes = [
        helper.make_node("Cast", ["x"], ["narrow"], to=half),
        helper.make_node("Mul", ["narrow", "factor"], ["scaled"]),
        helper.make_node("Mul", ["scaled", "scaled"], ["squared"]),
        helper.make_node("Div", ["squared", "factor"], ["less"]),
        helper.make_node("Div", ["less", "factor"], ["least"]),
        helper.make_node("Cast", ["least"], ["y"], to=TensorProto.FLOAT),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    between = [helper.make_tensor_value_info(node.output[0], half, ["n"]) for node in nodes[:-1]]
    squares = helper.make_graph(nodes, "squares", ports[:1], ports[1:], [factor], value_info=between)
    file = tmp_path / "squares.onnx"
    save(helper.make_model(squares, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), file)
    return file


@pytest.mark.parametrize(("x", "expected"), [(0.1, None), (0.8, None), (1.0, "squared"), (-1.0, "squared")])
def test_the_first_overflow_is_reported(graph: Path, x: float, expected: str | None) -> None:
    assert find_fp16_overflow(graph, {"x": np.array([0, x], np.float32)}) == expected
    assert [file.name for file in graph.parent.iterdir()] == [graph.name]


def test_nan_counts_as_an_overflow(graph: Path) -> None:
    assert find_fp16_overflow(graph, {"x": np.array([np.nan], np.float32)}) == "narrow"
