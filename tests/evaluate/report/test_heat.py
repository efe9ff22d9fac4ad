from __future__ import annotations

import numpy as np
import pytest

from edgepress.evaluate.registry import Picture
from edgepress.evaluate.report import heat
from edgepress.evaluate.report.heat import DIFFERENCE, FLIP, Heat, chosen, coloured, gradient


def luminance(picture: Picture) -> np.ndarray:
    return picture @ np.array([0.2126, 0.7152, 0.0722])


def test_the_channel_that_differs_most_counts(noise: Picture) -> None:
    variant = noise.copy()
    variant[3, 5] = noise[3, 5] ^ np.uint8([1, 128, 3])
    drawn = DIFFERENCE.draw(noise, variant)
    assert drawn.shape == noise.shape
    assert drawn.dtype == np.uint8
    expected = coloured(np.full((1, 1), (128 / 255) ** 0.5))[0, 0]
    assert drawn[3, 5].tolist() == expected.tolist()
    drawn[3, 5] = 0
    black = coloured(np.zeros((1, 1)))[0, 0]
    assert (drawn.reshape(-1, 3) == black).all(axis=1).sum() == noise.shape[0] * noise.shape[1] - 1


def test_more_difference_is_brighter_on_a_scale_of_square_roots() -> None:
    reference = np.zeros((1, 256, 3), np.uint8)
    variant = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2)
    levels = luminance(DIFFERENCE.draw(reference, variant))[0]
    assert (np.diff(levels) >= -0.5).all()
    assert levels[1] > levels[0] + 5  # one step of 255 is seen
    assert DIFFERENCE.place(DIFFERENCE.ticks).tolist() == pytest.approx([0, 0.0626, 0.1252, 0.2505, 0.501, 1], abs=1e-4)


@pytest.mark.parametrize("drawn", [DIFFERENCE, FLIP])
def test_equal_pictures_are_black(noise: Picture, drawn: Heat) -> None:
    if drawn is FLIP:
        pytest.importorskip("flip_evaluator")
    assert (drawn.draw(noise, noise) == coloured(np.zeros((1, 1)))).all()


def test_flip_is_taken_where_there_is_time_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heat, "find_spec", lambda name: name)
    assert chosen(heat.MOST) is FLIP
    assert chosen(heat.MOST + 1) is DIFFERENCE
    monkeypatch.setattr(heat, "find_spec", lambda _: None)
    assert chosen(1) is DIFFERENCE


def test_the_legend_runs_from_dark_to_bright() -> None:
    colours = [np.array([int(part) for part in colour[4:-1].split()]) for colour in gradient(5)]
    assert [luminance(colour) for colour in colours] == sorted(luminance(colour) for colour in colours)
    assert len(colours) == 5
