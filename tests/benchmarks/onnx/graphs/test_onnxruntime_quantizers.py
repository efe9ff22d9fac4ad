"""ONNX Runtime's quantizers on small handwritten exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepress.benchmarks.onnx.graphs.onnxruntime_quantizers import quantize_graphs
from edgepress.benchmarks.onnx.graphs.runs import measure_disk_size
from edgepress.runtime.onnx.sessions import make_session_options

WIDTH = 128
RANDOM = np.random.default_rng(0)


def save(folder: Path, nodes: list[Any], weights: dict[str, Any]) -> None:
    folder.mkdir()
    (folder / "tokenizer").mkdir()
    config = {"schema_version": 1, "family": "f", "graphs": {"g": {"file": "g.onnx"}}, "host": {}}
    (folder / "pipeline.json").write_text(json.dumps(config))
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDTH]) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], tensors)
    domains = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=domains, ir_version=10), str(folder / "g.onnx"))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """The graph x · Aᵀ · Bᵀ, and the same with the tensor names of A in 4 bits."""
    weights = {name: RANDOM.standard_normal((WIDTH, WIDTH)).astype(np.float32) for name in ("a.weight", "b.weight")}
    nodes = [
        helper.make_node("Transpose", ["a.weight"], ["ta"], perm=[1, 0], name="transpose a"),
        helper.make_node("MatMul", ["x", "ta"], ["h"], name="product a"),
        helper.make_node("Transpose", ["b.weight"], ["tb"], perm=[1, 0], name="transpose b"),
        helper.make_node("MatMul", ["h", "tb"], ["y"], name="product b"),
    ]
    save(tmp_path / "source", nodes, weights)
    save(tmp_path / "quantized", nodes, weights | {"a.qweight": np.zeros(1, np.uint8)})
    return tmp_path / "source", tmp_path / "quantized"


def run_graph(folder: Path, x: np.ndarray) -> np.ndarray:
    options = make_session_options((folder / "g.onnx").read_bytes())
    options.log_severity_level = 3
    output: np.ndarray = onnxruntime.InferenceSession(str(folder / "g.onnx"), options).run(None, {"x": x})[0]
    return output


@pytest.mark.parametrize(
    ("tool", "options", "operator", "error"),
    [
        ("nbits", {"algorithm": "default", "group_size": 32}, "MatMulNBits", 0.2),
        ("nbits", {"algorithm": "hqq", "group_size": 64}, "MatMulNBits", 0.2),
        ("nbits", {"algorithm": "k_quant", "group_size": 64}, "MatMulNBits", 0.2),
        ("dynamic", {}, "MatMulInteger", 0.03),
    ],
)
def test_only_quantized_linear_layers_are_quantized(
    tool: str, options: dict[str, Any], operator: str, error: float, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    quantize_graphs(tool, options, *folders, tmp_path / "target")
    nodes = onnx.load(str(tmp_path / "target" / "g.onnx")).graph.node
    assert [node.op_type for node in nodes].count(operator) == 1
    assert [node.name for node in nodes if node.op_type == "MatMul"] == ["product b"]
    x = RANDOM.standard_normal((8, WIDTH)).astype(np.float32)
    expected = run_graph(folders[0], x)
    assert 1e-4 < np.linalg.norm(run_graph(tmp_path / "target", x) - expected) / np.linalg.norm(expected) < error
    assert (tmp_path / "target" / "tokenizer").is_dir()


def test_a_graph_without_quantized_layers_is_unchanged(folders: tuple[Path, Path], tmp_path: Path) -> None:
    source, _ = folders
    quantize_graphs("dynamic", {}, source, source, tmp_path / "target")
    x = RANDOM.standard_normal((8, WIDTH)).astype(np.float32)
    assert np.array_equal(run_graph(tmp_path / "target", x), run_graph(source, x))


def test_the_size_includes_external_data(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.zeros(1000, np.float32), "w")
    port = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1000])
    for name in ("first", "second"):
        graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [port], [tensor])
        model = helper.make_model(graph)
        onnx.save(model, str(tmp_path / f"{name}.onnx"), save_as_external_data=True, location=f"{name}.data")
    graph_bytes = (tmp_path / "first.onnx").stat().st_size
    assert measure_disk_size(tmp_path, "first") == graph_bytes + 4000
    assert measure_disk_size(tmp_path) == 2 * graph_bytes + 8000 + (
        (tmp_path / "second.onnx").stat().st_size - graph_bytes
    )
