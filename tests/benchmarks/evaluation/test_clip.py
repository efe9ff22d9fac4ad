"""What is said of the demo's CLIP, on vectors and counts that are known beforehand."""

from __future__ import annotations

import numpy as np

from edgepress.benchmarks.evaluation import clip


def test_nearest_is_of_the_same_number() -> None:
    ones = np.eye(3)
    assert clip.match_nearest(ones, ones) == [True, True, True]
    assert clip.match_nearest(ones, ones[[1, 0, 2]]) == [False, False, True]


def test_a_share_has_wilsons_interval() -> None:
    """E. B. Wilson, JASA 22 (1927); for all of n it is n / (n + z²) to 1, for half of n symmetric."""
    assert clip.format_share([True] * 96) == "100.0% [96.2, 100.0]"
    assert clip.format_share([True, False] * 50) == "50.0% [40.4, 59.6]"
