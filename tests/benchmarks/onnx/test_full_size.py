"""Measuring an export of full size: what the section says, and the whole command on a rehearsal of tiny shapes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from edgepress.benchmarks.common.process import Cost
from edgepress.benchmarks.onnx import full_size
from edgepress.benchmarks.onnx.full_size import ComponentCosts, ExportRun
from edgepress.benchmarks.synthetic import quantized


def cost(seconds: float, memory: int = 10**9) -> Cost:
    return Cost(seconds, 2 * seconds, memory, 0, 0, 0, 0, 0, 0)


def graph(folder: Path) -> Path:
    """A graph with a constant of 40 bytes inside and a weight of 4000 beside it."""
    table, weight = np.arange(10, dtype=np.float32), np.zeros(1000, np.float32)
    nodes = [
        helper.make_node("Constant", [], ["table"], value=numpy_helper.from_array(table, "table")),
        helper.make_node("Concat", ["table", "weight"], ["y"], axis=0),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1010])]
    made = helper.make_graph(nodes, "g", [], outputs, [numpy_helper.from_array(weight, "weight")])
    file, shard = folder / "transformer.onnx", "transformer-00001-of-00001.safetensors"
    onnx.save(helper.make_model(made), str(file), save_as_external_data=True, location=shard, size_threshold=1000)
    return file


def measured(folder: Path) -> ComponentCosts:
    exports = {
        ("cold", "first"): [ExportRun(cost(40), 9.0, 10.0), ExportRun(cost(70), 12.0, 10.0)],
        ("cold", "again"): [ExportRun(cost(15), 0.1, 0.0), ExportRun(cost(30), 0.1, 0.0)],
        ("warm", "first"): [ExportRun(cost(20), 9.0, 0.0)],
        ("warm", "again"): [ExportRun(cost(10), 0.1, 0.0)],
    }
    copies = {"cold": [cost(10), cost(20)], "warm": [cost(5)]}
    told = {"first": 2.5, "later": [1.0, 1.2, 9.0], "tokens": 64}
    return ComponentCosts("transformer", exports, copies, cost(3), cost(9, 5200), told, graph(folder))


def test_the_section_says_ratios_sizes_and_steps(tmp_path: Path) -> None:
    body = full_size.render_section(measured(tmp_path))
    assert "full-size transformer" in body
    assert "| not in the page cache, the first time | 15.0 [10.0, 20.0] | 45.0 [30.0, 60.0] | 3.0 [3.0, 3.0] |" in body
    assert "| not in the page cache, again | 15.0 [10.0, 20.0] | 22.5 [15.0, 30.0] | 1.5 [1.5, 1.5] |" in body
    assert "| in the page cache, the first time | 5.0 [5.0, 5.0] | 20.0 [20.0, 20.0] | 4.0 [4.0, 4.0] |" in body
    assert "| of exporting, tracing | 9.0 [9.0, 12.0] s the first time |" in body
    assert "| a later run | 1.2 s |" in body
    assert "| the same, of its files' size | 1.30 |" in body
    inside = int(body.split("largest constant in it ")[1].split(" bytes")[0])
    assert 40 <= inside < 100


def test_files_leave_the_page_cache_and_enter_it(tmp_path: Path) -> None:
    """What is in it is asked of the kernel by reading without waiting."""
    file = tmp_path / "file"
    file.write_bytes(os.urandom(2**22))

    def cached() -> bool:
        with file.open("rb", buffering=0) as stream:
            try:
                return os.preadv(stream.fileno(), [bytearray(4096)], 2**21, os.RWF_NOWAIT) == 4096
            except BlockingIOError:
                return False

    try:
        cached()
    except OSError:
        pytest.skip("this file system cannot be read without waiting")
    full_size.set_page_cache("cold", tmp_path)
    if cached():
        pytest.skip("this file system is the page cache")
    full_size.set_page_cache("warm", tmp_path)
    assert cached()


def test_a_copy_is_measured_and_goes(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(bytes(1000))
    assert full_size.copy_folder(tmp_path / "source", tmp_path / "copy").seconds > 0
    assert not (tmp_path / "copy").exists()


@pytest.mark.slow
def test_the_command_exports_checks_runs_and_clears_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the pipeline's size is as it is in earnest."""
    shapes = quantized.TINY_SHAPES.transformer | {"dim": 384, "n_heads": 6, "n_kv_heads": 6}
    pipeline = tmp_path / "random-transformer-2-layers"
    quantized.write_quantized(pipeline, "transformer", replace(quantized.TINY_SHAPES, transformer=shapes))
    monkeypatch.setattr(full_size, "SIZE", (64, 64))
    words = ["--folder", str(tmp_path), "--component", "transformer", "--runs", "1", "--layers", "2"]
    result = CliRunner().invoke(full_size.main, words)
    assert result.exit_code == 0, result.output
    assert "| `onnx.checker` by path | passed in" in result.output
    assert "a picture of 64 x 64 pixels" in result.output
    assert not list(tmp_path.glob("*transformer*"))
