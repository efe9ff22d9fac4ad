"""Measuring blocks for an NPU: what the section says of known numbers, and that the fit finds the line they lie on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepress.benchmarks.rknn import blocks
from edgepress.benchmarks.rknn.blocks import BlockCase, collect_cost_points, fit_costs, render_section
from edgepress.benchmarks.synthetic import full_size

PLAIN, EIGHT = BlockCase(1, 256, "rk3588", "fp16"), BlockCase(1, 256, "rk3588", "w8a8")


def said(peak: float, seconds: float) -> dict[str, Any]:
    return {
        "build": {"peak": peak, "seconds": seconds},
        "bytes": 4e8,
        "memory": {"internal": 185e6},
        "simulated": {"relative": 6.5e-4},
        "refused": None,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the benchmark leaves: the pipeline's configs, and golden outputs that differ by a tenth."""
    folder = tmp_path_factory.mktemp("npu")
    full_size.write_pipeline(folder / "blocks-1", full_size.make_wide_shapes(1), with_weights=False)
    x, y = np.ones((1, 2), np.float32), np.float32([[3, 4]])
    for case, factor in ((PLAIN, 1), (EIGHT, 1.1)):
        arrays: dict[str, Any] = {"in.states": x, "out": factor * y}
        np.savez(folder / f"{case.name}.npz", **arrays)
    return folder


def test_the_section_says_what_was_measured(folder: Path) -> None:
    found = {PLAIN: {blocks.GRAPH: [said(5.6e9, 66)]}, EIGHT: {blocks.GRAPH: [said(5.7e9, 74)]}}
    body = render_section(found, folder)
    assert PLAIN.tokens == 16 * 16 + 64
    assert "| 1 | 320 | fp16, rk3588 | 66 s | 5.6 GB | 400 MB | 185 MB (" in body
    assert "| 6.5e-04 | – | published |" in body
    assert "| 6.5e-04 | 1.0e-01 |" in body


def test_a_part_tells_of_memory_only_where_it_took_more_than_those_before(folder: Path) -> None:
    graphs = {
        "text_encoder": [said(1e9, 3)],
        "caption": [said(1e9, 2)],
        blocks.GRAPH: [said(5e9, 60)],
        "vae_decoder": [said(5e9, 9)],
    }
    points = collect_cost_points(PLAIN, graphs, folder)
    assert [(point.peak, point.seconds) for point in points] == [(1e9, 3), (5e9, 60)]
    assert points[1].footprint.parameters > 181e6


def test_the_fit_finds_what_each_size_costs_and_nothing_below_0() -> None:
    sizes = [(1, parameters, live) for parameters, live in ((1, 5), (10**8, 10**6), (3 * 10**8, 10**8), (9, 0))]
    line = [1e9 + 6 * parameters + 20 * live for _, parameters, live in sizes]
    assert fit_costs(sizes, line) == pytest.approx((1e9, 6, 20), rel=1e-6)
    assert min(fit_costs(sizes, [1e9 - live for _, _, live in sizes])) >= 0
