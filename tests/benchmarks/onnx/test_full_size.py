"""The benchmark of full-size exports: its section, and the whole command on tiny shapes."""

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


def make_cost(seconds: float, memory: int = 10**9) -> Cost:
    return Cost(seconds, 2 * seconds, memory, 0, 0, 0, 0, 0, 0)


def write_graph(folder: Path) -> Path:
    """Writes a graph with an inline constant of 40 bytes and an external weight of 4000 bytes."""
    table, weight = np.arange(10, dtype=np.float32), np.zeros(1000, np.float32)
    nodes = [
        helper.make_node("Constant", [], ["table"], value=numpy_helper.from_array(table, "table")),
        helper.make_node("Concat", ["table", "weight"], ["y"], axis=0),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1010])]
    graph = helper.make_graph(nodes, "g", [], outputs, [numpy_helper.from_array(weight, "weight")])
    file, shard = folder / "transformer.onnx", "transformer-00001-of-00001.safetensors"
    onnx.save(helper.make_model(graph), str(file), save_as_external_data=True, location=shard, size_threshold=1000)
    return file


def make_costs(folder: Path) -> ComponentCosts:
    exports = {
        ("cold", "first"): [ExportRun(make_cost(40), 9.0, 10.0), ExportRun(make_cost(70), 12.0, 10.0)],
        ("cold", "again"): [ExportRun(make_cost(15), 0.1, 0.0), ExportRun(make_cost(30), 0.1, 0.0)],
        ("warm", "first"): [ExportRun(make_cost(20), 9.0, 0.0)],
        ("warm", "again"): [ExportRun(make_cost(10), 0.1, 0.0)],
    }
    copies = {"cold": [make_cost(10), make_cost(20)], "warm": [make_cost(5)]}
    times = {"first": 2.5, "later": [1.0, 1.2, 9.0], "tokens": 64}
    return ComponentCosts("transformer", exports, copies, make_cost(3), make_cost(9, 5200), times, write_graph(folder))


def test_the_section_reports_ratios_sizes_and_times(tmp_path: Path) -> None:
    body = full_size.render_section(make_costs(tmp_path))
    assert "full-size transformer" in body
    assert "| not in the page cache, the first time | 15.0 [10.0, 20.0] | 45.0 [30.0, 60.0] | 3.0 [3.0, 3.0] |" in body
    assert "| not in the page cache, again | 15.0 [10.0, 20.0] | 22.5 [15.0, 30.0] | 1.5 [1.5, 1.5] |" in body
    assert "| in the page cache, the first time | 5.0 [5.0, 5.0] | 20.0 [20.0, 20.0] | 4.0 [4.0, 4.0] |" in body
    assert "| tracing, part of exporting | 9.0 [9.0, 12.0] s the first time |" in body
    assert "| a later run | 1.2 s |" in body
    assert "| the same, relative to the size of its files | 1.30 |" in body
    inline = int(body.split("largest constant in it ")[1].split(" bytes")[0])
    assert 40 <= inline < 100


def test_files_are_evicted_from_and_read_into_the_page_cache(tmp_path: Path) -> None:
    """A non-blocking read succeeds only for data in the page cache."""
    file = tmp_path / "file"
    file.write_bytes(os.urandom(2**22))

    def is_cached() -> bool:
        with file.open("rb", buffering=0) as stream:
            try:
                return os.preadv(stream.fileno(), [bytearray(4096)], 2**21, os.RWF_NOWAIT) == 4096
            except BlockingIOError:
                return False

    try:
        is_cached()
    except OSError:
        pytest.skip("this file system does not support non-blocking reads")
    full_size.set_page_cache("cold", tmp_path)
    if is_cached():
        pytest.skip("this file system is in memory")
    full_size.set_page_cache("warm", tmp_path)
    assert is_cached()


def test_a_copy_is_measured_and_removed(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(bytes(1000))
    assert full_size.copy_folder(tmp_path / "source", tmp_path / "copy").seconds > 0
    assert not (tmp_path / "copy").exists()


@pytest.mark.slow
def test_the_command_exports_checks_runs_and_removes_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything except the size of the pipeline, and that files are always cold, is as in a real run."""
    shapes = quantized.TINY_SHAPES.transformer | {"dim": 384, "n_heads": 6, "n_kv_heads": 6}
    pipeline = tmp_path / "random-transformer-2-layers"
    quantized.write_quantized(pipeline, ["transformer"], replace(quantized.TINY_SHAPES, transformer=shapes))
    monkeypatch.setattr(full_size, "SIZE", (64, 64))
    monkeypatch.setattr(full_size, "PAGE_CACHE_STATES", {"cold": "not in the page cache"})
    monkeypatch.setattr(full_size, "CACHE_STATES", [("cold", "first"), ("cold", "again")])
    arguments = ["--folder", str(tmp_path), "--component", "transformer", "--runs", "1", "--layers", "2"]
    result = CliRunner().invoke(full_size.main, arguments)
    assert result.exit_code == 0, result.output
    assert "| `onnx.checker` by path | passed in" in result.output
    assert "an image of 64 x 64 pixels" in result.output
    assert not list(tmp_path.glob("*transformer*"))
