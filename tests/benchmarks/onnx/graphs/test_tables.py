"""What the sections on graphs say, of runs and results whose numbers are known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgepress.benchmarks.onnx.graphs import __main__ as graphs
from edgepress.benchmarks.onnx.graphs.measure import GraphRun, format_spread, relative_error
from edgepress.benchmarks.onnx.graphs.pictures import compare_paired
from edgepress.benchmarks.onnx.graphs.variants import BASE, EXTRA_SCHEMES, LINEARS, VARIANTS
from edgepress.recipes.schema import ExportSettings, QuantizationSettings


def ran(seconds: float, memory: int, value: float = 1.0) -> GraphRun:
    return GraphRun(seconds, memory, np.full((1, 4), value, np.float32))


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    port = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [port], [port])
    onnx.save(helper.make_model(graph), str(tmp_path / "transformer.onnx"))
    return tmp_path


def test_time_and_memory_are_ratios_to_fp32_in_the_same_round(artifact: Path) -> None:
    runs = {BASE: [ran(2.0, 1000), ran(6.0, 2000)], LINEARS: [ran(1.0, 500), ran(2.0, 500, 1.1)]}
    body = graphs.render_medium_section({BASE: artifact, LINEARS: artifact}, runs, "How it was run.")
    row = next(line for line in body.splitlines() if "groups of 128, accuracy level 0" in line)
    assert "| 2.50 [2.00, 3.00] | 1.50 |" in row
    assert "| 0.38 [0.25, 0.50] |" in row
    assert row.endswith("| 0.0% |")
    assert "How it was run." in body


def test_the_error_is_relative() -> None:
    assert relative_error(np.array([3.0, 4.4], np.float32), np.array([3.0, 4.0], np.float32)) == pytest.approx(0.08)


def test_a_spread_is_the_median_and_the_range() -> None:
    assert format_spread([3.0, 1.0, 2.0]) == "2.00 [1.00, 3.00]"


def variant(psnr: float | None, text: float) -> Any:
    return SimpleNamespace(values={"psnr": psnr}, picture=SimpleNamespace(values={"text_accuracy": text}))


def test_gains_are_paired_and_leave_equal_pictures_out() -> None:
    rows = [
        SimpleNamespace(prompt=SimpleNamespace(id="a"), variants={"x": variant(50, 1), "y": variant(48, 0.5)}),
        SimpleNamespace(prompt=SimpleNamespace(id="b"), variants={"x": variant(40, 1), "y": variant(39, 1)}),
        SimpleNamespace(prompt=SimpleNamespace(id="c"), variants={"x": variant(None, 1), "y": variant(30, 1)}),
    ]
    results: Any = SimpleNamespace(rows=rows)
    psnr, text = (compare_paired(results, "x", "y", score) for score in ("psnr", "text_accuracy"))
    assert psnr is not None
    assert (psnr.mean, psnr.count) == (1.5, 2)
    assert text is not None
    assert text.mean == pytest.approx(0.5 / 3)


def test_the_catalog_can_be_pressed_and_exported() -> None:
    assert QuantizationSettings.model_validate({"also": EXTRA_SCHEMES}).extra_schemes.keys() == EXTRA_SCHEMES.keys()
    names = [one.name for one in VARIANTS]
    assert len(set(names)) == len(names)
    assert {BASE, LINEARS} <= set(names)
    for one in VARIANTS:
        ExportSettings.model_validate(one.settings)
