from __future__ import annotations

import numpy as np
import pytest

from edgepress.evaluate.images.types import ImageArray
from edgepress.evaluate.report import heatmap
from edgepress.evaluate.report.heatmap import DIFFERENCE, FLIP, Heatmap, apply_colormap, sample_colormap, select_heatmap


def get_luminance(image: ImageArray) -> np.ndarray:
    return image @ np.array([0.2126, 0.7152, 0.0722])


def test_the_difference_is_that_of_the_channel_that_differs_most(noise: ImageArray) -> None:
    variant = noise.copy()
    variant[3, 5] = noise[3, 5] ^ np.uint8([1, 128, 3])
    rendered = DIFFERENCE.render(noise, variant)
    assert rendered.shape == noise.shape
    assert rendered.dtype == np.uint8
    expected = apply_colormap(np.full((1, 1), (128 / 255) ** 0.5))[0, 0]
    assert rendered[3, 5].tolist() == expected.tolist()
    rendered[3, 5] = 0
    black = apply_colormap(np.zeros((1, 1)))[0, 0]
    assert (rendered.reshape(-1, 3) == black).all(axis=1).sum() == noise.shape[0] * noise.shape[1] - 1


def test_larger_differences_are_brighter_on_a_square_root_scale() -> None:
    reference = np.zeros((1, 256, 3), np.uint8)
    variant = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2)
    levels = get_luminance(DIFFERENCE.render(reference, variant))[0]
    assert (np.diff(levels) >= -0.5).all()
    assert levels[1] > levels[0] + 5  # a difference of 1 of 255 is visible
    assert DIFFERENCE.to_scale(DIFFERENCE.ticks).tolist() == pytest.approx(
        [0, 0.0626, 0.1252, 0.2505, 0.501, 1], abs=1e-4
    )


@pytest.mark.parametrize("kind", [DIFFERENCE, FLIP])
def test_equal_images_are_black(noise: ImageArray, kind: Heatmap) -> None:
    if kind is FLIP:
        pytest.importorskip("flip_evaluator")
    assert (kind.render(noise, noise) == apply_colormap(np.zeros((1, 1)))).all()


def test_flip_is_selected_if_it_is_installed_and_fast_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heatmap, "find_spec", lambda name: name)
    assert select_heatmap(heatmap.MAX_FLIP_PIXELS) is FLIP
    assert select_heatmap(heatmap.MAX_FLIP_PIXELS + 1) is DIFFERENCE
    monkeypatch.setattr(heatmap, "find_spec", lambda _: None)
    assert select_heatmap(1) is DIFFERENCE


def test_the_legend_runs_from_dark_to_bright() -> None:
    colors = [np.array([int(channel) for channel in color[4:-1].split()]) for color in sample_colormap(5)]
    levels = [get_luminance(color) for color in colors]
    assert levels == sorted(levels)
    assert len(levels) == 5
