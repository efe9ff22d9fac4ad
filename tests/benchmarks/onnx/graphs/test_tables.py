"""The sections on graphs, for runs and results with known numbers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgepress.benchmarks.onnx.graphs import __main__ as graphs
from edgepress.benchmarks.onnx.graphs.images import compare_paired
from edgepress.benchmarks.onnx.graphs.runs import GraphRun, format_spread, relative_error
from edgepress.benchmarks.onnx.graphs.variants import BASE, EXTRA_SCHEMES, LINEARS, VARIANTS
from edgepress.recipes.schema import ExportSettings, QuantizationSettings


def make_run(seconds: float, memory: int, value: float = 1.0) -> GraphRun:
    return GraphRun(seconds, memory, np.full((1, 4), value, np.float32))


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    port = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [port], [port])
    onnx.save(helper.make_model(graph), str(tmp_path / "transformer.onnx"))
    return tmp_path


def test_time_and_memory_are_relative_to_fp32_in_the_same_round(artifact: Path) -> None:
    runs = {BASE: [make_run(2.0, 1000), make_run(6.0, 2000)], LINEARS: [make_run(1.0, 500), make_run(2.0, 500, 1.1)]}
    body = graphs.render_medium_section({BASE: artifact, LINEARS: artifact}, runs, "The method.")
    row = next(line for line in body.splitlines() if "groups of 128, accuracy level 0" in line)
    assert "| 2.50 [2.00, 3.00] | 1.50 |" in row
    assert "| 0.38 [0.25, 0.50] |" in row
    assert row.endswith("| 0.0% |")
    assert "The method." in body


def test_the_error_is_relative() -> None:
    assert relative_error(np.array([3.0, 4.4], np.float32), np.array([3.0, 4.0], np.float32)) == pytest.approx(0.08)


def test_a_spread_is_the_median_and_the_range() -> None:
    assert format_spread([3.0, 1.0, 2.0]) == "2.00 [1.00, 3.00]"


def make_pair(psnr: float | None, text: float) -> Any:
    return SimpleNamespace(values={"psnr": psnr}, image=SimpleNamespace(values={"text_accuracy": text}))


def test_differences_are_paired_and_skip_identical_images() -> None:
    rows = [
        SimpleNamespace(prompt=SimpleNamespace(id="a"), variants={"x": make_pair(50, 1), "y": make_pair(48, 0.5)}),
        SimpleNamespace(prompt=SimpleNamespace(id="b"), variants={"x": make_pair(40, 1), "y": make_pair(39, 1)}),
        SimpleNamespace(prompt=SimpleNamespace(id="c"), variants={"x": make_pair(None, 1), "y": make_pair(30, 1)}),
    ]
    results: Any = SimpleNamespace(samples=rows)
    psnr, text = (compare_paired(results, "x", "y", score) for score in ("psnr", "text_accuracy"))
    assert psnr is not None
    assert (psnr.mean, psnr.count) == (1.5, 2)
    assert text is not None
    assert text.mean == pytest.approx(0.5 / 3)


def test_all_variants_have_valid_settings() -> None:
    settings = QuantizationSettings.model_validate({"extra_schemes": EXTRA_SCHEMES})
    assert settings.extra_schemes.keys() == EXTRA_SCHEMES.keys()
    names = [variant.name for variant in VARIANTS]
    assert len(set(names)) == len(names)
    assert {BASE, LINEARS} <= set(names)
    for variant in VARIANTS:
        ExportSettings.model_validate(variant.settings)
