"""The benchmark of the demo's CLIP, on vectors and counts with known results."""

from __future__ import annotations

import numpy as np

from edgepress.benchmarks.evaluation import clip


def test_the_nearest_target_must_be_in_the_same_row() -> None:
    vectors = np.eye(3)
    assert clip.match_nearest(vectors, vectors) == [True, True, True]
    assert clip.match_nearest(vectors, vectors[[1, 0, 2]]) == [False, False, True]


def test_a_share_has_its_wilson_interval() -> None:
    """E. B. Wilson, JASA 22 (1927): for n of n it is n / (n + z²) to 1, for half of n it is symmetric."""
    assert clip.format_share([True] * 96) == "100.0% [96.2, 100.0]"
    assert clip.format_share([True, False] * 50) == "50.0% [40.4, 59.6]"
