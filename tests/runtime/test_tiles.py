"""Decoding in tiles held against decoding whole."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress.runtime.tiles import in_tiles, starts


def decoder(_: str, inputs: dict[str, Any]) -> Any:
    """Upsampling by 8 and small filters as in a VAE's decoder, without norms, which look at the whole picture.

    It reaches 7/8 of a latent far.
    """
    image = inputs["latents"][:, :3]
    for _ in range(3):
        image = np.pad(image.repeat(2, 2).repeat(2, 3), ((0, 0), (0, 0), (1, 1), (1, 1)))
        image = np.tanh(image[:, :, 2:, 1:-1] - image[:, :, :-2, 1:-1] + image[:, :, 1:-1, 2:] + image[:, :, 1:-1, :-2])
    return image


def latents(height: int, width: int) -> Any:
    return np.random.default_rng(0).standard_normal((1, 4, height, width)).astype(np.float32)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 400), st.integers(16, 128))
def test_tiles_cover_all_and_overlap_by_a_quarter(length: int, side: int) -> None:
    found = starts(length, side)
    assert found[0] == 0
    assert found[-1] + min(side, length) == length
    assert all(side - (after - before) >= side // 4 - 1 for before, after in pairwise(found))


@pytest.mark.parametrize(("height", "width", "side"), [(64, 64, 32), (33, 70, 16), (20, 90, 32), (48, 17, 16)])
def test_a_decoder_that_sees_near_pixels_gives_the_picture_of_no_tiles(height: int, width: int, side: int) -> None:
    whole = latents(height, width)
    expected = decoder("decoder", {"latents": whole})
    found = in_tiles(decoder, "decoder", side)("decoder", {"latents": whole})
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_picture_within_one_tile_is_decoded_as_it_is() -> None:
    whole = latents(16, 20)
    found = in_tiles(decoder, "decoder", 32)("decoder", {"latents": whole})
    assert np.array_equal(found, decoder("decoder", {"latents": whole}))


def test_where_tiles_disagree_one_fades_into_the_next() -> None:
    """Each tile in a shade of its own: no step between neighbouring pixels is more than a ramp's steepest."""
    shades = iter(range(100))

    def run(_: str, inputs: dict[str, Any]) -> Any:
        _, _, height, width = inputs["latents"].shape
        return np.full((1, 3, 8 * height, 8 * width), next(shades) % 2, np.float32)

    found = in_tiles(run, "decoder", 32)("decoder", {"latents": latents(32, 100)})
    ramp = 32 * 8 // 4 // 2
    assert found.min() == 0
    assert found.max() == 1
    assert np.abs(np.diff(found, axis=3)).max() <= np.pi / 2 / ramp


def test_no_tile_is_larger_than_asked() -> None:
    seen = []

    def run(_: str, inputs: dict[str, Any]) -> Any:
        seen.append(inputs["latents"].shape)
        return np.zeros((1, 3, *(8 * side for side in inputs["latents"].shape[2:])), np.float32)

    in_tiles(run, "decoder", 16)("decoder", {"latents": latents(40, 12)})
    assert set(seen) == {(1, 4, 16, 12)}


def test_other_graphs_are_run_as_they_are() -> None:
    run = in_tiles(lambda name, inputs: (name, inputs), "decoder", 16)  # type: ignore[arg-type,return-value]
    assert run("other", {}) == ("other", {})  # type: ignore[comparison-overlap]
