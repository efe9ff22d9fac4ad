"""Decoding in tiles against the decoder of diffusers, which decodes images as a whole."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_vae import make_latents, make_vae, measure_decoding_error
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress.models.shared import vae_tiling_graphs
from edgepress.models.shared.vae_tiling import VAE_TILE_GRAPHS, plan_decoder_stages
from edgepress.runtime import vae_tiling
from edgepress.runtime.vae_tiling import CONVERGENCE_TOLERANCE, RunAll, make_tiled_decoder, pool_moments, split_axis


def make_stage_runner(component: Any) -> RunAll:
    """Runs the stages in torch."""
    names = {graph.name: getattr(vae_tiling_graphs, graph.module.rpartition(":")[2]) for graph in VAE_TILE_GRAPHS}
    modules = {name: wrapper(component) for name, wrapper in names.items()}

    def run(name: str, inputs: dict[str, Any]) -> list[Any]:
        outputs = modules[name](*(torch.from_numpy(value) for value in inputs.values()))
        return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]

    return run


def measure_error(component: Any, height: int, width: int, tile_size: int, tolerance: float = 0.0) -> float:
    """Compares the image decoded in tiles with the one decoded as a whole; the error is relative to the maximum."""
    stages = plan_decoder_stages(component.config)
    run = make_tiled_decoder(make_stage_runner(component), "vae_decoder", stages, tile_size, tolerance)
    return measure_decoding_error(run, component, height, width)


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width", "tile_size"), [(16, 16, 64), (9, 20, 48), (24, 4, 64), (8, 8, 64)])
def test_tiles_equal_the_whole_image_without_tolerance(height: int, width: int, tile_size: int) -> None:
    assert measure_error(make_vae(), height, width, tile_size) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"layers_per_block": 2},
        {"mid_block_add_attention": False},
        {"use_post_quant_conv": True},
        {"norm_num_groups": 8},
        {"latent_channels": 16},
    ],
    ids=str,
)
def test_decoder_variants(changes: dict[str, Any]) -> None:
    assert measure_error(make_vae(**changes), 12, 16, 64) < 1e-5


@pytest.mark.slow
def test_early_convergence_is_below_one_8_bit_step() -> None:
    """A step of 8 bits is 2 / 255 of images in [-1, 1]."""
    assert measure_error(make_vae(), 16, 24, 64, CONVERGENCE_TOLERANCE) < 1 / 255


def test_narrow_margin_gives_another_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        vae_tiling,
        "split_axis",
        lambda length, tile_size, margin, uniform: split_axis(length, tile_size, margin - 1, uniform),
    )
    assert measure_error(make_vae(), 16, 16, 64) > 1e-4


def test_small_image_is_one_tile_in_one_pass() -> None:
    component = make_vae()
    run, names = make_stage_runner(component), []

    def count(name: str, inputs: dict[str, Any]) -> Any:
        names.append(name)
        return run(name, inputs)

    run_graph = make_tiled_decoder(count, "vae_decoder", plan_decoder_stages(component.config), 64)
    run_graph("vae_decoder", {"latents": make_latents(component, 8, 8)})
    assert names == ["vae_begin", "vae_up_1", "vae_up_2", "vae_up_3"]


def test_tiles_are_no_larger_than_requested() -> None:
    component, sizes = make_vae(), []
    run = make_stage_runner(component)

    def record(name: str, inputs: dict[str, Any]) -> Any:
        if name != "vae_begin":
            sizes.extend([inputs["rows"].sum(), inputs["columns"].sum()])
            assert max(inputs["features"].shape[2:]) <= 32 + 2 * 4
        return run(name, inputs)

    run_graph = make_tiled_decoder(record, "vae_decoder", plan_decoder_stages(component.config), 64)
    run_graph("vae_decoder", {"latents": make_latents(component, 20, 9)})
    assert max(sizes) <= 32


def test_graphs_other_than_the_decoder_run_unchanged() -> None:
    stages = plan_decoder_stages(make_vae().config)
    run = make_tiled_decoder(lambda name, inputs: [name, inputs], "vae_decoder", stages, 64)  # type: ignore[list-item]
    assert run("transformer", {}) == "transformer"  # type: ignore[comparison-overlap]


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.integers(1, 400), st.integers(32, 128), st.integers(0, 4))
def test_spans_cover_an_axis_once(length: int, tile_size: int, margin: int) -> None:
    spans = split_axis(length, tile_size, margin)
    assert (spans[0].begin, spans[-1].end) == (0, length)
    assert all(before.end == after.begin for before, after in pairwise(spans))
    for span in spans:
        assert 0 < span.end - span.begin <= tile_size
        assert span.mask.sum() == span.end - span.begin
        assert span.padded_begin == max(span.begin - margin, 0)
        assert span.padded_end == min(span.end + margin, length)


def test_pooled_moments_are_those_of_all_values() -> None:
    values = np.random.default_rng(1).standard_normal((3, 5, 120)) + np.arange(120) / 30  # norms, groups, pixels
    pieces = np.split(values, [20, 70], axis=2)
    moments = [np.stack([piece.mean(2), piece.var(2)], axis=1).astype(np.float32) for piece in pieces]
    expected = np.stack([values.mean(2), values.var(2)], axis=1)
    assert pool_moments(moments, [20, 50, 50]) == pytest.approx(expected, rel=1e-5)
