"""Decoding in tiles held against diffusers' own decoder, which decodes whole."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_vae import error_of, latents, vae
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress.models.shared import vae_tiling_graphs
from edgepress.models.shared.vae_tiling import VAE_TILE_GRAPHS, plan_decoder_stages
from edgepress.runtime import vae_tiling as module
from edgepress.runtime.vae_tiling import CONVERGENCE_TOLERANCE, RunAll, make_tiled_decoder, pool_moments, split_axis


def graphs(component: Any) -> RunAll:
    """The stages as torch computes them."""
    names = {graph.name: getattr(vae_tiling_graphs, graph.module.rpartition(":")[2]) for graph in VAE_TILE_GRAPHS}
    made = {name: wrapper(component) for name, wrapper in names.items()}

    def run(name: str, inputs: dict[str, Any]) -> list[Any]:
        outputs = made[name](*(torch.from_numpy(value) for value in inputs.values()))
        return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]

    return run


def error(component: Any, height: int, width: int, side: int, still: float = 0.0) -> float:
    """The largest difference from the picture decoded whole, over its largest value."""
    run = make_tiled_decoder(graphs(component), "vae_decoder", plan_decoder_stages(component.config), side, still)
    return error_of(run, component, height, width)


@pytest.mark.parametrize(("height", "width", "side"), [(16, 16, 64), (9, 20, 48), (24, 4, 64), (8, 8, 64)])
def test_tiles_are_the_whole_picture_where_passes_go_on_to_the_end(height: int, width: int, side: int) -> None:
    assert error(vae(), height, width, side) < 1e-5


@pytest.mark.parametrize(
    "changed",
    [
        {"layers_per_block": 2},
        {"mid_block_add_attention": False},
        {"use_post_quant_conv": True},
        {"norm_num_groups": 8},
        {"latent_channels": 16},
    ],
    ids=str,
)
def test_every_decoder_of_the_kind_can_be_tiled(changed: dict[str, Any]) -> None:
    assert error(vae(**changed), 12, 16, 64) < 1e-5


def test_where_passes_end_early_no_difference_can_be_seen() -> None:
    """2 / 255 is a step of 8 bits, for pictures from -1 to 1."""
    assert error(vae(), 16, 24, 64, CONVERGENCE_TOLERANCE) < 1 / 255


def test_a_margin_too_narrow_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        module, "spans", lambda length, side, margin, fixed: split_axis(length, side, margin - 1, fixed)
    )
    assert error(vae(), 16, 16, 64) > 1e-4


def test_one_tile_is_enough_for_a_small_picture_and_runs_once() -> None:
    component = vae()
    run, names = graphs(component), []

    def counted(name: str, inputs: dict[str, Any]) -> Any:
        names.append(name)
        return run(name, inputs)

    make_tiled_decoder(counted, "vae_decoder", plan_decoder_stages(component.config), 64)(
        "vae_decoder", {"latents": latents(component, 8, 8)}
    )
    assert names == ["vae_begin", "vae_up_1", "vae_up_2", "vae_up_3"]


def test_no_tile_is_larger_than_asked() -> None:
    component, seen = vae(), []
    run = graphs(component)

    def watched(name: str, inputs: dict[str, Any]) -> Any:
        if name != "vae_begin":
            seen.append((inputs["rows"].sum(), inputs["columns"].sum()))
            assert max(inputs["features"].shape[2:]) <= 32 + 2 * 4
        return run(name, inputs)

    make_tiled_decoder(watched, "vae_decoder", plan_decoder_stages(component.config), 64)(
        "vae_decoder", {"latents": latents(component, 20, 9)}
    )
    assert max(side for tile in seen for side in tile) <= 32


def test_other_graphs_are_run_as_they_are() -> None:
    run = make_tiled_decoder(lambda name, inputs: [name, inputs], "vae_decoder", plan_decoder_stages(vae().config), 64)  # type: ignore[list-item]
    assert run("other", {}) == "other"  # type: ignore[comparison-overlap]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 400), st.integers(32, 128), st.integers(0, 4))
def test_tiles_cover_all_once(length: int, side: int, margin: int) -> None:
    found = split_axis(length, side, margin)
    assert (found[0].begin, found[-1].end) == (0, length)
    assert all(before.end == after.begin for before, after in pairwise(found))
    for span in found:
        assert 0 < span.end - span.begin <= side
        assert span.mask.sum() == span.end - span.begin
        assert (span.padded_begin, span.padded_end) == (max(span.begin - margin, 0), min(span.end + margin, length))


def test_moments_of_tiles_are_pooled_to_those_of_all() -> None:
    values = np.random.default_rng(1).standard_normal((3, 5, 120)) + np.arange(120) / 30  # norms, groups, pixels
    pieces = np.split(values, [20, 70], axis=2)
    measured = [np.stack([piece.mean(2), piece.var(2)], axis=1).astype(np.float32) for piece in pieces]
    expected = np.stack([values.mean(2), values.var(2)], axis=1)
    assert pool_moments(measured, [20, 50, 50]) == pytest.approx(expected, rel=1e-5)
