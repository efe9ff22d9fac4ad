"""Decoding in tiles of one size, in graphs of one output, held against diffusers' own decoder, which decodes whole."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_vae import error_of, vae
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress.models.base.host import RunGraph
from edgepress.models.base.tiling import DecoderTiling
from edgepress.models.shared import vae_tiling_npu, vae_tiling_npu_graphs
from edgepress.models.shared.vae_tiling_npu import plan_decoder_tiling
from edgepress.runtime.rknn import vae_tiling as module
from edgepress.runtime.rknn.vae_tiling import make_tiled_decoder
from edgepress.runtime.vae_tiling import CONVERGENCE_TOLERANCE, split_axis


def make_graph_runner(component: Any, tiling: DecoderTiling, called: list[str] | None = None) -> RunGraph:
    """The graphs as torch computes them, which take the shapes of their axes and no others."""
    made = {
        graph.name: getattr(vae_tiling_npu_graphs, graph.module.rpartition(":")[2])(component)
        for graph in tiling.graphs
    }
    ports = {graph.name: graph.inputs for graph in tiling.graphs}

    def run(name: str, inputs: dict[str, Any]) -> Any:
        assert list(inputs) == [port.name for port in ports[name]]
        for port in ports[name]:
            fixed = zip(port.axes, inputs[port.name].shape, strict=True)
            assert all(size == tiling.axis_sizes[axis] for axis, size in fixed if axis and axis not in "hw")
        if called is not None:
            called.append(name)
        output: torch.Tensor = made[name](*(torch.from_numpy(value) for value in inputs.values()))
        return output.numpy()

    return run


def measure_tiling_error(
    component: Any, height: int, width: int, tile: int, still: float = 0.0, called: list[str] | None = None
) -> float:
    """The largest difference from the picture decoded whole, over its largest value."""
    tiling = plan_decoder_tiling(component.config, (height, width), tile)
    assert tiling is not None
    run = make_tiled_decoder(make_graph_runner(component, tiling, called), "vae_decoder", tiling, still)
    return error_of(run, component, height, width)


@pytest.mark.parametrize(("height", "width", "tile"), [(16, 16, 64), (10, 20, 64), (24, 4, 80), (22, 10, 64)])
def test_tiles_are_the_whole_picture_where_passes_go_on_to_the_end(height: int, width: int, tile: int) -> None:
    assert measure_tiling_error(vae(), height, width, tile) < 1e-4


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
def test_every_decoder_of_the_kind_can_be_tiled(changed: dict[str, Any]) -> None:
    assert measure_tiling_error(vae(**changed), 12, 16, 64) < 1e-4


def test_where_passes_end_early_no_difference_can_be_seen() -> None:
    """2 / 255 is a step of 8 bits, for pictures from -1 to 1."""
    called: list[str] = []
    assert measure_tiling_error(vae(), 16, 16, 64, CONVERGENCE_TOLERANCE, called) < 1 / 255
    to_the_end: list[str] = []
    measure_tiling_error(vae(), 16, 16, 64, 0, to_the_end)
    assert len(called) < len(to_the_end)


def test_attention_that_takes_some_queries_at_a_time_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae_tiling_npu_graphs, "SCORES", 100 * 16 * 16)
    assert measure_tiling_error(vae(), 16, 16, 64) < 1e-4


def test_moments_that_count_margins_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = module._make_tile_weights
    monkeypatch.setattr(module, "_weights", lambda tile: np.ones_like(weights(tile)))
    assert measure_tiling_error(vae(), 16, 16, 64) > 1e-3


def test_a_margin_too_narrow_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """With three tiles a side, as windows at the ends reach further than they must."""
    component, stages = vae(), vae_tiling_npu.plan_decoder_stages

    def narrower(config: Any) -> Any:
        found = stages(config)
        return replace(found, stages=tuple(replace(stage, margin=stage.margin - 1) for stage in found.stages))

    monkeypatch.setattr(vae_tiling_npu, "tiles_of", narrower)
    assert measure_tiling_error(component, 24, 24, 64) > 1e-3


def test_what_fits_a_tile_runs_whole_and_each_stage_after_it_in_two_graphs() -> None:
    config = vae().config
    names = {
        side: [graph.name for graph in plan_decoder_tiling(config, (side, side), 64).graphs] for side in (16, 32, 64)
    }  # type: ignore[union-attr]
    assert names[16] == ["vae_begin", "vae_measure_3", "vae_make_3"]
    assert names[32] == ["vae_begin", "vae_measure_2", "vae_make_2", "vae_measure_3", "vae_make_3"]
    assert names[64][:3] == ["vae_begin", "vae_measure_1", "vae_make_1"]
    assert plan_decoder_tiling(config, (8, 8), 64) is None
    assert plan_decoder_tiling(config, (64, 64), None) is None


def test_other_graphs_are_run_as_they_are() -> None:
    tiling = plan_decoder_tiling(vae().config, (16, 16), 64)
    assert tiling is not None
    run = make_tiled_decoder(lambda name, _: name, "vae_decoder", tiling)  # type: ignore[arg-type,return-value]
    assert run("other", {}) == "other"  # type: ignore[comparison-overlap]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 400), st.integers(32, 128), st.integers(0, 4))
def test_windows_of_one_size_cover_all_once_and_reach_far_enough(length: int, side: int, margin: int) -> None:
    found = split_axis(length, side, margin, uniform=True)
    assert (found[0].begin, found[-1].end) == (0, length)
    assert all(before.end == after.begin for before, after in pairwise(found))
    assert len({span.padded_end - span.padded_begin for span in found}) == 1
    for span in found:
        assert 0 < span.end - span.begin <= side
        assert 0 <= span.padded_begin <= max(span.begin - margin, 0)
        assert min(span.end + margin, length) <= span.padded_end <= length
        assert span.padded_end - span.padded_begin <= side + 2 * margin
        assert span.mask.sum() == span.end - span.begin
