"""What is said of the demo's CLIP, on vectors and counts that are known beforehand."""

from __future__ import annotations

import random

import numpy as np
import pytest

from edgepress.benchmarks import clip
from edgepress.demo import signs


def test_nearest_is_of_the_same_number() -> None:
    ones = np.eye(3)
    assert clip.nearest(ones, ones) == [True, True, True]
    assert clip.nearest(ones, ones[[1, 0, 2]]) == [False, False, True]


def test_a_share_has_wilsons_interval() -> None:
    """E. B. Wilson, JASA 22 (1927); for all of n it is n / (n + z²) to 1, for half of n symmetric."""
    assert clip.share([True] * 96) == "100.0% [96.2, 100.0]"
    half = clip.share([True, False] * 50)
    assert half == "50.0% [40.4, 59.6]"


@pytest.mark.parametrize("name", ["with noise, σ 8 of 255", "as JPEG of quality 50", "10 steps of 255 brighter"])
def test_a_change_is_another_picture_of_the_same_size(name: str) -> None:
    sign = signs.held_out_signs("evaluation")[0]
    grey = np.full((128, 128, 3), 100, np.uint8)
    grey[:64] = 130
    changed = clip.CHANGES[name](sign, grey, random.Random(0))
    assert changed.shape == grey.shape
    assert changed.dtype == np.uint8
    assert np.abs(changed.astype(int) - grey).mean() <= 11
    if "brighter" in name:
        assert (changed == grey + 10).all()
