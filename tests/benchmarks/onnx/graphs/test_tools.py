"""ONNX Runtime's quantizers on small exported folders made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepress.benchmarks.onnx.graphs import tools
from edgepress.benchmarks.onnx.graphs.measure import measure_disk_size

WIDTH = 128
RANDOM = np.random.default_rng(0)


def save(folder: Path, nodes: list[Any], weights: dict[str, Any]) -> None:
    folder.mkdir()
    (folder / "tokenizer").mkdir()
    said = {"schema_version": 1, "family": "f", "graphs": {"g": {"file": "g.onnx"}}, "host": {}}
    (folder / "pipeline.json").write_text(json.dumps(said))
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDTH]) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    made = helper.make_graph(nodes, "g", ports[:1], ports[1:], tensors)
    domains = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(made, opset_imports=domains, ir_version=10), str(folder / "g.onnx"))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """The graph x · Aᵀ · Bᵀ, and the same with names as if A were in 4 bits."""
    weights = {name: RANDOM.standard_normal((WIDTH, WIDTH)).astype(np.float32) for name in ("a.weight", "b.weight")}
    nodes = [
        helper.make_node("Transpose", ["a.weight"], ["ta"], perm=[1, 0], name="turn a"),
        helper.make_node("MatMul", ["x", "ta"], ["h"], name="product a"),
        helper.make_node("Transpose", ["b.weight"], ["tb"], perm=[1, 0], name="turn b"),
        helper.make_node("MatMul", ["h", "tb"], ["y"], name="product b"),
    ]
    save(tmp_path / "source", nodes, weights)
    save(tmp_path / "pressed", nodes, weights | {"a.qweight": np.zeros(1, np.uint8)})
    return tmp_path / "source", tmp_path / "pressed"


def answer(folder: Path, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    found: np.ndarray = onnxruntime.InferenceSession(str(folder / "g.onnx"), options).run(None, {"x": x})[0]
    return found


@pytest.mark.parametrize(
    ("tool", "options", "operator", "error"),
    [
        ("nbits", {"algorithm": "default", "group_size": 32}, "MatMulNBits", 0.2),
        ("nbits", {"algorithm": "hqq", "group_size": 64}, "MatMulNBits", 0.2),
        ("nbits", {"algorithm": "k_quant", "group_size": 64}, "MatMulNBits", 0.2),
        ("dynamic", {}, "MatMulInteger", 0.03),
    ],
)
def test_the_linears_that_are_pressed_are_quantized_and_no_others(
    tool: str, options: dict[str, Any], operator: str, error: float, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    tools.quantize(tool, options, *folders, tmp_path / "target")
    nodes = onnx.load(str(tmp_path / "target" / "g.onnx")).graph.node
    assert [node.op_type for node in nodes].count(operator) == 1
    assert [node.name for node in nodes if node.op_type == "MatMul"] == ["product b"]
    x = RANDOM.standard_normal((8, WIDTH)).astype(np.float32)
    expected = answer(folders[0], x)
    assert 1e-4 < np.linalg.norm(answer(tmp_path / "target", x) - expected) / np.linalg.norm(expected) < error
    assert (tmp_path / "target" / "tokenizer").is_dir()


def test_a_graph_without_pressed_linears_stays_as_it_is(folders: tuple[Path, Path], tmp_path: Path) -> None:
    source, _ = folders
    tools.quantize("dynamic", {}, source, source, tmp_path / "target")
    x = RANDOM.standard_normal((8, WIDTH)).astype(np.float32)
    assert np.array_equal(answer(tmp_path / "target", x), answer(source, x))


def test_the_disk_is_that_of_a_graph_and_what_it_reads(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.zeros(1000, np.float32), "w")
    port = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1000])
    for name in ("one", "other"):
        graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [port], [tensor])
        model = helper.make_model(graph)
        onnx.save(model, str(tmp_path / f"{name}.onnx"), save_as_external_data=True, location=f"{name}.data")
    graph_bytes = (tmp_path / "one.onnx").stat().st_size
    assert measure_disk_size(tmp_path, "one") == graph_bytes + 4000
    assert measure_disk_size(tmp_path) == 2 * graph_bytes + 8000 + (
        (tmp_path / "other.onnx").stat().st_size - graph_bytes
    )
