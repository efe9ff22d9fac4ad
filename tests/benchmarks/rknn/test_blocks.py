"""The benchmark of blocks for an NPU: its section for known numbers, and the fit of costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepress.benchmarks.rknn import blocks
from edgepress.benchmarks.rknn.blocks import BlockCase, collect_cost_points, fit_costs, render_section
from edgepress.benchmarks.synthetic import full_size

FP16, W8A8 = BlockCase(1, 256, "rk3588", "fp16"), BlockCase(1, 256, "rk3588", "w8a8")


def make_record(peak: float, seconds: float) -> dict[str, Any]:
    return {
        "build": {"peak_bytes": peak, "seconds": seconds},
        "bytes": 4e8,
        "memory": {"internal": 185e6},
        "simulated": {"relative_error": 6.5e-4},
        "rejected": None,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of the benchmark: the pipeline's configs, and golden outputs that differ by a tenth."""
    folder = tmp_path_factory.mktemp("npu")
    full_size.write_pipeline(folder / "blocks-1", full_size.make_wide_shapes(1), with_weights=False)
    x, y = np.ones((1, 2), np.float32), np.float32([[3, 4]])
    for case, factor in ((FP16, 1), (W8A8, 1.1)):
        arrays: dict[str, Any] = {"in.states": x, "out": factor * y}
        np.savez(folder / f"{case.name}.npz", **arrays)
    return folder


@pytest.mark.slow
def test_the_section_reports_every_case(folder: Path) -> None:
    results = {FP16: {blocks.GRAPH: [make_record(5.6e9, 66)]}, W8A8: {blocks.GRAPH: [make_record(5.7e9, 74)]}}
    body = render_section(results, folder)
    assert FP16.tokens == 16 * 16 + 64
    assert "| 1 | 320 | fp16, rk3588 | 66 s | 5.6 GB | 400 MB | 185 MB (" in body
    assert "| 6.5e-04 | – | published |" in body
    assert "| 6.5e-04 | 1.0e-01 |" in body


@pytest.mark.slow
def test_only_parts_that_raise_the_peak_memory_are_points(folder: Path) -> None:
    graphs = {
        "text_encoder": [make_record(1e9, 3)],
        "caption": [make_record(1e9, 2)],
        blocks.GRAPH: [make_record(5e9, 60)],
        "vae_decoder": [make_record(5e9, 9)],
    }
    points = collect_cost_points(FP16, graphs, folder)
    assert [(point.peak, point.seconds) for point in points] == [(1e9, 3), (5e9, 60)]
    assert points[1].footprint.parameters > 181e6


def test_the_fit_is_exact_and_never_negative() -> None:
    sizes = [(1, parameters, live) for parameters, live in ((1, 5), (10**8, 10**6), (3 * 10**8, 10**8), (9, 0))]
    line = [1e9 + 6 * parameters + 20 * live for _, parameters, live in sizes]
    assert fit_costs(sizes, line) == pytest.approx((1e9, 6, 20), rel=1e-6)
    assert min(fit_costs(sizes, [1e9 - live for _, _, live in sizes])) >= 0
