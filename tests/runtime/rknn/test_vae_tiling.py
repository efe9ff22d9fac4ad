"""Decoding in tiles of one size, with graphs of one output, against diffusers' decoder, which decodes whole."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_vae import make_vae, measure_decoding_error
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress.models.base.host import RunGraph
from edgepress.models.base.tiling import DecoderTiling
from edgepress.models.shared import vae_tiling_npu, vae_tiling_npu_graphs
from edgepress.models.shared.vae_tiling_npu import plan_decoder_tiling
from edgepress.runtime.rknn import vae_tiling as module
from edgepress.runtime.rknn.vae_tiling import make_tiled_decoder
from edgepress.runtime.vae_tiling import CONVERGENCE_TOLERANCE, split_axis


def make_graph_runner(component: Any, tiling: DecoderTiling, calls: list[str] | None = None) -> RunGraph:
    """Returns a function that runs the graphs in torch, and checks the shapes of their inputs."""
    modules = {
        graph.name: getattr(vae_tiling_npu_graphs, graph.module.rpartition(":")[2])(component)
        for graph in tiling.graphs
    }
    ports = {graph.name: graph.inputs for graph in tiling.graphs}

    def run(name: str, inputs: dict[str, Any]) -> Any:
        assert list(inputs) == [port.name for port in ports[name]]
        for port in ports[name]:
            axes = zip(port.axes, inputs[port.name].shape, strict=True)
            assert all(size == tiling.axis_sizes[axis] for axis, size in axes if axis and axis not in "hw")
        if calls is not None:
            calls.append(name)
        output: torch.Tensor = modules[name](*(torch.from_numpy(value) for value in inputs.values()))
        return output.numpy()

    return run


def measure_tiling_error(
    component: Any, height: int, width: int, tile_size: int, tolerance: float = 0.0, calls: list[str] | None = None
) -> float:
    """Returns the largest difference from the image decoded whole, relative to its largest value."""
    tiling = plan_decoder_tiling(component.config, (height, width), tile_size)
    assert tiling is not None
    run = make_tiled_decoder(make_graph_runner(component, tiling, calls), "vae_decoder", tiling, tolerance)
    return measure_decoding_error(run, component, height, width)


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width", "tile_size"), [(16, 16, 64), (10, 20, 64), (24, 4, 80), (22, 10, 64)])
def test_converged_tiles_give_the_whole_image(height: int, width: int, tile_size: int) -> None:
    assert measure_tiling_error(make_vae(), height, width, tile_size) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [
        {"layers_per_block": 2},
        {"mid_block_add_attention": False},
        {"use_post_quant_conv": True},
        {"norm_num_groups": 8},
    ],
    ids=str,
)
def test_variants_of_the_decoder_can_be_tiled(changed: dict[str, Any]) -> None:
    assert measure_tiling_error(make_vae(**changed), 12, 16, 64) < 1e-4


@pytest.mark.slow
def test_passes_that_end_early_make_no_visible_difference() -> None:
    """A step of 8 bits is 2 / 255, for images from -1 to 1."""
    calls: list[str] = []
    assert measure_tiling_error(make_vae(), 16, 16, 64, CONVERGENCE_TOLERANCE, calls) < 1 / 255
    converged_calls: list[str] = []
    measure_tiling_error(make_vae(), 16, 16, 64, 0, converged_calls)
    assert len(calls) < len(converged_calls)


@pytest.mark.slow
def test_chunked_attention_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae_tiling_npu_graphs, "MAX_ATTENTION_SCORES", 100 * 16 * 16)
    assert measure_tiling_error(make_vae(), 16, 16, 64) < 1e-4


@pytest.mark.slow
def test_counting_margins_in_the_moments_changes_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = module._make_tile_weights
    monkeypatch.setattr(module, "_make_tile_weights", lambda tile: np.ones_like(weights(tile)))
    assert measure_tiling_error(make_vae(), 16, 16, 64) > 1e-3


@pytest.mark.slow
def test_too_narrow_a_margin_changes_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """With three tiles per side, because windows at the ends reach further than they must."""
    component, plan_stages = make_vae(), vae_tiling_npu.plan_decoder_stages

    def plan_narrower_stages(config: Any) -> Any:
        plan = plan_stages(config)
        return replace(plan, stages=tuple(replace(stage, margin=stage.margin - 1) for stage in plan.stages))

    monkeypatch.setattr(vae_tiling_npu, "plan_decoder_stages", plan_narrower_stages)
    assert measure_tiling_error(component, 24, 24, 64) > 1e-3


def test_stages_up_to_a_tile_run_whole_and_each_later_one_in_two_graphs() -> None:
    config = make_vae().config
    names = {
        size: [graph.name for graph in plan_decoder_tiling(config, (size, size), 64).graphs]  # type: ignore[union-attr]
        for size in (16, 32, 64)
    }
    assert names[16] == ["vae_begin", "vae_measure_3", "vae_make_3"]
    assert names[32] == ["vae_begin", "vae_measure_2", "vae_make_2", "vae_measure_3", "vae_make_3"]
    assert names[64][:3] == ["vae_begin", "vae_measure_1", "vae_make_1"]
    assert plan_decoder_tiling(config, (8, 8), 64) is None
    assert plan_decoder_tiling(config, (64, 64), None) is None


def test_other_graphs_run_unchanged() -> None:
    tiling = plan_decoder_tiling(make_vae().config, (16, 16), 64)
    assert tiling is not None
    run = make_tiled_decoder(lambda name, _: name, "vae_decoder", tiling)  # type: ignore[arg-type,return-value]
    assert run("other", {}) == "other"  # type: ignore[comparison-overlap]


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.integers(1, 400), st.integers(32, 128), st.integers(0, 4))
def test_uniform_windows_cover_everything_once_with_margins(length: int, tile_size: int, margin: int) -> None:
    spans = split_axis(length, tile_size, margin, uniform=True)
    assert (spans[0].begin, spans[-1].end) == (0, length)
    assert all(before.end == after.begin for before, after in pairwise(spans))
    assert len({span.padded_end - span.padded_begin for span in spans}) == 1
    for span in spans:
        assert 0 < span.end - span.begin <= tile_size
        assert 0 <= span.padded_begin <= max(span.begin - margin, 0)
        assert min(span.end + margin, length) <= span.padded_end <= length
        assert span.padded_end - span.padded_begin <= tile_size + 2 * margin
        assert span.mask.sum() == span.end - span.begin
